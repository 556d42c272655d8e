"""J and F on masks whose values are known, and against an independent computation by morphology."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from apps.video.measures import (
    assign,
    assign_by_frame,
    boundary_measure,
    contour,
    jaccard,
    measure_frame,
    statistics,
)


def box(top: int, left: int, bottom: int, right: int, shape=(60, 80)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_j_of_boxes_is_counted_by_hand() -> None:
    assert jaccard(box(10, 10, 30, 30), box(10, 10, 30, 30)) == 1
    assert jaccard(box(10, 10, 30, 30), box(10, 20, 30, 40)) == pytest.approx(200 / 600)
    assert jaccard(box(0, 0, 0, 0), box(10, 10, 30, 30)) == 0
    assert jaccard(box(0, 0, 0, 0), box(0, 0, 0, 0)) == 1
    assert jaccard(box(10, 10, 30, 30), box(10, 20, 30, 40), void=box(10, 30, 30, 40)) == pytest.approx(200 / 400)


def test_f_of_boxes_is_counted_by_hand() -> None:
    """The diagonal of 60 x 80 is 100, so contours may lie one pixel apart."""
    truth = box(20, 20, 40, 50)
    assert boundary_measure(truth, truth) == 1
    assert boundary_measure(box(21, 20, 41, 50), truth) == 1  # one pixel off is near
    assert boundary_measure(box(0, 0, 5, 5), truth) == 0
    assert boundary_measure(box(0, 0, 0, 0), truth) == 0
    assert boundary_measure(box(0, 0, 0, 0), box(0, 0, 0, 0)) == 1
    wide = box(20, 20, 40, 60)  # its right side is ten pixels off, and so are two strips of its long sides
    edge, edge_wide = contour(truth), contour(wide)
    precision = 1 - (np.count_nonzero(edge_wide[:, 51:])) / np.count_nonzero(edge_wide)
    recall = 1 - np.count_nonzero(edge[21:39, 49]) / np.count_nonzero(edge)
    assert boundary_measure(wide, truth) == pytest.approx(2 * precision * recall / (precision + recall), abs=0.02)


def independent_f(mask: np.ndarray, truth: np.ndarray) -> float:
    """By dilation with a disk, as the official evaluator does it; written from its description."""
    radius = math.ceil(0.008 * math.hypot(*mask.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x**2 + y**2 <= radius**2

    def edge(m: np.ndarray) -> np.ndarray:
        h, w = m.shape
        padded = np.pad(m, ((0, 1), (0, 1)), "edge")
        right, down, both = padded[:h, 1:], padded[1:, :w], padded[1:, 1:]
        out = (m ^ right) | (m ^ down) | (m ^ both)
        out[-1], out[:, -1] = m[-1] ^ right[-1], m[:, -1] ^ down[:, -1]
        out[-1, -1] = False
        return out

    a, b = edge(mask), edge(truth)
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    p = (a & binary_dilation(b, disk)).sum() / a.sum()
    r = (b & binary_dilation(a, disk)).sum() / b.sum()
    return 2 * p * r / (p + r) if p + r else 0.0


@given(st.integers(0, 10_000), st.sampled_from([(40, 60), (97, 131), (240, 428)]))
def test_f_agrees_with_dilation_on_random_shapes(seed: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    masks = []
    for _ in range(2):
        mask = np.zeros(shape, bool)
        for _ in range(rng.integers(0, 4)):
            cy, cx, r = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(2, shape[0] / 3)
            mask ^= (y - cy) ** 2 + (x - cx) ** 2 < r**2  # also cut by the frame, also with holes
        masks.append(mask)
    assert boundary_measure(*masks) == pytest.approx(independent_f(*masks), abs=1e-12)
    j, f = measure_frame(masks[0].astype(np.uint8), masks[1].astype(np.uint8), [1], [1])
    assert f[0, 0] == pytest.approx(independent_f(*masks), abs=1e-12)
    assert j[0, 0] == pytest.approx(jaccard(*masks))


def test_perfect_masks_with_random_names_score_low_by_sequence_and_perfectly_by_frame() -> None:
    rng = np.random.default_rng(0)
    count, frames = 10, 60
    j = np.zeros((frames, count, count))
    for t in range(frames):
        j[t, rng.permutation(count), np.arange(count)] = 1
    chosen = assign(j, j)
    official = np.mean([j[:, row, column].mean() for column, row in enumerate(chosen)])
    assert official < 0.3
    assert assign_by_frame(j, j)[0].mean() == 1


def test_assignment_by_sequence_takes_each_proposal_once() -> None:
    j = np.zeros((4, 2, 3))
    j[:, 0, 1], j[:, 1, 1], j[:, 1, 2] = 0.9, 0.8, 0.5
    assert assign(j, j) == [None, 0, 1]


def test_statistics() -> None:
    found = statistics(np.array([1, 1, 1, 0.75, 0.5, 0.25, 0.25, 0]))
    assert found["mean"] == pytest.approx(0.59375)
    assert found["recall"] == 0.5
    assert found["decay"] == pytest.approx(1 - 0.125)
