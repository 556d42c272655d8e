"""DAVIS's measures of a mask: region similarity J and contour accuracy F, and whose proposal is whose.

House notation: T frames, P proposals, O objects.
"""

import math
from itertools import pairwise

import numpy as np

TOLERANCE = 0.008  # of the image's diagonal, as DAVIS has it
PROPOSALS = 20  # that the official evaluator takes at most


def jaccard(mask: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """J = |M and G| / |M or G|, 1 where both are empty; pixels that are `void` do not count.

    Reference: Perazzi et al. 2016, A Benchmark Dataset and Evaluation Methodology for VOS, section 5.
    """
    if void is not None:
        mask, truth = mask & ~void, truth & ~void
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 1.0


def contour(mask: np.ndarray) -> np.ndarray:
    """(H, W) True where a pixel differs from its right, lower or lower right neighbour."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, 1:] ^ mask[:, :-1]
    edge[:-1] |= mask[1:] ^ mask[:-1]
    edge[:-1, :-1] |= mask[1:, 1:] ^ mask[:-1, :-1]
    return edge


def boundary_measure(
    mask: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None, tolerance: float = TOLERANCE
) -> float:
    """F = 2 P R / (P + R) of contours that may lie ceil(tolerance * diagonal) pixels apart; 1 where both are empty.

    Precision is the share of the mask's contour near the truth's, recall the other way round. Near is within a disk.
    Reference: Perazzi et al. 2016, section 5; Martin et al. 2004. Deviations: distances by a distance transform, which
    for a disk is the same as dilation.
    """
    if void is not None:
        mask, truth = mask & ~void, truth & ~void
    return _agreement(_Contour(mask, tolerance), _Contour(truth, tolerance))


class _Contour:
    """A contour and what lies near it, computed once for all the pairs that it is in."""

    def __init__(self, mask: np.ndarray, tolerance: float) -> None:
        from scipy.ndimage import distance_transform_edt

        self.edge = contour(mask)
        self.count = np.count_nonzero(self.edge)
        radius = math.ceil(tolerance * math.hypot(*mask.shape))
        self.near = np.zeros_like(self.edge)
        if self.count:  # beyond this box nothing is near
            box = tuple(
                slice(max(0, int(at.min()) - radius), int(at.max()) + radius + 1) for at in np.nonzero(self.edge)
            )
            self.near[box] = distance_transform_edt(~self.edge[box]) <= radius


def _agreement(a: _Contour, b: _Contour) -> float:
    if not a.count and not b.count:
        return 1.0
    if not a.count or not b.count:
        return 0.0
    precision = np.count_nonzero(a.edge & b.near) / a.count
    recall = np.count_nonzero(b.edge & a.near) / b.count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def measure_frame(
    proposals: np.ndarray, truth: np.ndarray, given: list[int], wanted: list[int], void: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """J and F of every pair of proposal and object in one frame: label masks (H, W) -> two of (P, O)."""
    regions = [(proposals == label) for label in given], [(truth == label) for label in wanted]
    if void is not None:
        regions = tuple([region & ~void for region in side] for side in regions)  # pyright: ignore[reportAssignmentType]
    lines = [[_Contour(region, TOLERANCE) for region in side] for side in regions]
    j = np.array([[jaccard(m, g) for g in regions[1]] for m in regions[0]]).reshape(len(given), len(wanted))
    f = np.array([[_agreement(m, g) for g in lines[1]] for m in lines[0]]).reshape(len(given), len(wanted))
    return j, f


def assign(j: np.ndarray, f: np.ndarray) -> list[int | None]:
    """The proposal of each object, one for the whole sequence, by the best sum of mean (J + F) / 2.

    Shape: j and f (T, P, O). Objects beyond the number of proposals get None.
    Reference: Caelles et al. 2019, The 2019 DAVIS Challenge: Unsupervised Multi-Object Segmentation, section 3.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-(j.mean(0) + f.mean(0)) / 2)
    found: list[int | None] = [None] * j.shape[2]
    for row, column in zip(rows, columns, strict=True):
        found[column] = int(row)
    return found


def assign_by_frame(j: np.ndarray, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """J and F (T, O) when every frame may choose its proposals anew: it forgives masks that change their identity.

    Released codes of some papers score like this; DAVIS does not.
    """
    best = np.zeros((2, len(j), j.shape[2]))
    for t in range(len(j)):
        for column, row in enumerate(assign(j[t : t + 1], f[t : t + 1])):
            if row is not None:
                best[:, t, column] = j[t, row, column], f[t, row, column]
    return best[0], best[1]


def statistics(values: np.ndarray) -> dict[str, float]:
    """Mean, recall (share above 0.5) and decay (first quarter minus last) of one object's values (T,)."""
    if not len(values):
        return {"mean": 0.0, "recall": 0.0, "decay": 0.0}
    edges = np.round(np.linspace(0, len(values), 5)).astype(int)
    quarters = [values[a:b].mean() if b > a else values.mean() for a, b in pairwise(edges)]
    return {"mean": values.mean(), "recall": (values > 0.5).mean(), "decay": quarters[0] - quarters[-1]}
