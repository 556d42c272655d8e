"""seglearn's smart-watch recordings of seven shoulder exercises, composed into untrimmed streams a person and arm."""

import hashlib
from pathlib import Path

import numpy as np

from apps.action.features import sensor_snippets
from apps.action.recordings import Corpus, Recording, Segment, Source

RATE, STEP = 50.0, 0.5  # samples a second, seconds a snippet
SETS = 2  # of each exercise in a stream
LENGTH = (6.0, 14.0)  # seconds of a set
PAUSE, PAUSES = (1.0, 5.0), 0.7  # seconds of a pause, and the share of changes that have one
NAMES = {
    "PEN": "pendulum",
    "ABD": "abduction",
    "FEL": "forward elevation",
    "IR": "internal rotation",
    "ER": "external rotation",
    "TRAP": "trapezius extension",
    "ROW": "upright row",
}
FOLDS = 5
NOTE = (
    "the streams are composed: real sets of exercises, cut and put one after another at random; the pauses between them"
    " are made (a blend from one pose to the next, with noise)"
)


def read_watch() -> Corpus:
    """The 140 recordings of 10 people as 20 streams of about three minutes: people are kept together in 5 folds."""
    import seglearn.datasets

    file = Path(seglearn.datasets.__file__).parent / "data" / "watch_dataset.npy"
    recordings, people = [], []
    for name, person, signal, segments in compose_streams():
        features = sensor_snippets(signal, np.arange(len(signal)) / RATE, STEP)
        recordings.append(Recording(name, features, STEP, segments, group=f"person {person}"))
        people.append(person)
    known = sorted(set(people))
    return Corpus(
        name="watch exercises (composed from seglearn's recordings)",
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        recordings=tuple(recordings),
        labels=tuple(sorted(NAMES.values())),
        source=Source("sensors", STEP, RATE, 6),
        split_rule="by person, five folds of two people",
        folds=tuple(known.index(person) % FOLDS for person in people),
        note=NOTE,
    )


def compose_streams(seed: int = 0) -> list[tuple[str, int, np.ndarray, tuple[Segment, ...]]]:
    """name, person, signal (samples, 6) at 50 Hz and segments of each stream. The same for the same seed."""
    from seglearn.datasets import load_watch

    data = load_watch()
    subject, side = np.asarray(data["subject"]).astype(int), np.asarray(data["side"]).astype(int)
    streams = []
    for person in sorted(set(subject)):
        for arm in (0, 1):
            rng = np.random.default_rng((seed, person, arm))
            mine = [i for i in range(len(subject)) if subject[i] == person and side[i] == arm]
            order = rng.permutation(np.repeat(mine, SETS))
            parts, segments, at = [], [], 0
            for number, i in enumerate(order):
                whole = np.asarray(data["X"][i], np.float64)
                samples = min(len(whole), int(rng.uniform(*LENGTH) * RATE))
                start = int(rng.integers(0, len(whole) - samples + 1))
                cut = whole[start : start + samples]
                if number == 0 or rng.random() < PAUSES:
                    before = parts[-1][-1] if parts else cut[0]
                    parts.append(_pause(before, cut, int(rng.uniform(*PAUSE) * RATE), rng))
                    at += len(parts[-1])
                label = NAMES[data["y_labels"][int(data["y"][i])]]
                segments.append(Segment(at / RATE, (at + samples) / RATE, label))
                parts.append(cut)
                at += samples
            parts.append(_pause(parts[-1][-1], parts[-1], int(2 * RATE), rng))
            name = f"person-{person:02d}-{'right' if arm else 'left'}"
            streams.append((name, person, np.concatenate(parts), tuple(segments)))
    return streams


def _pause(before: np.ndarray, after: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """From one pose to the next, with a twentieth of the movement's spread as noise."""
    share = np.linspace(0, 1, samples)[:, None]
    blend = (1 - share) * before + share * after[0]
    return blend + rng.normal(size=blend.shape) * after.std(0) / 20
