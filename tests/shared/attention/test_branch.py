"""What is particular to attention over bags; the contract is held in test_contract.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.attention.branch import BranchAttention, branch_overlap, mask_top, plain_branch_attention
from shared.attention.record import record_attention


def attention(dim: int = 16, branches: int = 3, **options) -> BranchAttention:
    torch.manual_seed(0)
    return BranchAttention(dim, branches, 8, **options)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_chunked_equals_direct_in_single_precision(scale: float) -> None:
    module = attention(chunk=64).eval()
    x = torch.randn(2, 1000, 16, generator=torch.Generator().manual_seed(1)) * scale
    keep = torch.rand(2, 1000, generator=torch.Generator().manual_seed(2)) < 0.7
    with torch.no_grad():
        chunked, weights = module.pool(x, keep)
        module.chunk = 1000
        direct, wanted = module.pool(x, keep)
    torch.testing.assert_close(chunked, direct, atol=1e-6 * scale, rtol=1e-6)
    torch.testing.assert_close(weights, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("top", [0, 6])
@pytest.mark.parametrize("padded", [False, True])
def test_chunked_training_has_the_gradient_of_the_direct_form(top: int, padded: bool) -> None:
    module, embed = attention(top=top).double(), torch.nn.Linear(5, 16).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 40, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    draw = torch.rand(2, 3, 6, dtype=torch.float64, generator=generator)
    keep = torch.arange(40) < torch.tensor([[40], [17]]) if padded else None  # of the second, whole chunks are closed
    results = []
    for chunk in (7, 40):
        module.chunk = chunk
        pooled, weights = module.pool(x, keep, draw, embed=embed)
        loss = pooled.square().sum() + branch_overlap(weights).sum()
        found = torch.autograd.grad(loss, (x, *embed.parameters(), *module.parameters()))
        results.append((pooled, weights, *found))
    assert (results[0][1] == 0).any() == bool(top or padded)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)


def test_chunked_training_keeps_no_chunk() -> None:
    """What autograd saves beyond the input and the parameters is small: the logits, and sums of chunks."""
    module, embed = attention(chunk=100), torch.nn.Linear(5, 16)
    x, saved = torch.randn(1, 5000, 5), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        module.pool(x, embed=embed)
    own = {one.untyped_storage().data_ptr() for one in (x, *module.parameters(), *embed.parameters())}
    beyond = sum(t.numel() for t in saved if t.untyped_storage().data_ptr() not in own)
    assert beyond < 5000 * 16  # the embedded bag alone


def test_embedding_a_chunk_at_a_time_is_embedding_the_bag() -> None:
    module, embed = attention(chunk=9).eval(), torch.nn.Linear(5, 16)
    x = torch.randn(1, 50, 5)
    with torch.no_grad():
        torch.testing.assert_close(module.pool(x, embed=embed)[0], module(embed(x)), atol=1e-6, rtol=1e-6)


@given(
    st.integers(1, 30), st.integers(1, 12), st.floats(0.0, 0.95), st.floats(0.05, 1.0), st.booleans(), st.integers(0, 9)
)
def test_masking_closes_only_the_strongest_and_never_all(size, top, share, fraction, bernoulli, seed) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(2, 3, size)
    keep = torch.rand(2, size) < 0.8
    keep[:, 0] = True
    stays = mask_top(logits, keep, top=top, masked=share, fraction=fraction, bernoulli=bernoulli)
    for b in range(2):
        sizes = int(keep[b].sum())
        k = min(top, size, int(torch.tensor(sizes * fraction - 1e-4).ceil()))
        for m in range(3):
            closed = keep[b] & ~stays[b, m]
            strongest = set(logits[b, m].masked_fill(~keep[b], -torch.inf).topk(k).indices.tolist())
            assert set(closed.nonzero().flatten().tolist()) <= strongest
            assert (keep[b] & stays[b, m]).any()
            if not bernoulli:
                assert closed.sum() == int(k * share + 1e-6)


def test_the_papers_setting_closes_six_of_ten_in_each_branch_by_itself() -> None:
    torch.manual_seed(0)
    stays = mask_top(torch.randn(1, 5, 100), top=10, masked=0.6)
    assert (~stays).sum(-1).tolist() == [[6] * 5]
    same = mask_top(torch.randn(1, 1, 100).expand(1, 5, 100), top=10, masked=0.6)
    assert len({tuple(row.tolist()) for row in same[0]}) > 1  # drawn for each branch by itself


def test_masking_happens_in_training_only() -> None:
    module, x = attention(top=4), torch.randn(1, 20, 16)
    torch.manual_seed(1)
    with record_attention(module) as maps:
        module(x)
        module.eval()(x)
    trained, evaluated = maps[""]
    assert (trained == 0).sum(-1).tolist() == [[2, 2, 2]]
    assert (evaluated > 0).all()
    torch.testing.assert_close(trained.sum(-1), torch.ones(1, 3))


def test_one_instance_is_the_bag() -> None:
    module, x = attention(top=10), torch.randn(2, 1, 16)
    torch.testing.assert_close(module(x), x.expand(2, 3, 16))


def test_order_of_instances_does_not_matter() -> None:
    module, x = attention().eval().double(), torch.randn(1, 30, 16, dtype=torch.float64)
    order = torch.randperm(30)
    torch.testing.assert_close(module(x[:, order]), module(x), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(plain_branch_attention(module, x[:, order]), module(x), atol=1e-12, rtol=1e-12)


def test_overlap_of_like_and_of_parted_maps() -> None:
    parted = torch.eye(3)[None]
    assert branch_overlap(parted).tolist() == [0.0]
    torch.testing.assert_close(branch_overlap(torch.full((1, 3, 7), 1 / 7)), torch.ones(1))
    torch.testing.assert_close(
        branch_overlap(torch.tensor([[[1.0, 0], [1, 0], [0, 1]]])), torch.tensor([1 / 3])
    )  # of three pairs one is alike
    assert branch_overlap(torch.rand(4, 1, 5)).tolist() == [0.0] * 4
