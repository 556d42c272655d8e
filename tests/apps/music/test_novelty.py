"""Planted quotations are found, named and placed; a piece against its own corpus is all quotation."""

import json
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.music.codecs import chorale, performance
from apps.music.notes import Note
from apps.music.novelty import chord_line, describe, longest_shared_run, voice_lines


def noise(bars: int, seed: int, step: int = 2) -> np.ndarray:
    """Four voices that wander without repeating a note, an eighth each."""
    moves = np.random.default_rng(seed).integers(1, 11, (bars * 16 // step, 4)).cumsum(axis=0) % 12
    return np.repeat(moves + np.array([66, 58, 50, 40]), step, axis=0)


def melody(grid: np.ndarray, voice: int, pitches: list[int], durations: list[int], start: int) -> np.ndarray:
    """The grid with a tune planted in a voice, silence on both sides so that its ends do not merge with the rest."""
    grid = grid.copy()
    line = np.repeat(pitches, durations)
    grid[max(start - 1, 0) : start + len(line) + 1, voice] = -1
    grid[start : start + len(line), voice] = line
    return grid


CORPUS = [(f"piece {number}", noise(20, number)) for number in range(6)]
TUNE, RHYTHM = [72, 74, 76, 77, 79, 77, 76, 74, 72, 71, 72, 69], [4, 3, 1, 4, 6, 2, 3, 1, 4, 4, 8, 8]


def test_a_quotation_is_found_and_placed():
    corpus = [*CORPUS, ("the source", melody(noise(20, 7), 0, TUNE, RHYTHM, start=16 * 5 + 4))]
    result = longest_shared_run(melody(noise(30, 99), 0, TUNE, RHYTHM, start=16 * 11), corpus)
    run = result["exact"]
    assert run["length_notes"] == len(TUNE)
    assert (run["piece"], run["source_bar"], run["query_bar"]) == ("the source", 6, 12)
    assert (run["source_voice"], run["query_voice"], run["transposition"]) == ("soprano", "soprano", 0)
    assert run["seconds_or_bars"] == sum(RHYTHM) / 16
    assert result["transposed"] == run
    assert result["length_notes"] == len(TUNE)
    assert result["unit"] == "bars"


def test_a_transposed_quotation_in_another_voice_is_found_and_is_not_exact():
    corpus = [*CORPUS, ("the source", melody(noise(20, 7), 0, TUNE, RHYTHM, start=16 * 5))]
    query = melody(noise(30, 99), 3, [pitch - 17 for pitch in TUNE], RHYTHM, start=0)
    result = longest_shared_run(query, corpus)
    run = result["transposed"]
    assert (run["length_notes"], run["piece"], run["source_bar"], run["query_bar"]) == (12, "the source", 6, 1)
    assert (run["source_voice"], run["query_voice"], run["transposition"]) == ("soprano", "bass", -17)
    assert result["exact"]["length_notes"] < 7  # what chance gives


def test_another_rhythm_or_a_rest_ends_the_run():
    corpus = [*CORPUS, ("the source", melody(noise(20, 7), 0, TUNE, RHYTHM, start=0))]
    changed = RHYTHM.copy()
    changed[5] += 2
    assert longest_shared_run(melody(noise(30, 99), 0, TUNE, changed, 0), corpus)["exact"]["length_notes"] == 6
    rest = melody(noise(30, 99), 0, [*TUNE[:7], -1, *TUNE[7:]], [*RHYTHM[:7], 2, *RHYTHM[7:]], 0)
    assert longest_shared_run(rest, corpus)["exact"]["length_notes"] == 7


def test_a_rest_inside_belongs_to_the_quotation():
    tune, rhythm = [*TUNE[:7], -1, *TUNE[7:]], [*RHYTHM[:7], 2, *RHYTHM[7:]]
    corpus = [*CORPUS, ("the source", melody(noise(20, 7), 0, tune, rhythm, 0))]
    moved = [pitch + 2 if pitch >= 0 else -1 for pitch in tune]
    result = longest_shared_run(melody(noise(30, 99), 0, moved, rhythm, 32), corpus)
    assert result["transposed"]["length_notes"] == len(TUNE)


def test_chords_are_compared_in_all_four_voices():
    source, query = noise(20, 7, step=4), noise(30, 99, step=4)
    query[16 * 4 : 16 * 7] = source[16 * 9 : 16 * 12] - 2
    result = longest_shared_run(query, [*CORPUS, ("the source", source)])
    run = result["chords_transposed"]
    assert (run["length_chords"], run["piece"]) == (12, "the source")
    assert (run["source_bar"], run["query_bar"], run["transposition"]) == (10, 5, -2)
    assert result["chords_exact"]["length_chords"] == 0
    query[16 * 5, 2] += 1  # one sixteenth of one voice
    assert longest_shared_run(query, [("the source", source)])["chords_transposed"]["length_chords"] == 7


def test_nothing_shared_says_so():
    held = np.repeat([[72, 64, 55, 48]], 32, axis=0)
    result = longest_shared_run(held, CORPUS)
    assert result["length_notes"] == 0
    assert result["piece"] is None
    assert describe(result)[0] == "Note for note: no two notes in a row are shared."
    assert longest_shared_run(held, [])["length_notes"] == 0
    assert longest_shared_run(np.zeros((0, 4), int), CORPUS)["length_notes"] == 0
    assert longest_shared_run(np.full((8, 4), -1), [("rests", np.full((8, 4), -1))])["length_notes"] == 0


def test_the_sentences_name_length_piece_and_bars():
    corpus = [("the source", melody(noise(20, 7), 0, TUNE, RHYTHM, start=0))]
    result = longest_shared_run(melody(noise(30, 99), 1, [p - 3 for p in TUNE], RHYTHM, start=16), corpus)
    assert describe(result)[1] == (
        "In any transposition: 12 notes (3 bars) from bar 1 of the source (soprano), here from bar 2 (alto), "
        "-3 semitones."
    )


@dataclass
class Encoded:
    """What `corpora.Piece` offers."""

    name: str
    variants: list[np.ndarray]


@given(st.integers(0, 5), st.integers(-4, 4))
def test_a_piece_against_its_own_corpus_is_all_quotation(number, semitones):
    corpus = [Encoded(name, [chorale.encode(grid)]) for name, grid in CORPUS]
    grid = CORPUS[number][1] + semitones
    result = longest_shared_run(grid, corpus)
    assert result["length_notes"] == max(len(line.pitch) for line in voice_lines(grid))
    assert result["chords_transposed"]["length_chords"] == len(chord_line(grid).pitch)
    assert result["piece"] == f"piece {number}"
    assert result["transposition"] == semitones


def test_jsb(shared_data):
    splits = json.loads((shared_data / "music" / "Jsb16thSeparated.json").read_text())
    train = [(f"train {number}", np.array(piece)) for number, piece in enumerate(splits["train"])]
    began = time.process_time()
    result = longest_shared_run(train[17][1], train)
    assert time.process_time() - began < 1  # processor time, so that a busy machine does not matter
    assert result["exact"]["length_notes"] == 120
    assert (
        result["chords_exact"] | {"length_chords": 156, "piece": "train 17", "query_bar": 1} == result["chords_exact"]
    )
    # The canonical splits hold several harmonisations of one tune: this soprano stands in the training split entire.
    tune = longest_shared_run(np.array(splits["test"][6]), train)["exact"]
    assert (tune["length_notes"], tune["piece"], tune["query_voice"]) == (54, "train 44", "soprano")


def played(pitches: np.ndarray, onsets: np.ndarray) -> list[Note]:
    return [Note(float(at), float(at) + 0.2, int(pitch), 80) for pitch, at in zip(pitches, onsets, strict=True)]


def random_notes(count: int, seed: int) -> list[Note]:
    rng = np.random.default_rng(seed)
    return played(rng.integers(30, 90, count), np.cumsum(rng.integers(5, 60, count)) / 100)


def test_a_performance_is_found_at_its_seconds():
    corpus = [(f"take {seed}", random_notes(400, seed)) for seed in range(4)]
    quoted = corpus[2][1][100:140]
    shift = 20.0 - quoted[0].start
    moved = [Note(n.start + shift, n.end + shift, n.pitch + 5, 30) for n in quoted]
    query = [*[n for n in random_notes(200, 50) if n.start < 19.9], *moved]
    result = longest_shared_run(query, corpus)
    run = result["transposed"]
    assert (run["length_notes"], run["piece"], run["transposition"]) == (40, "take 2", 5)
    assert run["query_second"] == pytest.approx(20.0)
    assert run["source_second"] == pytest.approx(corpus[2][1][100].start, abs=1e-3)
    assert run["source_bar"] is None
    assert result["exact"]["length_notes"] < 6
    assert result["unit"] == "seconds"


def test_a_performance_at_another_tempo_keeps_its_pitches():
    corpus = [("take", random_notes(300, 3))]
    slow = [Note(n.start * 1.3, n.end * 1.3, n.pitch - 2, n.velocity) for n in corpus[0][1]]
    result = longest_shared_run(slow, corpus)
    assert result["pitches"]["length_notes"] == 300
    assert result["transposed"]["length_notes"] < 30


def test_a_rolled_chord_is_the_same_chord():
    chord = [60, 64, 67, 72]
    struck = [Note(at, at + 1, pitch, 80) for at in (0.0, 1.0, 2.0) for pitch in chord]
    rolled = [Note(at + 0.01 * i, at + 1, p, 80) for at in (0.0, 1.0, 2.0) for i, p in enumerate((67, 60, 72))]
    rolled += [Note(at + 0.02, at + 1, 64, 80) for at in (0.0, 1.0, 2.0)]
    assert longest_shared_run(rolled, [("struck", struck)])["exact"]["length_notes"] == 12


def test_other_queries_are_refused():
    with pytest.raises(ValueError, match="shape"):
        longest_shared_run(np.zeros((4, 3), int), [])
    with pytest.raises(ValueError, match="grid"):
        longest_shared_run("a song", [])


def test_an_encoded_performance_is_all_quotation():
    notes = random_notes(200, 4)
    tokens = [
        performance.encode([Note(n.start * s, n.end * s, n.pitch, n.velocity) for n in notes]) for s in (0.9, 1, 1.1)
    ]
    result = longest_shared_run(performance.decode(tokens[1]), [Encoded("take 4", tokens)])
    assert (result["exact"]["length_notes"], result["piece"]) == (200, "take 4")
