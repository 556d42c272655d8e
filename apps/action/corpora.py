"""Any data as a corpus: a folder of one's own, 50 Salads, GeoTec, or the streams that come with the app."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from apps.action.annotations import SUFFIXES, Annotated, read_annotations
from apps.action.config import DataConfig
from apps.action.features import ARRAYS, EXTRACTED, VIDEOS, extracted_step, read_array, read_sensors
from apps.action.readers.geotec import is_geotec, read_geotec
from apps.action.readers.salads import is_salads, read_salads
from apps.action.readers.watch import read_watch
from apps.action.recordings import Corpus, Recording, Source, checked, step_of
from shared.errors import InputError
from shared.io.files import sha256

FOLDS = 5
CLASSES = "classes.txt"


def load_corpus(data: Path | None, config: DataConfig) -> Corpus:
    """The corpus at `data`; None: the composed watch streams. Raises InputError, one line, for what cannot be used."""
    if data is None:
        return read_watch()
    if not data.exists():
        raise InputError(f"{data}: no such file or folder; check --data")
    if is_geotec(data):
        return read_geotec(data)
    if is_salads(data):
        return read_salads(data, config.scores)
    if data.is_file() and data.suffix.lower() in SUFFIXES:
        return read_folder(data.parent, data, config)
    if data.is_dir():
        return read_folder(data, annotation_file(data), config)
    raise InputError(
        f"{data}: is no data that action reads; give a folder with annotations and features (see the docs)"
    )


def annotation_file(folder: Path) -> Path:
    """The one file `annotations.*` of a folder."""
    found = [folder / f"annotations{suffix}" for suffix in SUFFIXES if (folder / f"annotations{suffix}").exists()]
    if len(found) != 1:
        what = "has no" if not found else "has more than one"
        raise InputError(
            f"{folder}: {what} annotations ({', '.join(SUFFIXES)}); put one annotations.json or .csv there"
        )
    return found[0]


def read_folder(folder: Path, annotations: Path, config: DataConfig) -> Corpus:
    """FOLDER/annotations.*, and features/, sensors/ or (with scores alone) scores/ with a file for each recording.

    A folder `scores` beside `features` holds class scores (T, R), the semantics of the attention. `classes.txt` (a
    line each) is optional: without it the classes are those that occur.
    """
    annotated = read_annotations(annotations)
    kind = next((kind for kind in ("features", "sensors", "scores") if (folder / kind).is_dir()), None)
    if kind is None:
        if (folder / "videos").is_dir():
            raise InputError(
                f"{folder}: has videos but no features; run manyheads action extract {folder / 'videos'} --out"
                f" {folder / 'features'} first"
            )
        raise InputError(f"{folder}: has no folder features, sensors or scores; put a file for each recording there")
    labels = _classes(folder / CLASSES) if (folder / CLASSES).exists() else None
    recordings, skipped, hashes = [], [], [annotations.name, sha256(annotations)]
    step = config.snippet_seconds or extracted_step(folder / kind)
    channels = None
    for name, entry in sorted(annotated.items()):
        file = _file_of(folder / kind, name, annotations)
        hashes += [name, sha256(file)]
        features, own_step, channels = _read(file, kind, entry, step, config)
        segments, repaired = checked(
            f"{annotations}: {name}", entry.segments, len(features) * own_step, labels, config.repair
        )
        skipped += repaired
        semantics = None
        if kind == "features" and (folder / "scores").is_dir():
            semantics, _ = read_array(scores := _file_of(folder / "scores", name, annotations))
            hashes.append(sha256(scores))
            if len(semantics) != len(features):
                raise InputError(f"{scores}: has {len(semantics)} snippets, {file} {len(features)}; make them alike")
        recordings.append(Recording(name, features, own_step, segments, semantics, entry.subset, entry.group or name))
    _same_width(folder / kind, recordings)
    occurring = sorted({segment.label for recording in recordings for segment in recording.segments})
    if not occurring:
        raise InputError(f"{annotations}: has no segment at all; annotate at least one")
    labels = labels or tuple(occurring)
    steps = [recording.step for recording in recordings]
    if step is None and max(steps) < 1.01 * min(steps):
        step = steps[0]  # as the durations say; a file without one is then understood, too
    source = Source("video" if (folder / kind / EXTRACTED).exists() else kind, step, config.rate, channels)
    return _with_folds(
        Corpus(
            name=folder.resolve().name,
            sha256=hashlib.sha256(" ".join(hashes).encode()).hexdigest(),
            recordings=tuple(recordings),
            labels=labels,
            source=source,
            split_rule="",
            scored=_scored(folder, labels, recordings[0], kind),
            skipped=tuple(skipped),
        ),
        annotations,
    )


def _classes(path: Path) -> tuple[str, ...]:
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if not names or doubled:
        raise InputError(
            f"{path}: {f'names {doubled} twice' if doubled else 'is empty'}; name each class once, a line each"
        )
    return tuple(names)


def _scored(folder: Path, labels: tuple[str, ...], first: Recording, kind: str) -> tuple[str, ...]:
    """What the columns of class scores mean: the lines of classes.txt, where there are as many."""
    scores = first.features if kind == "scores" else first.semantics
    known = (folder / CLASSES).exists() and scores is not None and scores.shape[1] == len(labels)
    return labels if known else ()


def _file_of(folder: Path, name: str, annotations: Path) -> Path:
    if Path(name).name != name or name in ("", ".", ".."):
        raise InputError(
            f"{annotations}: {name!r}: is no name of a recording; use a plain file name without its ending"
        )
    for suffix in ARRAYS:
        for stem in (name, Path(name).stem if Path(name).suffix.lower() in VIDEOS else name):
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    raise InputError(f"{annotations}: {name}: there are no features for it in {folder}; add {name}.npy or remove it")


def _read(
    file: Path, kind: str, entry: Annotated, step: float | None, config: DataConfig
) -> tuple[np.ndarray, float, int | None]:
    """Features, seconds a snippet, and a sensor's channels."""
    if kind == "sensors":
        own = step or 0.5
        features, channels = read_sensors(file, own, config.rate)
        return features, step_of(str(file), len(features), entry.duration, own), channels
    features, _ = read_array(file)
    return features, step_of(str(file), len(features), entry.duration, step), None


def _same_width(folder: Path, recordings: list[Recording]) -> None:
    first = recordings[0]
    for recording in recordings:
        if recording.features.shape[1] != first.features.shape[1]:
            a, b = recording.features.shape[1], first.features.shape[1]
            raise InputError(f"{folder}: {recording.name} has {a} channels, {first.name} has {b}; extract all alike")


def _with_folds(corpus: Corpus, annotations: Path) -> Corpus:
    """Folds by group where the data name no subsets. Raises InputError where some recordings have one and some not."""
    bare = [recording.name for recording in corpus.recordings if not recording.subset]
    if not bare:
        return replace(corpus, split_rule="the subsets in the annotations")
    if len(bare) < len(corpus.recordings):
        raise InputError(f"{annotations}: {bare[0]}: has no subset, though others have; name one for each, or for none")
    groups = sorted({recording.group for recording in corpus.recordings})
    folds = min(FOLDS, len(groups))
    return replace(
        corpus,
        split_rule=f"{folds} folds by group, in the order of their names",
        folds=tuple(groups.index(recording.group) % folds for recording in corpus.recordings),
    )


def summary(corpus: Corpus) -> dict:
    """What a card and a run folder keep of a corpus."""
    segments = [segment for recording in corpus.recordings for segment in recording.segments]
    facts = {
        "name": corpus.name,
        "sha256": corpus.sha256,
        "recordings": len(corpus.recordings),
        "seconds": round(sum(recording.duration for recording in corpus.recordings), 1),
        "segments": len(segments),
        "split": corpus.split_rule,
    }
    return {**facts, "note": corpus.note} if corpus.note else facts
