"""What the losses reward: known optima, gradients, and small frames."""

import math

import pytest
import torch

from apps.video.losses import consistency, drawn, instance_contrast, overlap, pick_queries, sinkhorn, transport_loss
from apps.video.model import SlotModel, TemporalModel, local_correlation


def two_things(tokens: int = 40, frames: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of two kinds in every frame, (1, T N, C), and which kind each is."""
    kind = (torch.arange(frames * tokens) % tokens) < tokens // 4
    return torch.where(kind[:, None], torch.eye(8)[0], torch.eye(8)[1])[None], kind


def test_attention_to_ones_like_is_rewarded() -> None:
    tokens, kind = two_things()
    same = (kind[:, None] == kind).float()
    good = (same / same.sum(-1, keepdim=True))[None]
    bad = (1 - same) / (1 - same).sum(-1, keepdim=True)
    queries = pick_queries(torch.randn(1, 3, 40), 8)
    assert queries.shape == (1, 24)
    assert (queries.view(3, 8) // 40 == torch.arange(3)[:, None]).all()
    semantic, motion = consistency(tokens, good, 3, queries)
    worse, _ = consistency(tokens, bad[None], 3, queries)
    assert semantic < worse
    uniform = torch.full((1, 120, 120), 1 / 120)
    assert motion == 0
    assert consistency(tokens, uniform, 3, queries)[1] > 0  # a centre between two things is near neither


def test_what_a_clip_draws_does_not_depend_on_its_batch() -> None:
    both = drawn(torch.tensor([5, 9]), 3, 4)
    assert torch.equal(both[1:], drawn(torch.tensor([9]), 3, 4))
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize("cells", [1, 2, 12])
def test_the_temporal_model_learns_from_frames_of_any_size(cells: int) -> None:
    torch.manual_seed(0)
    model = TemporalModel(16, 4)
    keys = torch.randn(2, 3, cells, 2, 16)
    tokens, rows = model(keys, torch.randn(2, 3, 16))
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 6 * cells))
    semantic, motion = consistency(tokens, rows, 3, pick_queries(torch.randn(2, 3, 2 * cells), 8))
    (semantic + motion).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.block.qkv.weight.grad is not None


def test_signatures_are_the_rows_of_the_block() -> None:
    torch.manual_seed(0)
    model = TemporalModel(16, 1)
    model.enter.fit(3 + 2 * torch.randn(100, 16))
    keys = torch.randn(1, 1, 3, 4, 16)
    with torch.no_grad():
        _, rows = model(keys, torch.randn(1, 1, 16))
        flat = keys.flatten(0, 3)
        torch.testing.assert_close(model.signatures(flat, flat), rows[0], atol=1e-5, rtol=1e-4)


def test_sinkhorn_shares_tokens_out_evenly() -> None:
    torch.manual_seed(0)
    plan = sinkhorn(torch.rand(2, 60, 4), iterations=50)
    torch.testing.assert_close(plan.sum(-1), torch.ones(2, 60))
    torch.testing.assert_close(plan.sum(-2), torch.full((2, 4), 15.0), atol=0.1, rtol=0)


def test_transport_overlap_and_contrast_have_their_optima() -> None:
    slots = torch.eye(4)[None]
    tokens = torch.eye(4).repeat(5, 1)[None]
    assert transport_loss(tokens, slots, tokens, slots) < transport_loss(tokens, slots[:, [1, 2, 3, 0]], tokens, slots)
    apart = torch.eye(3)[None]
    assert overlap(apart) == 0
    assert overlap(torch.ones(1, 3, 5)) == pytest.approx(1)
    assert overlap(torch.ones(1, 1, 5)) == 0
    shuffled = slots[:, [2, 0, 3, 1]]
    assert instance_contrast(slots, shuffled) < 0.01  # matched whatever their order
    assert instance_contrast(slots, torch.ones(1, 4, 4)) == pytest.approx(math.log(4), abs=1e-4)


def test_local_correlation_is_the_cosine_of_each_shift() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(1, 5, 6, 4), torch.randn(1, 5, 6, 4)
    found = local_correlation(a, b, 1)
    assert found.shape == (1, 9, 5, 6)
    cosine = torch.nn.functional.cosine_similarity(a[0, 2, 3], b[0, 3, 2], dim=0)
    torch.testing.assert_close(found[0, 6, 2, 3], cosine)  # one down, one left
    assert found[0, 0, 0, 0] == 0


def test_every_parameter_of_the_slots_learns() -> None:
    from apps.video.task import slot_losses

    torch.manual_seed(0)
    model, teacher = SlotModel(16, 8, 3, 2, 2, 1), SlotModel(16, 8, 3, 2, 2, 1)
    losses = slot_losses(model, teacher, {"keys": torch.randn(2, 3, 4, 5, 16), "draw": torch.tensor([3, 4])})
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
