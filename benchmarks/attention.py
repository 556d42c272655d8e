"""Relative attention four ways: blocked, skew + softmax, Shaw's pairs, and without a relative term.

Width 256, 8 heads, batch 1, causal, distances as long as the sequence. The blocked kernel is what the models use.
"""

from collections.abc import Callable

DIM, HEADS = 256, 8
FORMS = ("blocked", "skew + softmax", "Shaw", "no relative")
SAME = FORMS[:3]
AXIS = "length"
SIZES = (512, 1024, 2048, 4096)
MODES = ("forward", "forward + backward")
MOST_BYTES = 6e9  # of one tensor; a case that needs more is left out


def prepare(form: str, size: int, mode: str) -> Callable[[], object] | None:
    if form == "Shaw" and 4 * HEADS * size**2 * (DIM // HEADS) > MOST_BYTES:
        return None
    import torch

    from shared.attention.distance import shaw_logits, skew
    from shared.attention.functional import causal_mask, merge_heads, plain_attention, split_heads
    from shared.attention.relative import RelativeAttention

    torch.manual_seed(0)
    module = RelativeAttention(DIM, HEADS, 0 if form == "no relative" else size)
    x = torch.randn(1, size, DIM)
    mask = causal_mask(size, size)

    def written_out(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (split_heads(part, HEADS) for part in module.qkv(x).chunk(3, -1))
        assert module.distance is not None
        if form == "Shaw":
            bias = shaw_logits(q, module.distance, size, causal=True)
        else:
            bias = skew(torch.nn.functional.pad(q @ module.distance.transpose(-2, -1), (0, 1)), size)
        return module.out(merge_heads(plain_attention(q, k, v, bias=bias / (DIM / HEADS) ** 0.5, mask=mask)[0]))

    forward = module if form in ("blocked", "no relative") else written_out

    def work() -> torch.Tensor:
        if mode == "forward":
            with torch.no_grad():
                return forward(x)
        module.zero_grad(set_to_none=True)
        out = forward(x)
        out.square().mean().backward()
        return out.detach()

    with torch.no_grad():
        module(x[:, :16])  # libraries load their parts before memory is read
    return work
