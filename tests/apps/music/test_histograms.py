"""Histograms count notes, not steps; the distance is a metric in [0, 1]."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apps.music.histograms import (
    LENGTHS_16THS,
    LENGTHS_SECONDS,
    distance,
    duration_histogram,
    pitch_class_histogram,
)
from apps.music.notes import PITCH_CLASSES, Note

# Soprano C C D, alto a held E, tenor G with a rest inside, bass silent: 1 C, 1 D, 1 E, 2 G.
GRID = np.array([[72, 64, 55, -1], [72, 64, -1, -1], [74, 64, 55, -1], [74, 64, 55, -1]])


def test_pitch_classes_count_each_note_once():
    shares = dict(zip(PITCH_CLASSES, pitch_class_histogram([GRID, GRID]), strict=True))
    assert {name: share for name, share in shares.items() if share} == {"C": 0.2, "D": 0.2, "E": 0.2, "G": 0.4}


def test_lengths_of_a_grid_are_in_sixteenths():
    labels, shares = duration_histogram([GRID])
    assert labels == LENGTHS_16THS
    assert {label: share for label, share in zip(labels, shares, strict=True) if share} == {
        "1": 0.2, "2": pytest.approx(0.6), "4": 0.2,
    }  # fmt: skip


def test_a_note_does_not_run_on_into_the_next_voice():
    grid = np.full((3, 4), 60)
    assert duration_histogram([grid])[1][2] == 1.0


def test_very_long_notes_share_the_last_bin():
    assert duration_histogram([np.full((16, 4), 60)])[1][15] == 1.0
    assert duration_histogram([np.full((90, 4), 60)])[1][16] == 1.0


def test_lengths_of_a_performance_are_in_seconds():
    notes = [Note(0, 0.04, 60, 80), Note(1, 1.1, 61, 80), Note(0.1, 0.1 + 0.1, 62, 80), Note(0, 7, 73, 80)]
    labels, shares = duration_histogram([notes])
    assert labels == LENGTHS_SECONDS
    assert shares.tolist() == [0.25, 0, 0.5, 0, 0, 0, 0, 0.25]
    assert pitch_class_histogram([notes])[1] == 0.5


def test_no_notes_give_no_shares():
    assert not pitch_class_histogram([]).any()
    assert not pitch_class_histogram([np.zeros((0, 4), int), []]).any()
    assert not duration_histogram([np.full((4, 4), -1)])[1].any()


def test_grids_and_performances_do_not_mix():
    with pytest.raises(ValueError, match="one histogram"):
        duration_histogram([GRID, [Note(0, 1, 60, 80)]])
    with pytest.raises(ValueError, match=r"\(steps, 4\)"):
        pitch_class_histogram([np.zeros((4, 3), int)])


def test_distances_known_by_hand():
    assert distance(np.array([1.0, 0]), np.array([0, 1.0])) == 1.0
    assert distance(np.array([1.0, 3]), np.array([2.0, 6])) == 0.0
    # The mean of (1, 0) and (1/2, 1/2) is (3/4, 1/4), of 0.811278 bits; the two have 0 and 1 bit.
    assert distance(np.array([1, 0]), np.array([0.5, 0.5])) == pytest.approx(np.sqrt(0.811278 - 0.5), abs=1e-6)


def test_what_is_no_histogram_is_refused():
    for p, q in [([1, 0], [1, 0, 0]), ([0, 0], [1, 0]), ([-1, 2], [1, 0])]:
        with pytest.raises(ValueError, match="histogram"):
            distance(np.array(p), np.array(q))


shares = arrays(float, 6, elements=st.floats(0.001, 1))


@given(shares, shares, shares)
def test_distance_is_a_metric(p, q, r):
    assert 0 <= distance(p, q) <= 1
    assert distance(p, q) == pytest.approx(distance(q, p))
    assert distance(p, p) == pytest.approx(0, abs=1e-6)
    assert distance(p, r) <= distance(p, q) + distance(q, r) + 1e-6
