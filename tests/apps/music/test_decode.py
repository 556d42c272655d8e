"""Sampling: legal, ended, repeatable, and drawn from the distribution asked for."""

import numpy as np
import pytest
import torch

from apps.music.codecs import chorale, performance
from apps.music.decode import Sampling, choose, resample, sample
from apps.music.model import MusicTransformer


def model(vocab: int, **arguments: object) -> MusicTransformer:
    torch.manual_seed(0)
    return MusicTransformer(vocab, 32, 32, 2, 2, 48, 0.0, max_distance=16, **arguments).eval()


def test_choose_keeps_to_top_k_and_top_p() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    share = choose(logits, Sampling(), generator).bincount(minlength=4) / 4000
    assert torch.allclose(share, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.03)
    assert set(choose(logits, Sampling(top_k=2), generator).tolist()) == {0, 1}
    assert set(choose(logits, Sampling(top_p=0.75), generator).tolist()) == {0, 1}
    assert set(choose(logits, Sampling(top_p=0.01), generator).tolist()) == {0}
    assert set(choose(logits, Sampling(temperature=0), generator).tolist()) == {0}
    cold = choose(logits, Sampling(temperature=0.5), generator).bincount(minlength=4)[0] / 4000
    assert cold == pytest.approx(0.25 / (0.25 + 0.09 + 0.0225 + 0.0025), abs=0.03)


def test_illegal_tokens_are_never_chosen() -> None:
    logits = torch.full((200, 6), float("-inf"))
    logits[:, 4] = -50.0
    for sampling in (
        Sampling(),
        Sampling(top_k=3),
        Sampling(top_p=0.5),
        Sampling(temperature=0),
        Sampling(temperature=1e-40),
        Sampling(temperature=1e30),
    ):
        assert (choose(logits, sampling, torch.Generator().manual_seed(1)) == 4).all()


def test_chorales_have_the_length_asked_for_and_repeat_by_seed() -> None:
    player = model(chorale.VOCAB_SIZE, voices=4, labels=True)
    runs = []
    for seed in (3, 3, 4):
        grammar = chorale.Grammar(3, 9)
        pieces, likelihood = sample(player, grammar, np.array([chorale.BOS]), Sampling(seed=seed), window=64)
        assert [chorale.decode(piece).shape for piece in pieces] == [(9, 4)] * 3
        assert (likelihood < 0).all()
        runs.append(np.concatenate(pieces))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_the_likelihood_is_that_of_reading_the_piece() -> None:
    """What sampling reports step by step equals one pass over the whole piece, over the legal tokens."""
    player = model(chorale.VOCAB_SIZE, voices=4, labels=True)
    pieces, likelihood = sample(player, chorale.Grammar(2, 6), np.array([chorale.BOS]), Sampling(seed=1), window=99)
    for piece, reported in zip(pieces, likelihood, strict=True):
        whole = torch.tensor(np.concatenate([[chorale.BOS], piece]))[None]
        with torch.no_grad():
            logits = player(whole[:, :-1])[0]
        grammar, total = chorale.Grammar(1, 6), 0.0
        for step, token in enumerate(piece):
            legal = torch.from_numpy(grammar.allowed()[0])
            total += float(logits[step].masked_fill(~legal, float("-inf")).log_softmax(-1)[int(token)])
            grammar.advance(np.array([token]))
        assert reported == pytest.approx(total / len(piece), abs=1e-4)


def test_performances_end_with_every_note_released() -> None:
    player = model(performance.VOCAB_SIZE)
    pieces, _ = sample(player, performance.Grammar(3, 1.5), np.array([performance.BOS]), Sampling(seed=2), window=32)
    for piece in pieces:
        notes = performance.decode(piece)
        assert np.array_equal(performance.encode(notes), piece)  # canonical: the file says what the model said
        assert all(note.end <= 1.5 + 1e-9 for note in notes)


def test_given_voices_are_kept_and_particles_find_likelier_music() -> None:
    player = model(chorale.VOCAB_SIZE, voices=4, labels=True)
    rng = np.random.default_rng(0)
    fixed = np.full((16, 4), -2)
    fixed[:, 0] = rng.integers(60, 80, 16)

    def best(particles: int) -> float:
        grammar = chorale.Grammar(particles, 16, fixed=fixed)
        pieces, likelihood = sample(player, grammar, np.array([chorale.BOS]), Sampling(seed=5), window=99, particles=4)
        for piece in pieces:
            assert np.array_equal(chorale.decode(piece)[:, 0], fixed[:, 0])
        return float(likelihood.max())

    assert best(32) > best(1)


def test_resample_keeps_the_heavy_and_leaves_the_even_alone() -> None:
    assert resample(np.zeros(8), 0) is None
    assert set(resample(np.array([0.0, -50.0, -50.0, -50.0]), 0)) == {0}
    kept = resample(np.log([0.7, 0.1, 0.1, 0.1]), 0)
    assert kept is not None
    assert 2 <= (kept == 0).sum() <= 3


def test_an_accompaniment_is_as_long_as_asked() -> None:
    player = model(performance.VOCAB_SIZE, source_vocab=performance.VOCAB_SIZE, source_layers=1)
    melody = np.array([356 + 20, 60, 256 + 49, 128 + 60, 62, 256 + 49, 128 + 62], np.int16)
    grammar = performance.Grammar(2, 1.0)
    pieces, _ = sample(player, grammar, np.array([performance.BOS]), Sampling(seed=1), window=64, melody=melody)
    assert len(pieces) == 2
    assert all(note.end <= 1.0 + 1e-9 for piece in pieces for note in performance.decode(piece))
