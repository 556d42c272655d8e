"""What is trained on and detected in: recordings as snippets, with labelled segments; and what may be wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from shared.errors import InputError

TOLERANCE = 0.02  # of a duration: as far as features and annotations may disagree, since both are rounded


@dataclass(frozen=True, order=True)
class Segment:
    """A labelled action from `start` to `end`, finite numbers of seconds."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Recording:
    """An untrimmed recording as snippets.

    features (T, C) float32; snippet i is the time [i step, (i + 1) step), in seconds. semantics (T, R): class scores,
    where there are any. subset: train, valid, test, or empty; group: the person or the like that a fold keeps together.
    """

    name: str
    features: np.ndarray
    step: float
    segments: tuple[Segment, ...] = ()
    semantics: np.ndarray | None = None
    subset: str = ""
    group: str = ""

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.features) * self.step


@dataclass(frozen=True)
class Source:
    """What a model reads, so that a file can be turned into the same: see `features.read_recording`."""

    kind: str  # features, scores, sensors or video
    step: float | None  # seconds a snippet; None: each recording has its own
    rate: float | None = None  # samples a second of a sensor stream
    channels: int | None = None  # of a sensor stream


@dataclass(frozen=True)
class Corpus:
    """Recordings with their labels in order, and how they are split."""

    name: str
    sha256: str
    recordings: tuple[Recording, ...]
    labels: tuple[str, ...]
    source: Source
    split_rule: str
    folds: tuple[int, ...] = ()  # of each recording; empty where the data name subsets
    scored: tuple[str, ...] = ()  # the labels that the columns of `semantics` or, of kind scores, of the features mean
    skipped: tuple[str, ...] = ()
    note: str = ""

    @property
    def fold_count(self) -> int:
        return max(self.folds) + 1 if self.folds else 0

    def split(self, fold: int) -> dict[str, list[Recording]]:
        """train, valid and test: by the subsets that the data name, else folds `fold` (test), the next (valid), others.

        Raises InputError when the fold does not exist.
        """
        if not self.folds:
            return {name: [r for r in self.recordings if r.subset == name] for name in ("train", "valid", "test")}
        if not 0 <= fold < self.fold_count:
            raise InputError(f"data.fold: {fold} is none of the {self.fold_count} folds; they count from 0")
        valid = (fold + 1) % self.fold_count
        parts = {"train": [], "valid": [], "test": []}
        for recording, at in zip(self.recordings, self.folds, strict=True):
            parts["test" if at == fold else "valid" if at == valid else "train"].append(recording)
        return parts


def runs(labels: np.ndarray) -> list[tuple]:
    """(label, start, end) of each run of equal labels (N,), N >= 1: end is the first place after it."""
    changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    bounds = [0, *changes.tolist(), len(labels)]
    return [(labels[start], start, end) for start, end in pairwise(bounds)]


def problems(
    where: str, segments: Iterable[Segment], duration: float | None, labels: Sequence[str] | None
) -> list[str]:
    """What is wrong with a recording's segments, a line each. `duration` and `labels` None: not checked."""
    found = []
    for segment in segments:
        place = f"{where}: segment {segment.start:g} to {segment.end:g} ({segment.label})"
        if segment.end <= segment.start:
            kind = "zero" if segment.end == segment.start else "negative"
            found.append(f"{place}: has {kind} length; mend or remove it")
        elif segment.start < 0:
            found.append(f"{place}: begins before 0; mend it")
        elif duration is not None and segment.end > duration * (1 + TOLERANCE):
            found.append(f"{place}: ends after the recording, which is {duration:g} s long; mend it")
        if labels is not None and segment.label not in labels:
            found.append(f"{place}: has an unknown class; known: {', '.join(labels)}")
    return found


def checked(
    where: str, segments: Sequence[Segment], duration: float, labels: Sequence[str] | None, repair: bool
) -> tuple[tuple[Segment, ...], list[str]]:
    """The segments in order, within the recording, and what was repaired.

    Raises InputError at the first that cannot be, unless `repair`, which clips or drops it. A segment that ends past
    the recording by no more than rounding is clipped in any case.
    """
    wrong = problems(where, segments, duration, labels)
    if wrong and not repair:
        raise InputError(
            f"{wrong[0]}, or use --set data.repair=true" + (f" (and {len(wrong) - 1} more)" * (len(wrong) > 1))
        )
    kept = []
    for segment in segments:
        clipped = replace(segment, start=max(0.0, segment.start), end=min(duration, segment.end))
        known = labels is None or segment.label in labels
        if known and clipped.end > clipped.start:
            kept.append(clipped)
    return tuple(sorted(kept)), wrong


def check_features(where: str, values: np.ndarray, what: str = "features") -> np.ndarray:
    """(T, C) float32. Raises InputError for another shape, no snippet, text, or values that are no finite number."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise InputError(f"{where}: {what} are of type {values.dtype}; give numbers")
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(
            f"{where}: {what} have the shape {values.shape}; give (snippets, channels), at least one of each"
        )
    values = values.astype(np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(f"{where}: {what}: row {row + 1}, column {column + 1} is no finite number; mend the file")
    return values


def step_of(where: str, snippets: int, duration: float | None, step: float | None) -> float:
    """Seconds a snippet, from what is known. Raises InputError when it is not enough, or contradicts itself."""
    if step is None:
        if duration is None:
            raise InputError(f"{where}: neither its duration nor seconds a snippet are known; set data.snippet_seconds")
        return duration / snippets
    if duration is not None and abs(snippets * step - duration) > max(2 * step, TOLERANCE * duration):
        raise InputError(
            f"{where}: has {snippets} snippets of {step:g} s, {snippets * step:g} s in all, but the annotations say"
            f" {duration:g} s; extract it again or mend data.snippet_seconds"
        )
    return step
