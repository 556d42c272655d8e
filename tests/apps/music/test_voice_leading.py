"""Marks of voice leading, counted by hand in textbook cases and against real chorales."""

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.music.voice_leading import KINDS, summarise, voice_leading


def chords(*rows: tuple[int, int, int, int], steps: int = 4) -> np.ndarray:
    """Chords (S, A, T, B), each a quarter long."""
    return np.repeat(np.array(rows), steps, axis=0)


def counted(grid: np.ndarray) -> dict[str, int]:
    return {kind: count for kind, count in voice_leading(grid)["counts"].items() if count}


def test_a_clean_cadence_has_no_mark():
    cadence = chords((72, 67, 64, 48), (72, 69, 65, 53), (71, 67, 62, 55), (72, 67, 64, 48))
    assert counted(cadence) == {}


def test_triads_that_move_up_a_step_in_root_position_are_the_classic_mistake():
    # C major to D minor, all voices up: fifth bass-tenor and octave bass-soprano; the tenor and soprano, a fourth
    # apart, are neither.
    assert counted(chords((72, 64, 55, 48), (74, 65, 57, 50))) == {
        "parallel_fifths": 1,  # tenor over bass
        "parallel_octaves": 1,  # soprano over bass
    }


@pytest.mark.parametrize(
    ("case", "tenor_bass", "fifths"),
    [
        ("up a step", [(55, 48), (57, 50)], 1),
        ("down a step", [(57, 50), (55, 48)], 1),
        ("three in a row", [(55, 48), (57, 50), (59, 52)], 2),
        ("to the twelfth, both up", [(55, 41), (60, 53)], 0),
        ("fifth to twelfth, both up", [(50, 43), (64, 45)], 1),
        ("twelfth to fifth in contrary motion", [(62, 43), (57, 50)], 0),
        ("repeated", [(55, 48), (55, 48)], 0),
        ("oblique", [(55, 48), (55, 50)], 0),
        ("a sixth between", [(55, 48), (57, 48), (57, 50)], 0),
        ("perfect to diminished", [(55, 48), (53, 47)], 0),
        ("diminished to perfect", [(53, 47), (55, 48)], 0),
        ("fourths", [(53, 48), (55, 50)], 0),
        ("across a rest", [(55, 48), (-1, -1), (57, 50)], 0),
        ("across a rest of one voice", [(55, 48), (55, -1), (57, 50)], 0),
    ],
)
def test_parallel_fifths(case, tenor_bass, fifths):
    # The upper voices rest, so that only tenor and bass can be marked.
    assert voice_leading(chords(*[(-1, -1, *pair) for pair in tenor_bass]))["counts"]["parallel_fifths"] == fifths


@pytest.mark.parametrize(
    ("case", "alto_tenor", "octaves"),
    [
        ("octaves", [(67, 55), (69, 57)], 1),
        ("unisons", [(60, 60), (62, 62)], 1),
        ("octave to unison, both up", [(60, 48), (62, 62)], 1),
        ("unison to octave, contrary", [(60, 60), (67, 55)], 0),
        ("unison to octave, oblique", [(60, 60), (60, 48)], 0),
        ("held", [(67, 55), (67, 55)], 0),
        ("thirds", [(64, 60), (65, 62)], 0),
    ],
)
def test_parallel_octaves(case, alto_tenor, octaves):
    assert voice_leading(chords(*[(-1, *pair, -1) for pair in alto_tenor]))["counts"]["parallel_octaves"] == octaves


def test_a_pair_is_judged_at_its_own_changes_not_at_every_sixteenth():
    slow = chords((-1, -1, 55, 48), (-1, -1, 57, 50), steps=16)
    moving_soprano = slow.copy()
    moving_soprano[:, 0] = np.tile([71, 71, 73, 73], 8)
    assert voice_leading(slow)["counts"]["parallel_fifths"] == 1
    assert voice_leading(moving_soprano)["counts"]["parallel_fifths"] == 1


def test_each_of_the_six_pairs_is_looked_at():
    for upper, lower in combinations(range(4), 2):
        grid = np.full((8, 4), -1)
        grid[:4, upper], grid[:4, lower] = 67, 60
        grid[4:, upper], grid[4:, lower] = 69, 62
        marks = voice_leading(grid)["marks"]
        names = ("soprano", "alto", "tenor", "bass")
        assert [m["voices"] for m in marks if m["kind"] == "parallel_fifths"] == [[names[upper], names[lower]]]


def test_crossed_voices_are_one_mark_until_they_uncross():
    grid = chords((72, 62, 65, 48), (72, 60, 64, 50), (72, 64, 60, 48), (72, 60, 62, 48))
    assert voice_leading(grid)["counts"]["crossings"] == 2
    assert voice_leading(chords((72, 60, 60, 48)))["counts"]["crossings"] == 0  # a unison is no crossing


def test_overlap_is_stepping_beyond_the_neighbours_last_note():
    rising = chords((72, 60, 57, 45), (72, 65, 62, 45))  # the tenor goes to D, above the alto's C
    assert counted(rising) == {"overlaps": 1}
    falling = chords((72, 65, 62, 45), (72, 60, 57, 45))  # the alto goes to C, below the tenor's D
    assert counted(falling) == {"overlaps": 1}
    assert counted(chords((72, 62, 57, 45), (72, 65, 62, 45))) == {}  # to the very note is allowed
    assert counted(chords((72, 60, 57, 45), (72, 60, 62, 45))) == {"crossings": 1}  # and a crossing is not both


def test_spacing_is_measured_above_the_tenor_only():
    assert counted(chords((76, 64, 52, 40))) == {}
    assert counted(chords((77, 64, 55, 40), (78, 64, 55, 40), (74, 64, 55, 40), (77, 64, 55, 40))) == {
        "spacing_soprano_alto": 2
    }
    assert counted(chords((74, 67, 54, 40))) == {"spacing_alto_tenor": 1}


def test_notes_out_of_range_count_once_however_long():
    grid = chords((80, 70, 60, 50), (80, 70, 60, 50), (79, 70, 60, 39), (81, 70, 60, 50), steps=8)
    assert counted(grid) == {"range_soprano": 2, "range_bass": 1}


def test_rates_are_per_hundred_chord_changes():
    grid = chords((72, 64, 55, 48), (74, 65, 57, 50), (74, 65, 57, 50), (74, 65, 57, 52))
    report = voice_leading(grid)
    assert report["chord_changes"] == 2
    assert report["per_100_changes"]["parallel_fifths"] == 50.0


def test_marks_say_where():
    grid = np.repeat([[72, 64, 55, 48]], 40, axis=0)
    grid[22:] = (74, 65, 57, 50)
    marks = [mark for mark in voice_leading(grid)["marks"] if mark["kind"] == "parallel_fifths"]
    assert marks == [
        {"kind": "parallel_fifths", "voices": ["tenor", "bass"], "step": 22, "bar": 2, "beat": 2.5},
    ]


@pytest.mark.parametrize("grid", [np.zeros((0, 4), int), np.full((9, 4), -1), np.array([[72, 64, 55, 48]])])
def test_nothing_to_mark(grid):
    report = voice_leading(grid)
    assert set(report["counts"].values()) == {0}
    assert set(report["per_100_changes"].values()) == {0.0}


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(steps, 4\)"):
        voice_leading(np.zeros((8, 3), int))
    with pytest.raises(ValueError, match="no piece"):
        summarise([])


grids = st.lists(st.tuples(*[st.integers(-1, 90)] * 4), min_size=1, max_size=40).map(np.array)


@given(grids, st.integers(1, 4))
def test_stretching_time_changes_no_count(grid, factor):
    assert voice_leading(np.repeat(grid, factor, axis=0))["counts"] == voice_leading(grid)["counts"]


@given(st.lists(st.tuples(*[st.integers(48, 70)] * 4), min_size=1, max_size=40).map(np.array), st.integers(-12, 12))
def test_transposition_changes_ranges_alone(grid, semitones):
    before, after = voice_leading(grid)["counts"], voice_leading(grid + semitones)["counts"]
    assert all(before[kind] == after[kind] for kind in KINDS if not kind.startswith("range"))


@given(grids)
def test_parallels_read_backwards_are_parallels(grid):
    before, after = voice_leading(grid)["counts"], voice_leading(grid[::-1])["counts"]
    assert before["parallel_fifths"] == after["parallel_fifths"]
    assert before["parallel_octaves"] == after["parallel_octaves"]


def test_bach_writes_few_parallels_and_random_voices_many(shared_data):
    test = json.loads((shared_data / "music" / "Jsb16thSeparated.json").read_text())["test"]
    bach = summarise([np.array(piece) for piece in test])
    assert (bach["pieces"], bach["chord_changes"]) == (77, 7113)
    assert round(bach["counts"]["parallel_fifths"] * 77) == 15
    assert round(bach["counts"]["parallel_octaves"] * 77) == 6
    rng = np.random.default_rng(0)
    noise = np.repeat(rng.integers((60, 55, 48, 40), (80, 75, 68, 61), (300, 4)), 4, axis=0)
    assert voice_leading(noise)["per_100_changes"]["parallel_fifths"] > 5 * bach["per_100_changes"]["parallel_fifths"]
