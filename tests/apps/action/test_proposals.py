"""Candidates, pooling, Soft-NMS against a plain loop, grouping; what is shown and written."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apps.action.annotations import read_annotations
from apps.action.outputs import chosen, timestamp, write_activitynet, write_csv, write_srt
from apps.action.proposals import (
    NOTHING,
    Detection,
    candidates,
    grouped,
    peaks,
    pooled_classes,
    soft_nms,
    strongest_labels,
)
from apps.action.targets import overlap
from shared.io.files import read_json


def test_peaks_at_both_ends_and_plateaus() -> None:
    assert np.flatnonzero(peaks(np.array([0.3, 0.2, 0.3, 0.3, 0.1, 0.4]), 1.0)).tolist() == [0, 2, 5]
    assert peaks(np.array([0.3, 0.35, 0.4]), 0.5).all()


def test_a_proposal_that_ends_with_the_last_snippet_is_emitted() -> None:
    start, end = np.array([0.0, 0.9, 0, 0, 0]), np.array([0.0, 0, 0, 0, 0.9])
    ones = np.ones((5, 8))  # the maps are as long as the window, the recording is shorter
    segments, confidence = candidates(start, end, ones, ones, 0.5)
    assert segments[0].tolist() == [1, 5]
    np.testing.assert_allclose(confidence[0], 0.81)
    assert segments[:, 1].max() <= 5


def test_classes_are_the_mean_inside() -> None:
    shares = np.arange(12, dtype=float).reshape(6, 2)
    np.testing.assert_allclose(pooled_classes(shares, np.array([[1.0, 4.0]])), [[4, 5]])
    np.testing.assert_allclose(pooled_classes(shares, np.array([[5.2, 5.4]])), [[10, 11]])  # shorter than a snippet
    kept = strongest_labels(np.array([[0.1, 0.5, 0.4]]), 2)
    assert kept.tolist() == [[0, 0.5, 0.4]]


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_soft_nms_equals_the_plain_loop(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 50, 15)
    segments = np.stack([start, start + rng.uniform(1, 40, 15)], 1)
    scores = rng.random((15, classes)) * (rng.random((15, classes)) < 0.8)
    got = soft_nms(segments, scores, alpha=0.4, low=0.5, high=0.9, span=50, most=15)
    wanted = []
    for k in range(classes):
        left = {i: scores[i, k] for i in range(15)}
        while left:
            best = max(left, key=lambda i: left[i])
            value = left.pop(best)
            if value <= NOTHING:
                break
            wanted.append((best, k, value))
            width = min(1, (segments[best, 1] - segments[best, 0]) / 50)
            for i in left:
                tiou = overlap(segments[best : best + 1], segments[i : i + 1])[0, 0]
                if tiou > 0.5 + 0.4 * width:
                    left[i] *= np.exp(-(tiou**2) / 0.4)
    assert [(i, k) for i, k, _ in sorted(got)] == [(i, k) for i, k, _ in sorted(wanted)]
    np.testing.assert_allclose([s for *_, s in sorted(got)], [s for *_, s in sorted(wanted)])


def test_grouping_makes_a_segment_of_each_run_but_background() -> None:
    shares = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    found = grouped(shares, ["x"], 0.5)
    assert [(d.start, d.end, d.label) for d in found] == [(0, 1, "x"), (1.5, 2, "x")]
    np.testing.assert_allclose(found[0].score, 0.8)


def test_what_is_shown_does_not_lie_over_what_is_surer() -> None:
    detections = [Detection(0, 10, "x", 0.9), Detection(1, 9, "y", 0.5), Detection(9, 20, "y", 0.4)]
    assert chosen([*detections, Detection(30, 40, "x", 0.05)], 0.1) == [detections[0], detections[2]]


def test_files_are_read_again(tmp_path: Path) -> None:
    found = [Detection(1.25, 3.5, "pour, stir", 0.75), Detection(4, 3700.5, "cut", 0.5)]
    write_csv(tmp_path / "a.csv", "a", found)
    again = read_annotations(tmp_path / "a.csv")["a"].segments
    assert [(s.start, s.end, s.label) for s in again] == [(d.start, d.end, d.label) for d in found]
    write_activitynet(tmp_path / "d.json", {"a": found}, {})
    rows = read_json(tmp_path / "d.json")["results"]["a"]
    assert rows[0] == {"label": "pour, stir", "score": 0.75, "segment": [1.25, 3.5]}
    write_srt(tmp_path / "a.srt", found)
    assert "2\n00:00:04,000 --> 01:01:40,500\ncut (50 %)\n" in (tmp_path / "a.srt").read_text()
    assert timestamp(59.9996) == "00:01:00,000"
