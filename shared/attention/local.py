"""Relative attention inside blocks, for long sequences.

House notation: B batch, H heads, L queries, D head width, N block length.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention.cache import KeyValueCache
from shared.attention.distance import relative_logits, shaw_logits
from shared.attention.functional import masked_softmax, merge_heads, plain_attention, split_heads
from shared.attention.record import capture
from shared.attention.registry import Mechanism, register


class LocalRelativeAttention(nn.Module):
    """Relative attention inside blocks: a query sees its own block up to itself, and the whole block before.

    Shape:
        x (B, L, dim) -> (B, L, dim), any L. Recorded map: (B, H, blocks, N, 2 N), keys counted from the block before.
    Reference:
        Huang et al. 2018, arXiv 1809.04281, section 3 (relative local attention): the block before gives 2 N - 1
        distances, a query itself one more.
    Deviations:
        One table of 2 N rows serves both blocks; the first block's missing predecessor is masked (the paper pads).
    Complexity:
        O(L N D) time and O(L N) memory a head.
    """

    def __init__(
        self, dim: int, heads: int, block: int, *, attention_dim: int | None = None, relative: bool = True
    ) -> None:
        super().__init__()
        inner = attention_dim or dim
        if inner % heads:
            raise ValueError(f"attention width {inner} is not divisible by {heads} heads")
        self.heads, self.block = heads, block
        width = inner // heads
        self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.out = nn.Linear(inner, dim, bias=False)
        self.distance = nn.Parameter(torch.randn(heads, 2 * block, width) * width**-0.5) if relative else None

    def new_cache(self, window: int) -> KeyValueCache:
        # The own block and the one before are all that is ever seen.
        return KeyValueCache(2 * self.block)

    def forward(
        self,
        x: Tensor,
        coordinates: dict[str, Tensor] | None = None,
        keep: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        first = 0
        if cache is not None:
            first = cache.length
            k, v, _ = cache.append(k, v, {})
            if first > 0:
                return self._decode(q, k, v, first)
            # A prefill from zero is the plain blocked case; the cache may already have let go of its first keys.
            k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1)[1:])
        return self._blocks(q, k, v, keep)

    def _blocks(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
        batch, _, length, width = q.shape
        n = self.block
        count = -(-length // n)
        q, k, v = (F.pad(t, (0, 0, 0, count * n - length)).unflatten(2, (count, n)) for t in (q, k, v))
        before = torch.zeros_like(k[:, :, :1])
        k, v = (torch.cat([torch.cat([before, t[:, :, :-1]], 2), t], 3) for t in (k, v))  # (B, H, count, 2 N, D)
        mask = self._visible(torch.arange(n, device=q.device), count)
        if keep is not None:
            closed = F.pad(keep, (n, count * n - length)).unfold(1, 2 * n, n)  # (B, count, 2 N)
            mask = mask & closed[:, None, :, None, :]
        q = q / math.sqrt(width)
        logits = q @ k.transpose(-2, -1)
        if self.distance is not None:
            by_block = q.transpose(1, 2).flatten(0, 1)  # blocks ride along with the batch
            bias = relative_logits(by_block, self.distance, 2 * n, n, causal=True)
            logits = logits + bias.unflatten(0, (batch, count)).transpose(1, 2)
        weights = masked_softmax(logits, mask)
        capture(self, weights)
        return self.out(merge_heads((weights @ v).flatten(2, 3)[:, :, :length]))

    def _visible(self, rows: Tensor, count: int) -> Tensor:
        """(1, 1, count, N, 2 N): own block up to the query, all of the block before, nothing before the first block."""
        columns = torch.arange(2 * self.block, device=rows.device)
        inside = columns[None, :] <= rows[:, None] + self.block
        exists = (torch.arange(count, device=rows.device)[:, None, None] > 0) | (columns >= self.block)
        return (inside & exists)[None, None]

    def _decode(self, q: Tensor, k: Tensor, v: Tensor, first: int) -> Tensor:
        queries, keys = q.shape[-2], k.shape[-2]
        query_at = torch.arange(first, first + queries, device=q.device)[:, None]
        key_at = torch.arange(first + queries - keys, first + queries, device=q.device)
        visible = (key_at <= query_at) & (key_at >= (query_at // self.block - 1) * self.block)
        q = q / math.sqrt(q.shape[-1])
        logits = q @ k.transpose(-2, -1)
        if self.distance is not None:
            logits = logits + relative_logits(q, self.distance, keys, keys - queries, causal=True)
        return self.out(merge_heads(masked_softmax(logits, visible) @ v))


def plain_local(module: LocalRelativeAttention, x: Tensor, keep: Tensor | None = None) -> Tensor:
    """`LocalRelativeAttention` written plainly: full attention under the mask of the blocks."""
    q, k, v = (split_heads(part, module.heads) for part in module.qkv(x).chunk(3, -1))
    position = torch.arange(x.shape[1], device=x.device)
    blocks_apart = position[:, None] // module.block - position // module.block
    mask = (position <= position[:, None]) & (blocks_apart <= 1)
    if keep is not None:
        mask = mask & keep[:, None, None, :]
    bias = None
    if module.distance is not None:
        bias = shaw_logits(q, module.distance, x.shape[1], causal=True) / math.sqrt(q.shape[-1])
    out, _ = plain_attention(q, k, v, bias=bias, mask=mask)
    return module.out(merge_heads(out))


def _build(dim: int, heads: int) -> LocalRelativeAttention:
    return LocalRelativeAttention(dim, heads, block=4)


def _inputs(batch: int, length: int, dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"x": torch.randn(batch, length, dim, generator=generator, dtype=torch.float64)}


register(
    Mechanism(
        name="relative local",
        build=_build,
        inputs=_inputs,
        reference=plain_local,
        paper="Huang et al. 2018, arXiv 1809.04281, section 3 (relative local attention)",
        causal=True,
        cached=True,
        mask="keep",
    )
)
