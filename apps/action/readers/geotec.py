"""The GeoTec phone recordings: 23 people sit, stand up, walk, turn; every moment of a recording is labelled."""

from pathlib import Path

import numpy as np

from apps.action.features import sensor_snippets
from apps.action.recordings import Corpus, Recording, Segment, Source, check_features, runs
from shared.errors import InputError
from shared.io.files import sha256

STEP, FOLDS = 0.1, 5
SHORTEST = 0.1  # seconds; a label of a few samples at a recording's end is none


def is_geotec(path: Path) -> bool:
    if path.suffix != ".npz":
        return False
    try:
        with np.load(path, allow_pickle=False) as file:
            return any(key.endswith("/signal") for key in file.files)
    except Exception:
        return False


def read_geotec(path: Path) -> Corpus:
    """Recordings of 6 channels (acceleration, rotation) in snippets of 0.1 s; five folds keep a person together."""
    recordings, people, skipped = [], [], []
    with np.load(path, allow_pickle=False) as file:
        names = sorted(key.removesuffix("/signal") for key in file.files if key.endswith("/signal"))
        for name in names:
            where = f"{path}: {name}"
            try:
                signal = check_features(where, file[f"{name}/signal"], "signal")
                times, labels = file[f"{name}/time"], file[f"{name}/label"]
            except KeyError as error:
                raise InputError(f"{where}: lacks {error}; copy the file again") from None
            except ValueError as error:
                raise InputError(
                    f"{where}: cannot be read ({' '.join(str(error).split())[:80]}); copy it again"
                ) from None
            seconds = (times - times[0]) / 1000
            rising = np.concatenate([[True], np.diff(np.maximum.accumulate(seconds)) > 0])
            signal, seconds, labels = signal[rising], seconds[rising], labels[rising]
            features = sensor_snippets(signal, seconds, STEP)
            duration = len(features) * STEP
            segments = []
            for label, start, end in runs(labels):
                first, last = seconds[start], min(duration, seconds[min(end, len(seconds) - 1)])
                if last - first < SHORTEST:
                    skipped.append(f"{name}: {label} at {first:.2f} s lasts {max(0.0, last - first):.2f} s")
                else:
                    segments.append(Segment(float(first), float(last), str(label).lower().replace("_", " ")))
            recordings.append(Recording(name, features, STEP, tuple(segments), group=name.split("_")[0]))
            people.append(name.split("_")[0])
    known = sorted(set(people))
    labels = tuple(sorted({segment.label for recording in recordings for segment in recording.segments}))
    return Corpus(
        name="GeoTec phone recordings",
        sha256=sha256(path),
        recordings=tuple(recordings),
        labels=labels,
        source=Source("sensors", STEP, None, 6),
        split_rule=f"by person, five folds of the {len(known)} people",
        folds=tuple(known.index(person) % FOLDS for person in people),
        skipped=tuple(skipped),
    )
