"""The performance codec and its grammar."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.music.codecs import performance as codec
from apps.music.notes import Note


def make_note(values: tuple[float, float, int, int]) -> Note:
    start, length, pitch, velocity = values
    return Note(start, start + length, pitch, velocity)


SECONDS = st.floats(0, 30, allow_nan=False)
# Few pitches and near times, so that overlaps and equal onsets are common.
NOTES = st.lists(
    st.tuples(st.one_of(SECONDS, st.floats(0, 0.1)), st.floats(0, 3), st.integers(58, 62), st.integers(1, 127)).map(
        make_note
    ),
    max_size=25,
)
ANY_NOTES = st.lists(
    st.tuples(SECONDS, st.floats(0, 30), st.integers(0, 127), st.integers(1, 127)).map(make_note), max_size=25
)


@settings(deadline=None)  # a busy machine is no failure
@given(st.one_of(NOTES, ANY_NOTES))
def test_decode_gives_the_notes_on_the_grid_and_encode_the_same_tokens_again(notes):
    tokens = codec.encode(notes)
    assert tokens.dtype == np.int16
    assert codec.decode(tokens) == codec.quantise(notes)
    assert np.array_equal(codec.encode(codec.decode(tokens)), tokens)
    assert codec.quantise(codec.quantise(notes)) == codec.quantise(notes)


@settings(deadline=None)  # a busy machine is no failure
@given(st.one_of(NOTES, ANY_NOTES))
def test_quantised_notes_stay_near_and_never_overlap_on_a_pitch(notes):
    kept = codec.quantise(notes)
    assert {note.pitch for note in kept} == {note.pitch for note in notes}
    for note in kept:
        assert note.end - note.start >= 0.01 - 1e-9
        near = [other for other in notes if other.pitch == note.pitch and abs(other.start - note.start) <= 0.005 + 1e-9]
        assert any(abs(other.velocity - note.velocity) <= 2 for other in near)
    for pitch in {note.pitch for note in kept}:
        line = [note for note in kept if note.pitch == pitch]
        assert all(one.end <= two.start for one, two in pairwise(line))


def test_the_events_of_one_note():
    tokens = codec.encode([Note(2.5, 2.504, 60, 80)])
    assert tokens.tolist() == [355, 355, 256 + 49, 356 + 20, 60, 256, 128 + 60]
    assert codec.decode(tokens) == [Note(2.5, 2.51, 60, 82)]


def test_an_instant_is_ordered_and_velocity_said_once():
    notes = [Note(0, 1, 64, 100), Note(0, 1, 60, 101), Note(1, 2, 60, 100), Note(1, 2, 55, 40)]
    expected = [356 + 25, 60, 64, 355, 128 + 60, 128 + 64, 356 + 10, 55, 356 + 25, 60, 355, 128 + 55, 128 + 60]
    assert codec.encode(notes).tolist() == expected
    assert codec.encode(notes[::-1]).tolist() == expected


def test_overlaps_of_one_pitch_follow_the_stated_rule():
    assert codec.quantise([Note(0, 5, 60, 10), Note(1, 2, 60, 90)]) == [Note(0, 1, 60, 10), Note(1, 2, 60, 90)]
    assert codec.quantise([Note(0, 2, 60, 10), Note(0.004, 1, 60, 90)]) == [Note(0, 2, 60, 90)]
    assert codec.quantise([Note(0, 0, 60, 10), Note(0.01, 1, 60, 10)]) == [Note(0, 0.01, 60, 10), Note(0.01, 1, 60, 10)]


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.integers(0, codec.VOCAB_SIZE - 1), max_size=60))
def test_any_sequence_decodes(tokens):
    notes = codec.decode(np.array(tokens, dtype=np.int16))
    canonical = codec.encode(notes)
    assert np.array_equal(codec.encode(codec.decode(canonical)), canonical)
    specials = {codec.PAD, codec.BOS, codec.EOS}
    assert codec.decode(np.array([token for token in tokens if token not in specials], dtype=np.int16)) == notes


@pytest.mark.parametrize(
    "note",
    [
        Note(-0.1, 1, 60, 80),
        Note(1, 0.5, 60, 80),
        Note(0, float("nan"), 60, 80),
        Note(0, float("inf"), 60, 80),
        Note(0, 1, 128, 80),
        Note(0, 1, -1, 80),
        Note(0, 1, 60, 0),
        Note(0, 1, 60, 128),
    ],
)
def test_encode_refuses_what_is_no_note(note):
    with pytest.raises(ValueError, match="a note's"):
        codec.encode([note])


@settings(deadline=None)  # a busy machine is no failure
@given(ANY_NOTES, st.integers(-130, 130))
def test_transpose_moves_every_note_or_says_none(notes, semitones):
    tokens = codec.encode(notes)
    moved = codec.transpose(tokens, semitones)
    low, high = codec.transposition_range(tokens)
    pitches = [note.pitch + semitones for note in notes]
    if notes and min(pitches) >= 0 and max(pitches) <= 127:
        shifted = [note._replace(pitch=note.pitch + semitones) for note in notes]
        assert np.array_equal(moved, codec.encode(shifted))
        assert low <= semitones <= high
    elif notes:
        assert moved is None
        assert not low <= semitones <= high


def generate(grammar: codec.Grammar, seed: int, mostly_shift: float = 0.3) -> list[np.ndarray]:
    """Draw from what is legal until all sequences are done; without the PAD that follows an end."""
    rng = np.random.default_rng(seed)
    columns = []
    while not grammar.done.all():
        legal = grammar.allowed()
        assert legal.any(axis=1).all()
        column = []
        for row in legal:
            choices = np.flatnonzero(row)
            shifts = choices[(choices >= codec.SHIFT) & (choices < codec.VELOCITY)]
            column.append(rng.choice(shifts if len(shifts) and rng.random() < mostly_shift else choices))
        columns.append(np.array(column))
        grammar.advance(columns[-1])
    rows = np.stack(columns, axis=1)
    return [row[row != codec.PAD] for row in rows]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.sampled_from([0.01, 0.3, 1.0, 2.57]), st.integers(0, 10_000), st.floats(0, 0.6))
def test_whatever_the_grammar_allows_is_canonical_ended_and_of_the_length_asked_for(batch, seconds, seed, mostly_shift):
    for row in generate(codec.Grammar(batch, seconds), seed, mostly_shift):
        assert row[-1] == codec.EOS
        body = row[:-1]
        shifts = body[(body >= codec.SHIFT) & (body < codec.VELOCITY)] - codec.SHIFT + 1
        assert shifts.sum() == round(seconds * 100)
        sounding = set()
        for token in body.tolist():
            if token < 128:
                assert token not in sounding
                sounding.add(token)
            elif token < 256:
                sounding.remove(token - 128)
        assert not sounding
        again = codec.encode(codec.decode(body))
        rest = body[len(again) :]
        assert np.array_equal(again, body[: len(again)])
        assert ((rest >= codec.SHIFT) & (rest < codec.VELOCITY)).all()  # silence at the end carries no note


@settings(deadline=None)  # a busy machine is no failure
@given(ANY_NOTES)
def test_every_encoding_is_legal(notes):
    tokens = codec.encode(notes)
    grammar = codec.Grammar(1, 61)
    for token in tokens:
        grammar.advance(np.array([token]))
    assert not grammar.done.any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, codec.VOCAB_SIZE - 1), max_size=60), st.integers(0, 99))
def test_after_any_primer_generation_ends(tokens, seed):
    grammar = codec.Grammar(2, 3.0)
    grammar.prime(np.array(tokens, dtype=np.int16))
    for row in generate(grammar, seed):
        assert row[-1] == codec.EOS


def test_a_primer_counts_towards_the_length():
    grammar = codec.Grammar(1, 1.0)
    grammar.prime(np.array([codec.BOS, codec.VELOCITY + 3, 60, 64, codec.SHIFT + 99]))
    assert np.flatnonzero(grammar.allowed()[0]).tolist() == [128 + 60]
    assert generate(grammar, 0)[0].tolist() == [128 + 60, 128 + 64, codec.EOS]


def test_what_the_grammar_refuses():
    grammar = codec.Grammar(1, 2.0)
    legal = grammar.allowed()[0]
    assert not legal[: codec.SHIFT].any()  # no velocity yet, and nothing sounds
    assert not legal[codec.PAD :].any()
    with pytest.raises(ValueError, match="not legal"):
        grammar.advance(np.array([codec.EOS]))
    for token in (codec.VELOCITY + 5, 60):
        grammar.advance(np.array([token]))
    legal = grammar.allowed()[0]
    assert not legal[60]
    assert not legal[128:256].any()  # it has only just started
    assert not legal[codec.VELOCITY + 5]
    grammar.advance(np.array([codec.SHIFT + 10]))
    legal = grammar.allowed()[0]
    assert np.flatnonzero(legal[:256])[-1] == 128 + 60
    assert not legal[codec.SHIFT : codec.VELOCITY].any()  # 110 ms has its one spelling


def test_the_grammar_is_fast_enough_to_run_once_a_token():
    rng = np.random.default_rng(0)
    grammar = codec.Grammar(8, 1000.0)
    spent, count = 0.0, 600
    for _ in range(count):
        begin = time.process_time()
        legal = grammar.allowed()
        spent += time.process_time() - begin
        tokens = np.array([rng.choice(np.flatnonzero(row)) for row in legal])
        begin = time.process_time()
        grammar.advance(tokens)
        spent += time.process_time() - begin
    assert spent / count < 2e-3  # about 0.1 ms; the margin is for slower machines
