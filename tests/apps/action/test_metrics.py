"""mAP, AR@AN and kinds of errors against computations by hand, and the evaluator's rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.action.metrics import (
    LOOSE,
    average_precision,
    average_recall,
    error_kinds,
    interpolated,
    mean_average_precision,
)
from apps.action.proposals import Detection
from apps.action.recordings import Segment

HALF = np.array([0.5])


def found(*rows: tuple[float, float, str, float]) -> list[Detection]:
    return [Detection(*row) for row in rows]


def test_a_case_by_hand() -> None:
    """Three truths, four detections: right, false, right, right -> precision 1, 1/2, 2/3, 3/4."""
    truth = {"a": [Segment(0, 10, "x"), Segment(20, 30, "x")], "b": [Segment(0, 10, "x")]}
    detections = {
        "a": found((0, 10, "x", 0.9), (40, 50, "x", 0.8), (21, 30, "x", 0.7)),
        "b": found((0, 8, "x", 0.6)),
    }
    # Made non-increasing: 1, 3/4, 3/4, 3/4; recall rises by a third at the first, third and fourth.
    assert average_precision(truth, detections, "x", HALF)[0] == pytest.approx((1 + 0.75 + 0.75) / 3)
    # At 0.85 the last one (tIoU 0.8) is false: precision 1, 1/2, 2/3 -> area 1/3 (1 + 2/3).
    assert average_precision(truth, detections, "x", np.array([0.85]))[0] == pytest.approx((1 + 2 / 3) / 3)


def test_one_match_a_truth_and_duplicates_are_false() -> None:
    truth = {"a": [Segment(0, 10, "x")]}
    twice = {"a": found((0, 10, "x", 0.9), (0, 10, "x", 0.8))}
    assert average_precision(truth, twice, "x", HALF)[0] == 1  # the duplicate comes after full recall
    two = {"a": [Segment(0, 10, "x"), Segment(50, 60, "x")]}
    late = {"a": found((0, 10, "x", 0.9), (0, 10, "x", 0.8), (50, 60, "x", 0.7))}
    assert average_precision(two, late, "x", HALF)[0] == pytest.approx((1 + 2 / 3) / 2)


def test_a_taken_truth_leaves_the_next_best_free() -> None:
    """The evaluator goes on to the truth with the next overlap when the best one is taken."""
    truth = {"a": [Segment(0, 10, "x"), Segment(2, 12, "x")]}
    detections = {"a": found((0.5, 10.5, "x", 0.9), (0.6, 10.6, "x", 0.8))}
    assert average_precision(truth, detections, "x", HALF)[0] == 1


def test_order_is_by_score_over_all_recordings() -> None:
    truth = {"a": [Segment(0, 10, "x")], "b": [Segment(0, 10, "x")]}
    low_false = {"a": found((0, 10, "x", 0.9), (40, 50, "x", 0.1)), "b": found((0, 10, "x", 0.5))}
    high_false = {"a": found((0, 10, "x", 0.9), (40, 50, "x", 0.95)), "b": found((0, 10, "x", 0.5))}
    assert average_precision(truth, low_false, "x", HALF)[0] == 1
    assert average_precision(truth, high_false, "x", HALF)[0] == pytest.approx(2 / 3)


def test_classes_of_the_truth_alone_are_averaged_and_others_ignored() -> None:
    truth = {"a": [Segment(0, 10, "x"), Segment(20, 30, "y")]}
    detections = {"a": found((0, 10, "x", 0.9), (0, 10, "z", 1.0)), "unknown": found((0, 10, "x", 0.1))}
    mean, per_class = mean_average_precision(truth, detections, HALF)
    assert mean[0] == 0.5
    assert per_class.keys() == {"x", "y"}
    assert mean_average_precision({}, detections, HALF)[1] == {}
    assert mean_average_precision(truth, {}, HALF)[0][0] == 0


def test_interpolated_precision() -> None:
    assert interpolated(np.array([True, False, True]), 2) == pytest.approx((1 + 2 / 3) / 2)
    assert interpolated(np.array([False, True]), 1) == 0.5
    assert interpolated(np.array([False, False]), 3) == 0


@given(st.integers(0, 10_000))
def test_scores_that_keep_the_order_keep_the_figure_and_more_overlap_asked_is_never_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = {name: [Segment(s, s + 5, "x") for s in range(0, 40, 10)] for name in "ab"}
    rows = [(s := float(rng.uniform(0, 40)), s + float(rng.uniform(1, 9)), "x", float(v)) for v in rng.random(12)]
    detections = {"a": found(*rows[:6]), "b": found(*rows[6:])}
    squared = {name: [Detection(d.start, d.end, d.label, d.score**2) for d in ds] for name, ds in detections.items()}
    values = average_precision(truth, detections, "x", LOOSE)
    np.testing.assert_allclose(values, average_precision(truth, squared, "x", LOOSE))
    assert (np.diff(values) <= 1e-12).all()


def test_average_recall_by_hand() -> None:
    """One recording, two truths; the first proposal finds one at every threshold, the second the other up to 0.6."""
    truth = {"a": [Segment(0, 10, "x"), Segment(20, 30, "y")]}
    proposals = {"a": [(0.0, 10.0, 0.9), (20.0, 26.5, 0.5)]}
    recall = average_recall(truth, proposals, most=2)
    assert recall["number"][-1] == 2
    assert recall["recall"][49] == pytest.approx(0.5)  # one proposal
    assert recall["recall"][99] == pytest.approx((4 * 1 + 6 * 0.5) / 10)  # 0.5, 0.55, 0.6 and 0.65 find both
    assert average_recall(truth, {})["area"] == 0
    assert average_recall({"a": []}, proposals)["area"] == 0


def test_missing_recordings_count_as_missed() -> None:
    truth = {"a": [Segment(0, 10, "x")], "b": [Segment(0, 10, "x")]}
    assert average_recall(truth, {"a": [(0.0, 10.0, 1.0)]})["recall"][99] == 0.5


def test_kinds_of_errors() -> None:
    truth = {"a": [Segment(0, 10, "x"), Segment(20, 30, "y"), Segment(40, 50, "x"), Segment(60, 70, "x")]}
    detections = {
        "a": found((0, 10, "x", 0.9), (0, 9, "x", 0.8), (20, 30, "x", 0.7), (80, 90, "x", 0.6), (25, 33, "y", 0.9))
    }
    assert error_kinds(truth, detections) == {
        "right": 1, "duplicate": 1, "localisation": 1, "confusion": 1, "background": 0
    }  # fmt: skip
