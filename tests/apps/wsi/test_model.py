"""The models: one branch is ABMIL, masked training, long bags, padding, and the loss written out."""

import pytest
import torch
import torch.nn.functional as F

from apps.wsi.config import VARIANTS, ModelConfig
from apps.wsi.model import ACMIL, Scores, architecture, bag_loss, build_model

SMALL = {"width": 16, "hidden": 8, "fraction": 0.5}


def build(name: str, features: int = 10, classes: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(architecture(ModelConfig(**{**SMALL, **VARIANTS[name]}), features, classes))


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_changes_nothing_and_weights_sum_to_one(name: str) -> None:
    model, x = build(name).eval(), torch.randn(1, 7, 10)
    padded = torch.cat([x, torch.randn(1, 5, 10)], 1)
    keep = torch.arange(12)[None] < 7
    with torch.no_grad():
        alone, together = model(x), model(padded, keep)
    torch.testing.assert_close(alone.bag, together.bag, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.weights[..., :7], alone.weights, atol=1e-5, rtol=1e-5)
    assert together.weights[..., 7:].abs().max() == 0
    torch.testing.assert_close(alone.weights.sum(-1), torch.ones(alone.weights.shape[:2]))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", [1, 2, 9])
def test_one_instance_and_fewer_than_k_train(name: str, size: int) -> None:
    model = build(name).train()
    loss = bag_loss(model(torch.randn(2, size, 10), torch.ones(2, size, dtype=torch.bool)), torch.tensor([0, 1]))
    loss.mean().backward()
    assert loss.shape == (2,)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_features_far_from_zero_are_right_in_half_precision() -> None:
    """The mean is taken off before rounding: 50 and its deviations of 0.1 are one number in bfloat16."""
    model = build("acmil").eval()
    model.embedding.centre.fill_(50)
    model.embedding.scale.fill_(0.1)
    x = 50 + 0.1 * torch.randn(2, 9, 10)
    with torch.no_grad():
        exact = model(x).bag
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x).bag.float()
    torch.testing.assert_close(half, exact, atol=0.02, rtol=0.02)


def test_one_branch_without_masking_is_gated_abmil() -> None:
    model, x = build("gated-abmil"), torch.randn(3, 9, 10)
    h = torch.relu(x @ model.embedding.reduce.weight.T)
    a = model.attention
    logits = (torch.tanh(a.score(h)) * torch.sigmoid(a.gate(h))) @ a.weigh.weight.T
    pooled = (logits.softmax(1) * h).sum(1)
    torch.testing.assert_close(model(x).bag, model.bag(pooled), atol=1e-6, rtol=1e-5)


def test_the_bag_is_classified_from_the_mean_of_the_branches() -> None:
    model, x = build("branches").eval(), torch.randn(2, 9, 10)
    scores = model(x)
    h = torch.relu(x @ model.embedding.reduce.weight.T)
    torch.testing.assert_close(scores.bag, model.bag((scores.weights @ h).mean(1)), atol=1e-6, rtol=1e-5)
    third = (scores.weights[:, 2:3] @ h).squeeze(1) @ model.heads.weight[2].T + model.heads.bias[2]
    torch.testing.assert_close(scores.branches[:, 2], third, atol=1e-6, rtol=1e-5)


def test_the_loss_is_the_sum_of_its_three_terms() -> None:
    torch.manual_seed(0)
    scores = Scores(torch.randn(1, 3), torch.randn(1, 2, 3), torch.rand(1, 2, 5).softmax(-1))
    wanted = F.cross_entropy(scores.bag, torch.tensor([1]))
    wanted = wanted + sum(F.cross_entropy(scores.branches[:, m], torch.tensor([1])) for m in range(2)) / 2
    wanted = wanted + F.cosine_similarity(scores.weights[:, 0], scores.weights[:, 1])
    torch.testing.assert_close(bag_loss(scores, torch.tensor([1])), wanted.view(1))


def test_a_long_bag_is_read_in_chunks_to_the_same_scores() -> None:
    torch.manual_seed(0)
    model = ACMIL(10, 2, 16, 8).eval()
    x = torch.randn(1, 10_000, 10)
    with torch.no_grad():
        chunked = model(x)
        model.attention.chunk = 20_000
        direct = model(x)
    torch.testing.assert_close(chunked.bag, direct.bag, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(chunked.weights, direct.weights, atol=1e-6, rtol=1e-6)


def test_standardisation_is_folded_into_the_first_layer() -> None:
    model, x = build("acmil").eval(), torch.randn(2, 5, 10) * 7 + 3
    plain = model((x - 3) / 7).bag
    model.embedding.centre.fill_(3.0)
    model.embedding.scale.fill_(7.0)
    torch.testing.assert_close(model(x).bag, plain, atol=1e-5, rtol=1e-5)


def test_transmil_reads_a_long_bag_by_the_fused_kernel_to_the_same_scores(monkeypatch) -> None:
    model, x = build("transmil").eval(), torch.randn(1, 1030, 10)
    with torch.no_grad():
        fused = model(x).bag
        monkeypatch.setattr("apps.wsi.model.FUSED", 10**9)
        torch.testing.assert_close(model(x).bag, fused, atol=1e-5, rtol=1e-5)
