"""What the heads are to say: boundary probabilities, overlap of every proposal with the truth, and snippet classes."""

import numpy as np

from apps.action.boundary_matching import valid_proposals

BOUNDARY = 3.0  # snippets that a boundary is wide


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Temporal intersection over union of segments a (N, 2) and b (M, 2): (N, M), 0 where both are empty."""
    inter = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    inter = np.maximum(inter, 0)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def boundary_targets(segments: np.ndarray, snippets: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and end targets (T,), between 0 and 1: how much of the place around a boundary lies in a true one.

    segments (G, 2) in snippets. Place t of the starts is the time [t - 1/2, t + 1/2); place t of the ends is
    [t + 1/2, t + 3/2), the end of snippet t. A true boundary is `BOUNDARY` snippets wide.
    Reference: Lin et al. 2019, BMN, arXiv 1907.09702, section 3.4 (label assignment of the temporal evaluation).
    """
    at = np.arange(snippets)
    made = []
    for boundary, middle in ((segments[:, 0], at), (segments[:, 1], at + 1)):
        low = np.maximum(boundary[None] - BOUNDARY / 2, middle[:, None] - 0.5)
        high = np.minimum(boundary[None] + BOUNDARY / 2, middle[:, None] + 0.5)
        made.append(np.maximum(high - low, 0).max(1, initial=0).astype(np.float32))
    return made[0], made[1]


def overlap_targets(segments: np.ndarray, snippets: int, longest: int) -> np.ndarray:
    """(D, T) the highest tIoU of proposal (d, t), the time [t, t + d + 1), with a true segment (in snippets)."""
    longest = min(longest, snippets)
    out = np.zeros((longest, snippets), np.float32)
    valid = valid_proposals(snippets, longest)
    if len(segments):
        d, t = np.nonzero(valid)
        proposals = np.stack([t, t + d + 1], 1).astype(np.float64)
        out[valid] = overlap(proposals, segments).max(1)
    return out


def class_targets(segments: np.ndarray, classes: np.ndarray, snippets: int, count: int) -> np.ndarray:
    """(T, K + 1) the share of each class in a snippet's middle, the last for background; overlaps share alike."""
    middle = np.arange(snippets) + 0.5
    inside = (segments[None, :, 0] <= middle[:, None]) & (middle[:, None] < segments[None, :, 1])
    out = np.zeros((snippets, count + 1), np.float32)
    np.add.at(out.T, classes, inside.T.astype(np.float32))
    out[:, count] = ~inside.any(1)
    return out / out.sum(1, keepdims=True)
