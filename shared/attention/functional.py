"""Attention as a function: the fused kernel where it fits, and the plain form that everything is tested against.

House notation: B batch, H heads, L queries, S keys, D head width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax(scale * Q K^T + bias) V, written out; the reference of the tests, and the form that yields the weights.

    Shape:
        q (B, H, L, D), k (B, H, S, D), v (B, H, S, Dv); bias broadcastable to (B, H, L, S); mask likewise, True = may
        attend.
        Returns the output (B, H, L, Dv) and the weights (B, H, L, S). A query that may attend to nothing gets weights
        and output 0.
    Reference:
        Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1.
    Complexity:
        O(L S D) time, O(L S) memory.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    logits = q @ k.transpose(-2, -1) * scale
    if bias is not None:
        logits = logits + bias
    weights = masked_softmax(logits, mask)
    return weights @ v, weights


def masked_softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis where `mask` is True; a row with no True gives zeros, not NaN."""
    if mask is None:
        return logits.softmax(-1)
    # The lowest finite number instead of -inf: a fully masked row stays finite, also in the backward pass.
    weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(-1)
    return weights * mask.any(-1, keepdim=True)


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """(L, S) True where query i may see key j. The last query sees the last key (as cached decoding needs)."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale * Q K^T + bias) V by the fused kernel.

    Shape:
        As `plain_attention`; returns (B, H, L, Dv). With `causal`, query i of L sees keys 0 .. S - L + i
        (bottom-right aligned; torch's own `is_causal` aligns top-left, which is wrong when the keys hold a past).
    Deviations:
        Dv != D is zero-padded to one width (exact), because the fused CPU kernel takes a single width.
    Complexity:
        O(L S D) time; memory O(L D) when no bias or mask is given, else what they hold.
    """
    queries, keys, width, value_width = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
    scale = 1 / math.sqrt(width) if scale is None else scale
    if width < value_width:
        q, k = F.pad(q, (0, value_width - width)), F.pad(k, (0, value_width - width))
    elif value_width < width:
        v = F.pad(v, (0, width - value_width))
    if causal and (queries != keys or bias is not None or mask is not None):
        triangle = causal_mask(queries, keys, q.device)
        mask = triangle if mask is None else mask & triangle
        causal = False
    additive = bias
    if mask is not None:
        closed = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(
            ~mask, torch.finfo(q.dtype).min / 2
        )
        additive = closed if bias is None else bias + closed
    if additive is not None:
        additive = additive.expand(*q.shape[:-2], queries, keys)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=additive, is_causal=causal, scale=scale)
    if mask is not None:
        out = out * mask.any(-1, keepdim=True)
    return out[..., :value_width]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, H D) -> (B, H, L, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, L, D) -> (B, L, H D)."""
    return x.transpose(1, 2).flatten(2)
