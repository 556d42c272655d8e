"""Windows of snippets as a model reads them. Apart from data.py, because Lightning takes seconds to import."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from apps.action.recordings import Recording


@dataclass(frozen=True)
class Scaling:
    """Mean and spread of each channel over the training recordings."""

    mean: np.ndarray
    spread: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.mean) / self.spread).astype(np.float32)


def fit_scaling(arrays: Sequence[np.ndarray]) -> Scaling:
    """Over all rows of `arrays`; a channel that never changes keeps its scale."""
    rows = np.concatenate(arrays).astype(np.float64)
    spread = rows.std(0)
    return Scaling(rows.mean(0).astype(np.float32), np.where(spread > 1e-6, spread, 1).astype(np.float32))


def squeezed(x: np.ndarray, snippets: int) -> np.ndarray:
    """(N, C) -> (snippets, C) by linear interpolation between the snippets' middles."""
    at = np.clip((np.arange(snippets) + 0.5) * len(x) / snippets - 0.5, 0, len(x) - 1)
    low = np.floor(at).astype(int)
    high, share = np.minimum(low + 1, len(x) - 1), (at - low)[:, None].astype(np.float32)
    return x[low] * (1 - share) + x[high] * share


def window_starts(length: int, window: int, stride: int, shift: int = 0) -> list[int]:
    """Where windows begin so that they cover all of a recording; the last one ends with it."""
    if length <= window:
        return [0]
    starts = list(range(0, length - window, stride))
    if shift:
        starts = sorted({min(max(0, start - shift), length - window) for start in starts})
    return [*starts, length - window]


def cut(recording: Recording, start: int, window: int, whole: bool) -> dict[str, np.ndarray]:
    """x (T, C), semantics (T, R) and keep (T,) of a window; padded with zeros where the recording is shorter."""
    streams = {"x": recording.features}
    if recording.semantics is not None:
        streams["semantics"] = recording.semantics
    made = {}
    for name, values in streams.items():
        part = squeezed(values, window) if whole else values[start : start + window]
        made[name] = np.zeros((window, values.shape[1]), np.float32)
        made[name][: len(part)] = part
    made["keep"] = np.arange(window) < (window if whole else min(window, len(recording.features) - start))
    return made


def scaled(recordings: Sequence[Recording], features: Scaling, semantics: Scaling | None) -> list[Recording]:
    """The recordings as the model reads them."""
    return [
        replace(
            recording,
            features=features(recording.features),
            semantics=None if semantics is None or recording.semantics is None else semantics(recording.semantics),
        )
        for recording in recordings
    ]
