"""A score is read back by music21 and must hold the grid, note for note."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.music.musicxml import held_notes, spelt, write_musicxml, written_lengths
from shared.errors import InputError

music21 = pytest.importorskip("music21")

CADENCE = np.repeat([[72, 67, 64, 48], [72, 69, 65, 53], [71, 67, 62, 55], [72, 67, 64, 48]], 4, axis=0)


def read(path: Path):
    return music21.converter.parse(path, forceSource=True)


def sounding(part) -> list[tuple[int, int, int]]:
    """The notes of a part as (start, length, pitch) in sixteenths, ties joined.

    Not by music21's stripTies: to it a B with a natural sign and the B it is tied to in the next bar differ.
    """
    notes: list[tuple[int, int, int]] = []
    for n in part.flatten().notes:
        start, length = round(float(n.offset) * 4), round(float(n.quarterLength) * 4)
        if n.tie is not None and n.tie.type != "start":
            before = notes.pop()
            assert (before[0] + before[1], before[2]) == (start, n.pitch.midi)
            start, length = before[0], before[1] + length
        notes.append((start, length, n.pitch.midi))
    return notes


def notes_of(grid: np.ndarray, voice: int) -> list[tuple[int, int, int]]:
    return [held for held in held_notes(grid[:, voice]) if held[2] >= 0]


def test_a_bach_chorale_comes_back_note_for_note(shared_data, tmp_path):
    grid = np.array(json.loads((shared_data / "music" / "Jsb16thSeparated.json").read_text())["test"][17])[: 16 * 8 + 4]
    write_musicxml(tmp_path / "chorale.musicxml", grid, "A chorale")
    score = read(tmp_path / "chorale.musicxml")
    assert [part.partName for part in score.parts] == ["Soprano", "Alto", "Tenor", "Bass"]
    for voice, part in enumerate(score.parts):
        assert sounding(part) == notes_of(grid, voice)
        assert all(measure.duration.quarterLength == 4 for measure in part.getElementsByClass("Measure"))
    assert score.parts[0].flatten().getElementsByClass("KeySignature")[0].sharps == -4  # F minor


def test_any_grid_comes_back(tmp_path):
    # Every length at every place of the bar, notes over bar lines, rests, a silent voice, an incomplete last bar.
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 24, 24)
    pitches = rng.integers(-12, 60, (24, 3)) + 20
    grid = np.full((int(lengths.sum()), 4), -1)
    for voice in range(3):
        grid[:, voice] = np.repeat(np.where(pitches[:, voice] < 30, -1, pitches[:, voice]), rng.permutation(lengths))
    write_musicxml(tmp_path / "any.musicxml", grid, "Any")
    score = read(tmp_path / "any.musicxml")
    for voice, part in enumerate(score.parts):
        assert sounding(part) == notes_of(grid, voice)


def test_title_tempo_and_clefs(tmp_path):
    write_musicxml(tmp_path / "c.musicxml", CADENCE, 'Bars & "<lines>"', tempo=90)
    score = read(tmp_path / "c.musicxml")
    assert score.metadata.bestTitle == 'Bars & "<lines>"'
    assert score.flatten().getElementsByClass("MetronomeMark")[0].number == 90
    clefs = [part.flatten().getElementsByClass("Clef")[0].__class__.__name__ for part in score.parts]
    assert clefs == ["TrebleClef", "TrebleClef", "Treble8vbClef", "BassClef"]
    assert score.parts[0].flatten().getElementsByClass("TimeSignature")[0].ratioString == "4/4"


def test_a_repeated_note_is_written_twice_where_it_is_known(tmp_path):
    grid = np.tile([72, 67, 60, 48], (8, 1))
    attacks = np.zeros((6, 4), dtype=bool)
    attacks[[0, 4], 0] = True
    write_musicxml(tmp_path / "a.musicxml", grid, "Repeated", attacks=attacks)
    parts = music21.converter.parse(tmp_path / "a.musicxml").parts
    lengths = [[float(note.quarterLength) for note in part.flatten().notes] for part in parts]
    assert lengths == [[1.0, 1.0], [2.0], [2.0], [2.0]]
    assert not any(note.tie for part in parts for note in part.flatten().notes)


def test_the_same_piece_gives_the_same_file(tmp_path):
    for name in ("a", "b"):
        write_musicxml(tmp_path / f"{name}.musicxml", CADENCE, "Cadence")
    assert (tmp_path / "a.musicxml").read_bytes() == (tmp_path / "b.musicxml").read_bytes()


def test_a_silent_grid_is_refused_and_nothing_written(tmp_path):
    for grid in (np.full((16, 4), -1), np.zeros((0, 4), int)):
        with pytest.raises(InputError, match="holds no notes"):
            write_musicxml(tmp_path / "silent.musicxml", grid, "Silence")
    with pytest.raises(ValueError, match="shape"):
        write_musicxml(tmp_path / "silent.musicxml", np.zeros((16, 3), int), "Three")
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 200), st.integers(1, 200))
def test_written_lengths_add_up_and_cross_no_bar(start, length):
    lengths = written_lengths(start, length)
    assert sum(lengths) == length
    for size in lengths:
        assert size in (1, 2, 3, 4, 6, 8, 12, 16)
        assert start % 16 + size <= 16
        start += size


@pytest.mark.parametrize(
    ("start", "length", "lengths"),
    [
        (0, 5, [4, 1]),
        (2, 4, [4]),
        (2, 6, [6]),
        (3, 4, [1, 3]),
        (1, 4, [3, 1]),
        (12, 8, [4, 4]),
        (4, 12, [12]),
        (14, 4, [2, 2]),
    ],
)
def test_lengths_are_split_where_a_copyist_would(start, length, lengths):
    assert written_lengths(start, length) == lengths


@pytest.mark.parametrize(
    ("pitch", "sharps", "name"),
    [
        (60, 0, "C4"),
        (68, 0, "G#4"),  # leading note of A minor
        (63, 0, "E-4"),
        (70, -1, "B-4"),
        (73, -1, "C#5"),  # leading note of D minor
        (66, 1, "F#4"),
        (59, -7, "C-4"),
        (60, 7, "B#3"),
        (65, 6, "E#4"),
    ],
)
def test_spelling_suits_the_key(pitch, sharps, name):
    assert "{}{}".format(*spelt(pitch, sharps)) == name


def test_a_spelling_sounds_as_the_pitch():
    for pitch in range(128):
        for sharps in range(-7, 8):
            name, octave = spelt(pitch, sharps)
            semitones = "C D EF G A B".index(name[0]) + name.count("#") - name.count("-")
            assert 12 * (octave + 1) + semitones == pitch
