"""Position attention three ways: in blocks, by the fused kernel with queries and keys padded, and by the whole map.

128 channels, 16 of queries and keys, one map. The models take the blocks.
"""

from collections.abc import Callable

DIM = 128
FORMS = ("blocked", "fused, padded", "whole map")
SAME = FORMS
AXIS = "positions"
SIZES = (1024, 4096)
MODES = ("forward", "forward + backward")


def prepare(form: str, size: int, mode: str) -> Callable[[], object]:
    import torch

    from shared.attention.functional import attend
    from shared.attention.guided import PositionAttention

    torch.manual_seed(0)
    module = PositionAttention(DIM)
    torch.nn.init.constant_(module.gamma, 0.5)
    side = round(size**0.5)
    x = torch.randn(1, DIM, side, side)

    def written_out(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).flatten(2).transpose(1, 2) for layer in (module.query, module.key, module.value))
        if form == "whole map":
            out = (q @ k.transpose(1, 2)).softmax(-1) @ v
        else:  # contiguous, since the fused kernel takes no other layout and would quietly give way to the whole map
            out = attend(*(part.contiguous()[:, None] for part in (q, k, v)), scale=1.0)[:, 0]
        return module.gamma * out.transpose(1, 2).view_as(x) + x

    forward = module if form == "blocked" else written_out

    def work() -> torch.Tensor:
        if mode == "forward":
            with torch.no_grad():
                return forward(x)
        module.zero_grad(set_to_none=True)
        out = forward(x)
        out.square().mean().backward()
        return out.detach()

    with torch.no_grad():
        module(x[..., :4, :4])  # libraries load their parts before memory is read
    return work
