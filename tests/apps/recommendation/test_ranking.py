"""Ranks, metrics and top-k against plain forms."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.recommendation.ranking import count_ranks, metrics_of, top_k


@settings(max_examples=60)
@given(seed=st.integers(0, 999), items=st.integers(1, 30), levels=st.integers(1, 6), known=st.integers(0, 8))
def test_ranks_are_those_of_counting(seed: int, items: int, levels: int, known: int) -> None:
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.integers(levels, size=(4, items)).astype(np.float32))
    targets = torch.from_numpy(rng.integers(1, items + 1, 4))
    seen = torch.from_numpy(rng.integers(0, items + 1, (4, known)))
    above, beside = count_ranks(scores, targets, seen)
    for b in range(4):
        own = scores[b, targets[b] - 1]
        others = [j for j in range(items) if j != targets[b] - 1 and j + 1 not in seen[b].tolist()]
        assert above[b] == sum(bool(scores[b, j] > own) for j in others)
        assert beside[b] == sum(bool(scores[b, j] == own) for j in others)


@given(above=st.integers(0, 40), beside=st.integers(0, 30))
def test_tied_metrics_are_the_mean_over_all_places(above: int, beside: int) -> None:
    got = metrics_of(np.array([above]), np.array([beside]))
    ranks = np.arange(above + 1, above + beside + 2)
    for k in (5, 10, 20):
        assert got[f"hr@{k}"][0] == pytest.approx((ranks <= k).mean())
        assert got[f"ndcg@{k}"][0] == pytest.approx(np.where(ranks <= k, 1 / np.log2(ranks + 1), 0).mean())
        assert got[f"mrr@{k}"][0] == pytest.approx(np.where(ranks <= k, 1 / ranks, 0).mean())


def test_metrics_equal_those_of_torchmetrics() -> None:
    from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

    scores, targets = torch.randn(30, 50), torch.randint(1, 51, (30,))
    got = {name: values.mean() for name, values in metrics_of(*map(np.array, count_ranks(scores, targets))).items()}
    truth = torch.nn.functional.one_hot(targets - 1, 50).bool().flatten()
    index = torch.arange(30).repeat_interleave(50)
    for k, (name, metric) in itertools.product(
        (5, 20), {"hr": RetrievalHitRate, "ndcg": RetrievalNormalizedDCG, "mrr": RetrievalMRR}.items()
    ):
        assert got[f"{name}@{k}"] == pytest.approx(float(metric(top_k=k)(scores.flatten(), truth, index)), abs=1e-6)


def test_a_scorer_that_knows_nothing_gets_what_chance_gives() -> None:
    above, beside = count_ranks(torch.zeros(5, 100), torch.arange(1, 6))
    assert metrics_of(above.numpy(), beside.numpy())["hr@10"] == pytest.approx(0.1)


@settings(max_examples=40)
@given(seed=st.integers(0, 999), width=st.integers(12, 900), block=st.integers(1, 40), k=st.integers(1, 12))
def test_top_k_is_exact(seed: int, width: int, block: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, width, generator=generator)
    scores[0, width // 3 :] = -torch.inf
    values, columns = top_k(scores, k, block)
    torch.testing.assert_close(values, scores.topk(k, 1).values, rtol=0, atol=0)
    torch.testing.assert_close(scores.gather(1, columns), values, rtol=0, atol=0)
    assert all(len(set(row)) == k for row in columns.tolist())
