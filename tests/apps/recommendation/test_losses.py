"""The losses against themselves written out: value and gradient, for any sizes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.recommendation import losses
from apps.recommendation.losses import next_item_loss, weighted_logsumexp


def tensors(rows: int, items: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, width, generator=generator, dtype=torch.float64, requires_grad=True)
    e = torch.randn(items, width, generator=generator, dtype=torch.float64, requires_grad=True)
    return h, e


@settings(max_examples=40)
@given(
    rows=st.integers(1, 70),
    items=st.integers(1, 40),
    seed=st.integers(0, 99),
    chunk=st.sampled_from([1, 200, 10**6]),
    extra=st.booleans(),
    skip=st.booleans(),
)
def test_logsumexp_in_chunks_is_logsumexp(
    rows: int, items: int, seed: int, chunk: int, extra: bool, skip: bool
) -> None:
    h, e = tensors(rows, items, 5, seed)
    weight = torch.rand(rows, dtype=torch.float64)
    own = torch.randn(rows, dtype=torch.float64, requires_grad=True) if extra else None
    column = torch.randint(-1, items, (rows,)) if skip and (extra or items > 1) else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CHUNK", chunk)
        got = 1.7 * weighted_logsumexp(h, e, weight, extra=own, skip=column, shift=0.3)
    logits = h @ e.T + 0.3
    if column is not None:
        at = torch.arange(rows)[column >= 0]
        logits = logits.index_put((at, column[at]), torch.tensor(-math.inf, dtype=torch.float64))
    if own is not None:
        logits = torch.cat([logits, own[:, None]], 1)
    wanted = 1.7 * (weight * logits.logsumexp(1)).sum()
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=1e-10)
    free = [h, e, *([own] if own is not None else [])]
    for a, b in zip(torch.autograd.grad(got, free), torch.autograd.grad(wanted, free), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_huge_scores_stay_finite() -> None:
    h, e = tensors(3, 7, 4, 0)
    value = weighted_logsumexp(1e4 * h.float(), 1e4 * e.float(), torch.ones(3))
    value.backward()
    assert value.isfinite()
    assert h.grad is not None
    assert h.grad.isfinite().all()


def test_next_item_loss_is_cross_entropy() -> None:
    h, e = tensors(33, 21, 6, 1)
    targets = torch.randint(21, (33,))
    got, wanted = next_item_loss(h, e, targets), torch.nn.functional.cross_entropy(h @ e.T, targets)
    torch.testing.assert_close(got, wanted)
    for a, b in zip(torch.autograd.grad(got, [h, e]), torch.autograd.grad(wanted, [h, e]), strict=True):
        torch.testing.assert_close(a, b)


def test_sampled_loss_with_all_others_as_negatives_is_nearly_the_whole() -> None:
    h, e = tensors(33, 400, 6, 2)
    targets = torch.randint(400, (33,))
    got = next_item_loss(0.1 * h, e, targets, torch.randperm(400))
    torch.testing.assert_close(got, next_item_loss(0.1 * h, e, targets), atol=3e-3, rtol=0)


def test_sampled_loss_is_right_in_the_mean() -> None:
    h, e = tensors(8, 50, 4, 3)
    targets = torch.randint(50, (8,))
    torch.manual_seed(0)
    # The mass is estimated without bias; its logarithm then lies a little lower.
    losses_of = [next_item_loss(0.3 * h, e, targets, torch.randperm(50)[:25]) for _ in range(300)]
    mean = torch.stack(losses_of).mean()
    torch.testing.assert_close(mean, next_item_loss(0.3 * h, e, targets), atol=0.04, rtol=0)


def test_the_logits_are_never_kept() -> None:
    """Peak memory of the graph: the saved tensors are as large as the inputs, not rows times items."""
    h, e = tensors(500, 3000, 8, 4)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        next_item_loss(h, e, torch.randint(3000, (500,)))
    assert max(saved) <= 3000 * 8
