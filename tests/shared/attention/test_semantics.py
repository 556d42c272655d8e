"""What class-semantics attention keeps beyond the contract: semantics of any width, gates, gradients for processes."""

import pytest
import torch

from shared.attention.record import record_attention
from shared.attention.semantics import ClassSemanticsAttention


@pytest.mark.parametrize("semantics", [1, 4, 16, 40])
def test_semantics_may_be_narrower_or_wider_than_the_encoder(semantics: int) -> None:
    torch.manual_seed(0)
    module = ClassSemanticsAttention(16, semantics, 8)
    x, r = torch.randn(2, 11, 16), torch.randn(2, 11, semantics)
    with record_attention(module) as maps:
        assert module(x, r).shape == x.shape
    assert {name: tuple(values[0].shape) for name, values in maps.items()} == {
        "channel": (2, 1, 16),
        "temporal": (2, 1, 11),
    }
    assert all(((values[0] > 0) & (values[0] < 1)).all() for values in maps.values())
    assert not torch.equal(module(x, r), module(x, r.flip(1)))  # the gates are those of R, not of F


def test_gradients_lie_in_memory_as_their_parameters_do() -> None:
    """Processes that train together warn where they do not."""
    module = ClassSemanticsAttention(8, 3, 4)
    module(torch.randn(2, 9, 8), torch.randn(2, 9, 3), torch.ones(2, 9, dtype=torch.bool)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride(), name
