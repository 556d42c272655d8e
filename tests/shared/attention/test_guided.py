"""What is particular to guided attention, beside the contract."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shared.attention.guided import ChannelAttention, GuidedAttention, PositionAttention, guide


class Largest(TorchDispatchMode):
    """Keeps how many numbers the largest tensor held that was made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.numel())
        return out


def test_no_map_is_held() -> None:
    module, x = PositionAttention(8), torch.randn(1, 8, 32, 64)
    with Largest() as largest:
        module(x).sum().backward()
    assert largest.numbers < 2048**2 / 4


def test_a_row_is_that_of_the_map() -> None:
    from shared.attention.record import record_attention

    module, x = PositionAttention(8), torch.randn(2, 8, 3, 5)
    with record_attention(module) as maps:
        module(x)
    torch.testing.assert_close(module.row(x, (2, 1)), maps[""][0][:, 2 * 5 + 1].unflatten(1, (3, 5)))
    with pytest.raises(IndexError, match="3 x 5"):
        module.row(x, (3, 0))


def test_attention_begins_as_no_attention() -> None:
    x = torch.randn(2, 6, 4, 4)
    for module in (PositionAttention(6), ChannelAttention(), ChannelAttention("released")):
        torch.testing.assert_close(module(x), x)


def test_the_forms_of_channel_attention_look_at_opposite_channels() -> None:
    x = torch.randn(1, 5, 6, 6)
    paper, released = ChannelAttention().weights(x)[0], ChannelAttention("released").weights(x)[0]
    energy = x[0].flatten(1) @ x[0].flatten(1).T
    assert torch.equal(paper.argmax(-1), energy.argmax(-1))
    assert torch.equal(released.argmax(-1), energy.argmin(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["paper", "released"])
def test_sums_over_a_large_map_keep_their_digits_in_halves(dtype: torch.dtype, form: str) -> None:
    """16 channels of 64 x 64 places: the energies are about 100,000, more than float16 holds."""
    module, x = ChannelAttention(form), 5 * torch.randn(1, 16, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(module.weights(x), module.double().weights(x.double()).float(), atol=0.01, rtol=0)
        guided = guide(x, x, "matrix")
    torch.testing.assert_close(guided.float(), guide(x.double(), x.double(), "matrix").float(), atol=1, rtol=0.02)


def test_losses_are_zero_without_guidance_and_the_guided_one_with_one_step() -> None:
    x, fused = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    none = GuidedAttention(4, guidance="none").refine(x, fused)
    assert (float(none.guided), float(none.reconstruction)) == (0, 0)
    one = GuidedAttention(4, steps=1).refine(x, fused)
    assert float(one.guided) == 0
    assert float(one.reconstruction.detach()) > 0
