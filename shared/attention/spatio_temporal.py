"""A transformer block over all tokens of several frames at once, whose attention rows say what moves as one.

House notation: B batch, H heads, L tokens of the frames asked about, S tokens of the frames looked at, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention.functional import attend, masked_softmax, merge_heads, plain_attention, split_heads
from shared.attention.record import capture, recording
from shared.attention.registry import Mechanism, register


class SpatioTemporalBlock(nn.Module):
    """A pre-norm block of joint attention over space and time, without position codes.

    x <- x + W_o softmax(Q K^T / sqrt(D)) V, with Q, K, V of LN(x);  x <- x + W_2 gelu(W_1 LN(x)).

    Shape:
        x (B, L, C), the tokens of all frames in one row -> (B, L, C). `keep` (B, L): False closes a token: no query
        sees it, and it comes out as 0. Recorded map: (B, H, L, L).
    Reference:
        Ding et al. 2024, Betrayed by Attention, arXiv 2311.17893: the spatio-temporal block on frozen features.
    Deviations:
        None that is known; 1.77 M parameters at C = 384, as in the paper.
    Complexity:
        O(L^2 C + L C^2) time, O(L C) memory by the fused kernel; `rows` holds its (L, S) map.
    """

    def __init__(self, dim: int = 384, heads: int = 8, ratio: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        mask = None if keep is None else keep[:, None, None, :]
        if recording():
            out, weights = plain_attention(q, k, v, mask=mask)
            capture(self, weights)
        else:
            out = attend(q, k, v, mask=mask)
        x = x + self.out(merge_heads(out))
        x = x + self.mlp(self.norm2(x))
        return x if keep is None else x * keep[..., None]

    def with_rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output (B, L, C), and its attention averaged over heads, with gradients (B, L, L)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        out, weights = plain_attention(q, k, v)
        x = x + self.out(merge_heads(out))
        return x + self.mlp(self.norm2(x)), weights.mean(1)

    def rows(self, x: Tensor, context: Tensor, keep: Tensor | None = None) -> Tensor:
        """Where tokens look among those of other frames: x (B, L, C), context (B, S, C) -> (B, L, S), mean over heads.

        Rows sum to one, and to 0 where `keep` (B, S) closes everything. One head at a time, so that memory is O(L S).
        """
        dim = x.shape[-1]
        q = split_heads(F.linear(self.norm1(x), self.qkv.weight[:dim], self.qkv.bias[:dim]), self.heads)
        k = F.linear(self.norm1(context), self.qkv.weight[dim : 2 * dim], self.qkv.bias[dim : 2 * dim])
        k = split_heads(k, self.heads)
        total = x.new_zeros(len(x), x.shape[1], context.shape[1])
        for head in range(self.heads):
            logits = q[:, head] @ k[:, head].transpose(-2, -1) * (dim // self.heads) ** -0.5
            total += masked_softmax(logits, None if keep is None else keep[:, None, :])
        return total / self.heads


def plain_block(module: SpatioTemporalBlock, x: Tensor, keep: Tensor | None = None) -> Tensor:
    """`SpatioTemporalBlock` head by head, from its equation: the reference of its tests."""
    keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if keep is None else keep
    y = module.norm1(x)
    width = x.shape[-1] // module.heads
    parts = []
    for head in range(module.heads):
        here = slice(head * width, (head + 1) * width)
        q, k, v = (
            F.linear(y, w[here], b[here])
            for w, b in zip(module.qkv.weight.chunk(3), module.qkv.bias.chunk(3), strict=True)
        )
        logits = torch.einsum("blc,bsc->bls", q, k) / width**0.5
        parts.append(torch.einsum("bls,bsc->blc", masked_softmax(logits, keep[:, None, :]), v))
    x = x + module.out(torch.cat(parts, -1))
    first, _, second = module.mlp
    return (x + second(F.gelu(first(module.norm2(x))))) * keep[..., None]


register(
    Mechanism(
        name="spatio-temporal block",
        build=lambda dim, heads: SpatioTemporalBlock(dim, heads),
        inputs=lambda batch, length, dim, generator: {
            "x": torch.randn(batch, length, dim, generator=generator, dtype=torch.float64)
        },
        reference=plain_block,
        paper="Ding et al. 2024, arXiv 2311.17893",
        mask="keep",
    )
)
