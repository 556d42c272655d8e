"""From maps to detections: candidates at boundary peaks, classes pooled inside them, Soft-NMS; and plain grouping."""

from dataclasses import dataclass

import numpy as np

from apps.action.recordings import runs

NOTHING = 1e-4  # scores below are not emitted
CANDIDATES = 300  # of a window, by confidence


@dataclass(frozen=True, order=True)
class Detection:
    """An action found: seconds, class, and a score between 0 and 1."""

    start: float
    end: float
    label: str
    score: float


def peaks(values: np.ndarray, share: float) -> np.ndarray:
    """(T,) True at local maxima (the first and the last place may be one) and above `share` of the highest value."""
    before = np.concatenate([[-np.inf], values[:-1]])
    after = np.concatenate([values[1:], [-np.inf]])
    return ((values > before) & (values >= after)) | (values > share * values.max(initial=0))


def candidates(
    start: np.ndarray, end: np.ndarray, classification: np.ndarray, regression: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Proposals whose start and end are peaks: segments (n, 2) in snippets and confidences (n,), the surest first.

    confidence = start . end . classification . regression. Shape: start, end (N,) with N the snippets that are there,
    which may be fewer than the maps' T; classification and regression (D, T). Every proposal that ends by N is
    considered, also one that ends with the last snippet.
    """
    snippets = len(start)
    d, t = np.indices((min(len(classification), snippets), snippets))
    inside = d + t + 1 <= snippets
    d, t = d[inside], t[inside]
    wanted = peaks(start, share)[t] & peaks(end, share)[t + d]
    d, t = d[wanted], t[wanted]
    confidence = start[t] * end[t + d] * classification[d, t] * regression[d, t]
    order = np.argsort(-confidence, kind="stable")[:CANDIDATES]
    return np.stack([t, t + d + 1], 1)[order].astype(np.float64), confidence[order]


def pooled_classes(probabilities: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """(N, K) class probabilities of snippets and (n, 2) segments in snippets -> (n, K) their mean inside each."""
    total = np.concatenate([np.zeros((1, probabilities.shape[1])), np.cumsum(probabilities, 0, dtype=np.float64)])
    first = np.clip(np.floor(segments[:, 0]).astype(int), 0, len(probabilities) - 1)
    last = np.clip(np.ceil(segments[:, 1]).astype(int), first + 1, len(probabilities))
    return (total[last] - total[first]) / (last - first)[:, None]


def strongest_labels(scores: np.ndarray, count: int) -> np.ndarray:
    """(n, K) with all but the `count` highest of each row set to 0."""
    if count >= scores.shape[1]:
        return scores
    limit = -np.partition(-scores, count - 1, axis=1)[:, count - 1 : count]
    return np.where(scores >= limit, scores, 0)


def soft_nms(
    segments: np.ndarray, scores: np.ndarray, *, alpha: float, low: float, high: float, span: float, most: int
) -> list[tuple[int, int, float]]:
    """Gaussian Soft-NMS for each class by itself, all classes at once: (proposal, class, score), by score.

    Of each class the best is taken, and the score s of the others becomes s exp(-tIoU^2 / alpha) where tIoU > low +
    (high - low) width, with width the taken one's length as a share of `span`; and again, until `most` are taken of
    each class or nothing is left above `NOTHING`.

    Shape: segments (n, 2), scores (n, K).
    Reference: Bodla et al. 2017, Soft-NMS, arXiv 1704.04503; the widths' limits are those of BMN's code.
    """
    left = scores.T.astype(np.float64).copy()  # (K, n)
    lengths = segments[:, 1] - segments[:, 0]
    taken, classes = [], np.arange(len(left))
    for _ in range(min(most, len(segments))):
        best = left.argmax(1)
        value = left[classes, best]
        alive = value > NOTHING
        if not alive.any():
            break
        taken += [(int(best[k]), int(k), float(value[k])) for k in classes[alive]]
        left[classes, best] = 0
        start, end = segments[best, 0][:, None], segments[best, 1][:, None]
        inter = np.maximum(np.minimum(end, segments[:, 1]) - np.maximum(start, segments[:, 0]), 0)
        union = (end - start) + lengths - inter
        tiou = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
        limit = low + (high - low) * np.minimum((end - start) / span, 1)
        left *= np.where(tiou > limit, np.exp(-(tiou**2) / alpha), 1)
    return sorted(taken, key=lambda item: -item[2])


def grouped(probabilities: np.ndarray, labels: list[str], step: float) -> list[Detection]:
    """Runs of snippets with the same likeliest class as detections; the score is its mean probability in the run.

    Shape: probabilities (N, K + 1), background last.
    """
    found = []
    for label, start, end in runs(probabilities.argmax(1)):
        if label < len(labels):
            score = float(probabilities[start:end, label].mean())
            found.append(Detection(start * step, end * step, labels[label], score))
    return sorted(found, key=lambda detection: -detection.score)
