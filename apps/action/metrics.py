"""Mean average precision as ActivityNet's evaluator counts it, average recall of proposals, and what goes wrong.

Truth and detections are dictionaries: recording -> segments of `Segment`, or of `Detection`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from apps.action.proposals import Detection
from apps.action.recordings import Segment
from apps.action.targets import overlap

Truth = Mapping[str, Sequence[Segment]]
Found = Mapping[str, Sequence[Detection]]

LOOSE = np.array([0.3, 0.4, 0.5, 0.6, 0.7])  # as THUMOS-14 is reported
STRICT = np.linspace(0.5, 0.95, 10)  # as ActivityNet is


def _spans(segments: Sequence) -> np.ndarray:
    return np.array([[s.start, s.end] for s in segments], np.float64).reshape(-1, 2)


def average_precision(truth: Truth, found: Found, label: str, thresholds: np.ndarray) -> np.ndarray:
    """AP of one class at each tIoU threshold (N,).

    Detections are gone through by score; each takes, of the true segments of its recording that reach the threshold
    and are still free, the one it overlaps most, and is false where there is none (a duplicate therefore is false).
    AP is the area under precision made non-increasing, over recall.
    Reference: ActivityNet's evaluator, compute_average_precision_detection.
    """
    real = {name: _spans([s for s in segments if s.label == label]) for name, segments in truth.items()}
    positives = sum(len(spans) for spans in real.values())
    rows = [(d.score, name, d) for name, detections in found.items() for d in detections if d.label == label]
    if not positives or not rows:
        return np.zeros(len(thresholds))
    order = np.argsort([-score for score, _, _ in rows], kind="stable")
    right = np.zeros((len(thresholds), len(rows)), bool)
    free = {name: np.ones((len(thresholds), len(spans)), bool) for name, spans in real.items()}
    for place, at in enumerate(order):
        _, name, detection = rows[at]
        if not len(real.get(name, ())):
            continue
        tiou = overlap(_spans([detection]), real[name])[0]
        by_overlap = np.argsort(-tiou, kind="stable")
        for k, threshold in enumerate(thresholds):
            best = next((j for j in by_overlap if tiou[j] >= threshold and free[name][k, j]), None)
            if best is not None:
                free[name][k, best], right[k, place] = False, True
    return np.array([interpolated(row, positives) for row in right])


def interpolated(right: np.ndarray, positives: int) -> float:
    """The area under the interpolated precision over recall; `right` (n,) in order of score."""
    hits = np.cumsum(right)
    precision = np.concatenate([[0], hits / np.arange(1, len(right) + 1), [0]])
    recall = np.concatenate([[0], hits / positives, [1]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


def labels_in(truth: Truth) -> list[str]:
    """The classes that occur: those that the mean is over."""
    return sorted({segment.label for segments in truth.values() for segment in segments})


def mean_average_precision(truth: Truth, found: Found, thresholds: np.ndarray) -> tuple[np.ndarray, dict]:
    """mAP (N,) at each threshold, and the AP (N,) of each class that occurs; others' detections are ignored."""
    per_class = {label: average_precision(truth, found, label, thresholds) for label in labels_in(truth)}
    if not per_class:
        return np.zeros(len(thresholds)), {}
    return np.mean(list(per_class.values()), 0), per_class


def average_recall(
    truth: Truth, proposals: Mapping[str, Sequence[tuple[float, float, float]]], most: int = 100
) -> dict[str, np.ndarray | float]:
    """AR@AN over tIoU 0.5 to 0.95: `recall` (100,) at `number` (100,) proposals a recording on average, and `area`.

    The number is taken as a share of each recording's own proposals (start, end, score), so that long recordings may
    have more; `area` is that under the curve as a share of the number, as ActivityNet's AUC (between 0 and 1).
    Deviation: a recording of the truth without proposals counts as missed (theirs is left out).
    """
    names = [name for name, segments in truth.items() if segments]
    total = sum(len(proposals.get(name, ())) for name in names)
    number = np.arange(1, 101) / 100 * most
    positives = sum(len(truth[name]) for name in names)
    if not total or not positives:
        return {"number": number, "recall": np.zeros(100), "area": 0.0}
    share = most * len(names) / total
    kept = {}
    for name in names:
        mine = sorted(proposals.get(name, ()), key=lambda p: -p[2])
        kept[name] = mine[: min(int(len(mine) * share), len(mine))]
    shares = np.arange(1, 101) / 100 * (most * len(names) / max(1, sum(len(rows) for rows in kept.values())))
    hits = np.zeros((len(STRICT), 100))
    for name in names:
        if not kept[name]:
            continue
        tiou = overlap(_spans(truth[name]), np.array([p[:2] for p in kept[name]]))
        counts = np.minimum((tiou.shape[1] * shares).astype(int), tiou.shape[1])
        best = np.concatenate([np.zeros((len(tiou), 1)), np.maximum.accumulate(tiou, 1)], 1)
        for k, threshold in enumerate(STRICT):
            hits[k] += ((best >= threshold) & (best > 0))[:, counts].sum(0)
    recall = (hits / positives).mean(0)
    return {"number": number, "recall": recall, "area": float(np.trapezoid(recall, number) / number[-1])}


KINDS = ("right", "duplicate", "localisation", "confusion", "background")


def error_kinds(truth: Truth, found: Found, threshold: float = 0.5, least: float = 0.1) -> dict[str, int]:
    """What the surest detections are, as many of each class as it has true segments.

    right; duplicate: of a segment that is taken already; localisation: the class is there with tIoU between `least`
    and `threshold`; confusion: another class is there with at least `least`; background: neither.
    Reference: after Alwassel et al. 2018, DETAD, arXiv 1807.10706, section 5.
    """
    counts = dict.fromkeys(KINDS, 0)
    for label in labels_in(truth):
        budget = sum(segment.label == label for segments in truth.values() for segment in segments)
        rows = [(name, d) for name, detections in found.items() for d in detections if d.label == label]
        rows.sort(key=lambda row: -row[1].score)
        taken: set[tuple[str, int]] = set()
        for name, detection in rows[:budget]:
            counts[_kind(truth.get(name, ()), detection, label, name, taken, threshold, least)] += 1
    return counts


def _kind(segments: Sequence[Segment], detection: Detection, label: str, name: str, taken: set, high, low) -> str:
    if not segments:
        return "background"
    tiou = overlap(_spans([detection]), _spans(segments))[0]
    same = np.array([segment.label == label for segment in segments])
    for j in np.argsort(-tiou, kind="stable"):
        if same[j] and tiou[j] >= high and (name, int(j)) not in taken:
            taken.add((name, int(j)))
            return "right"
    if (same & (tiou >= high)).any():
        return "duplicate"
    if (same & (tiou >= low)).any():
        return "localisation"
    return "confusion" if (~same & (tiou >= low)).any() else "background"
