"""Relative attention for training: blocks of queries, forward and backward, with no map kept between the two.

Autograd over the plain form keeps a dozen (B, H, L, S) tensors and is bound by memory traffic. Here each block's
weights are made, used, and made again in the backward pass, in buffers that fit a cache.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from shared.attention.distance import distance_window, relation_rows, skew

CACHE_NUMBERS = 1 << 19  # numbers of a block's weights at once on a CPU: 2 MB in float32


def blocked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor | None,
    *,
    causal: bool,
    block: int = 256,
    keep: Tensor | None = None,
    relations: list[tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """softmax(Q K^T + S_rel) V for L = S, differentiable once; q comes scaled.

    Shape:
        q, k, v (B, H, L, D); table as in `RelativeAttention` or None; keep (B, L), False closes a key; relations:
        pairs of q R^T (B, H, L, 2 R - 1) and coordinates (B, L). Returns (B, H, L, D); a query with no open key gets 0.
    Complexity:
        O(L^2 D) time, O(L D + L R) memory beside one block.
    """
    flat = [tensor for pair in relations or [] for tensor in pair]
    return _Blocked.apply(q, k, v, None if table is None else table.to(q.dtype), keep, causal, block, *flat)  # type: ignore[return-value]


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, table, keep, causal, block, *relations):
        out = torch.empty_like(v)
        for at, rows, end in _blocks(q, causal, block):
            weights = _weights(q, k, table, keep, causal, relations, at, rows, end)
            out[at, :, rows] = weights @ v[at, :, :end]
        ctx.save_for_backward(q, k, v, table, keep, out, *relations)
        ctx.causal, ctx.block = causal, block
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, table, keep, out, *relations = ctx.saved_tensors
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        dtable = None if table is None else torch.zeros_like(table)
        drelations = [torch.zeros_like(t) if i % 2 == 0 else None for i, t in enumerate(relations)]
        # Of the softmax: dS = P (dP - sum of P dP), and the sum is that of dO O.
        dot = (grad * out).sum(-1, keepdim=True)
        for at, rows, end in _blocks(q, ctx.causal, ctx.block):
            weights = _weights(q, k, table, keep, ctx.causal, relations, at, rows, end)
            dout = grad[at, :, rows]
            dv[at, :, :end] += weights.transpose(-2, -1) @ dout
            ds = (dout @ v[at, :, :end].transpose(-2, -1)).sub_(dot[at, :, rows]).mul_(weights)
            query = q[at, :, rows]
            dq[at, :, rows] += ds @ k[at, :, :end]
            dk[at, :, :end] += ds.transpose(-2, -1) @ query
            if table is not None and dtable is not None:
                low, high, left, right = distance_window(
                    ds.shape[-2], end, rows.start, _reach(table, ctx.causal), ctx.causal
                )
                dqe = ds.new_zeros(*ds.shape[:-1], left + high - low + right)
                skew(dqe, end).copy_(ds)
                dqe = dqe[..., left : left + high - low]
                dq[at, :, rows] += dqe @ table[:, low:high]
                dtable[:, low:high] += torch.einsum("bhlr,bhld->hrd", dqe, query)
            for i in range(0, len(relations), 2):
                drelation = drelations[i]
                assert drelation is not None
                columns = _columns(relations[i], relations[i + 1], at, rows, end, q.shape[1])
                padded = ds.new_zeros(*ds.shape[:-1], relations[i].shape[-1] + 2).scatter_add_(-1, columns, ds)
                drelation[at, :, rows] = padded[..., 1:-1]
        return (dq, dk, dv, dtable, None, None, None, *drelations)


def _blocks(q: Tensor, causal: bool, block: int) -> Iterator[tuple[slice, slice, int]]:
    """(slice of the batch, slice of queries, end of the keys they see), so that a block's weights fit a CPU's cache."""
    batch, heads, length = q.shape[:3]
    for start in range(0, length, block):
        stop = min(start + block, length)
        end = stop if causal else length
        together = batch if q.is_cuda else max(1, CACHE_NUMBERS // (heads * (stop - start) * end))
        for first in range(0, batch, together):
            yield slice(first, min(first + together, batch)), slice(start, stop), end


def _weights(q, k, table, keep, causal, relations, at: slice, rows: slice, end: int) -> Tensor:
    query = q[at, :, rows]
    logits = query @ k[at, :, :end].transpose(-2, -1)
    queries = query.shape[-2]
    if table is not None:
        low, high, left, right = distance_window(queries, end, rows.start, _reach(table, causal), causal)
        qe = F.pad(query @ table[:, low:high].transpose(-2, -1), (left, right))
        logits += skew(qe, end)
    for qr, coordinates in zip(relations[::2], relations[1::2], strict=True):
        columns = _columns(qr, coordinates, at, rows, end, q.shape[1])
        logits += F.pad(qr[at, :, rows], (1, 1)).gather(-1, columns)
    if causal:  # only the square at the end of a causal block has a triangle to close
        square = torch.ones(queries, queries, dtype=torch.bool, device=q.device).triu(1)
        logits[..., end - queries :].masked_fill_(square, float("-inf"))
    if keep is None:
        return logits.softmax(-1)
    closed = ~keep[at, None, None, :end]
    weights = logits.masked_fill_(closed, torch.finfo(q.dtype).min).softmax(-1)
    return weights.masked_fill_(closed, 0.0)


def _columns(qr: Tensor, coordinates: Tensor, at: slice, rows: slice, end: int, heads: int) -> Tensor:
    reach = (qr.shape[-1] + 1) // 2
    columns = relation_rows(coordinates[at, rows], coordinates[at, :end], reach)
    return columns.expand(-1, heads, -1, -1)


def _reach(table: Tensor, causal: bool) -> int:
    return table.shape[1] if causal else (table.shape[1] + 1) // 2
