"""The chorale codec and its grammar."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from apps.music.codecs import chorale

GRIDS = hnp.arrays(np.int64, st.tuples(st.integers(0, 40), st.just(4)), elements=st.integers(-1, 127))
# What a choir sings, so that transposing has room.
SUNG = (
    st.integers(1, 24)
    .flatmap(
        lambda steps: st.tuples(
            *(
                hnp.arrays(np.int64, steps, elements=st.one_of(st.just(-1), st.integers(lo, hi)))
                for lo, hi in chorale.VOICE_RANGES
            )
        )
    )
    .map(lambda voices: np.stack(voices, axis=1))
)


@settings(deadline=None)  # a busy machine is no failure
@given(GRIDS)
def test_any_grid_comes_back(grid):
    tokens = chorale.encode(grid)
    assert tokens.dtype == np.int16
    assert tokens.shape == (grid.size,)
    assert np.array_equal(chorale.decode(tokens), grid)
    assert np.array_equal(chorale.encode(chorale.decode(tokens)), tokens)


def test_voices_are_interleaved_and_silence_has_its_token():
    tokens = chorale.encode(np.array([[70, 65, 60, 50], [71, -1, 60, 48]]))
    assert tokens.tolist() == [70, 65, 60, 50, 71, chorale.SILENCE, 60, 48]


def test_decode_ignores_specials_and_an_unfinished_step():
    tokens = [chorale.BOS, 70, 65, 60, 50, 71, 66, chorale.EOS, chorale.PAD, chorale.PAD]
    assert chorale.decode(np.array(tokens)).tolist() == [[70, 65, 60, 50]]


@pytest.mark.parametrize("grid", [np.zeros((3, 3)), np.zeros(4), np.full((1, 4), 128), np.full((1, 4), -2)])
def test_encode_refuses_what_is_no_grid(grid):
    with pytest.raises(ValueError, match="chorale grid"):
        chorale.encode(grid)


@settings(deadline=None)  # a busy machine is no failure
@given(SUNG, st.integers(-30, 30))
def test_transpose_moves_pitches_within_the_ranges_or_says_none(grid, semitones):
    tokens = chorale.encode(grid)
    low, high = chorale.transposition_range(tokens)
    moved = chorale.transpose(tokens, semitones)
    expected = np.where(grid >= 0, grid + semitones, -1)
    fits = (
        (expected < 0) | ((expected >= chorale.VOICE_RANGES[:, 0]) & (expected <= chorale.VOICE_RANGES[:, 1]))
    ).all()
    if (grid < 0).all():
        assert (low, high) == (0, 0)
    elif fits:
        assert moved is not None
        assert low <= semitones <= high
        assert np.array_equal(chorale.decode(moved), expected)
    else:
        assert moved is None
        assert not low <= semitones <= high


def test_a_piece_outside_the_ranges_is_left_alone():
    tokens = chorale.encode(np.array([[90, 65, 60, 50]]))
    assert chorale.transposition_range(tokens) == (0, 0)
    assert chorale.transpose(tokens, 1) is None
    assert np.array_equal(chorale.transpose(tokens, 0), tokens)


def test_transpose_counts_voices_past_a_leading_special():
    tokens = np.concatenate([[chorale.BOS], chorale.encode(np.array([[80, 60, 60, 50]])), [chorale.EOS]])
    assert chorale.transposition_range(tokens)[1] == 1
    assert chorale.transpose(tokens, 1).tolist() == [chorale.BOS, 81, 61, 61, 51, chorale.EOS]


def generate(grammar: chorale.Grammar, seed: int) -> np.ndarray:
    """Tokens (B, N) drawn uniformly from what is legal, until all sequences are done."""
    rng = np.random.default_rng(seed)
    columns = []
    while not grammar.done.all():
        legal = grammar.allowed()
        columns.append(np.array([rng.choice(np.flatnonzero(row)) for row in legal]))
        grammar.advance(columns[-1])
    return np.stack(columns, axis=1)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 99))
def test_whatever_the_grammar_allows_is_a_chorale_of_the_length_asked_for(batch, steps, seed):
    tokens = generate(chorale.Grammar(batch, steps), seed)
    assert tokens.shape == (batch, 4 * steps + 1)
    assert (tokens[:, -1] == chorale.EOS).all()
    for row in tokens:
        grid = chorale.decode(row)
        assert grid.shape == (steps, 4)
        low, high = chorale.VOICE_RANGES.T
        assert ((grid == -1) | ((grid >= low) & (grid <= high))).all()


def test_after_the_end_only_padding_is_legal():
    grammar = chorale.Grammar(2, 1)
    generate(grammar, 0)
    legal = grammar.allowed()
    assert legal.shape == (2, chorale.VOCAB_SIZE)
    assert (np.flatnonzero(legal[0]) == [chorale.PAD]).all()
    grammar.advance(np.full(2, chorale.PAD))
    assert grammar.done.all()
    with pytest.raises(ValueError, match="not legal"):
        grammar.advance(np.full(2, 60))


def test_fixed_cells_force_their_token_even_out_of_range():
    fixed = np.full((3, 4), -2)
    fixed[:, 0] = [72, -1, 95]
    for row in generate(chorale.Grammar(3, 4, fixed), 1):
        assert chorale.decode(row)[:3, 0].tolist() == [72, -1, 95]


def test_a_primer_counts_towards_the_length():
    grammar = chorale.Grammar(2, 3)
    grammar.prime(np.array([chorale.BOS, 100, 60, 55, 48, 70]))  # out of range, and it stops within a step
    assert grammar.allowed()[0, 52]
    assert not grammar.allowed()[0, 80]  # the alto's turn
    assert generate(grammar, 3).shape == (2, 12 - 5 + 1)
    with pytest.raises(ValueError, match="more than"):
        chorale.Grammar(1, 1).prime(np.full(5, 60))


def test_the_default_ranges_hold_the_whole_canonical_data_set(shared_data):
    splits = json.loads((shared_data / "music" / "Jsb16thSeparated.json").read_text())
    for pieces in splits.values():
        for piece in pieces:
            grid = np.array(piece)
            tokens = chorale.encode(grid)
            assert np.array_equal(chorale.decode(tokens), grid)
            low, high = chorale.transposition_range(tokens)
            assert low <= 0 <= high
            grammar = chorale.Grammar(1, len(grid))
            for token in tokens[:400]:
                grammar.advance(np.array([token]))
