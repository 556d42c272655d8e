"""L-queries: self-attention that asks with the mean of the last few positions, in several branches side by side.

This is not the multi-query attention of Shazeer 2019, where many queries share one key and value head: here each branch
asks with a query of its own reach, and the branches' outputs are mixed.

House notation: B batch, H heads, L queries, S keys, D head width.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention.dropout import ByteDropout
from shared.attention.functional import attend, causal_mask, masked_softmax, merge_heads, plain_attention, split_heads
from shared.attention.record import capture, recording
from shared.attention.registry import Mechanism, register


def same_segment(keep: Tensor, back: int) -> Tensor:
    """(B, L) whether the position `back` before each is open and of the same segment."""
    if back == 0:
        return keep > 0
    earlier = F.pad(keep[:, :-back], (back, 0))
    return (earlier == keep) & (keep > 0)


def window_mean(x: Tensor, window: int, keep: Tensor | None = None) -> Tensor:
    """The mean of the open positions among the last `window`, up to and with each position; 0 where none is open.

    Shape:
        x (B, L, C), keep (B, L) as `LQueryBlock` takes it -> (B, L, C).
    """
    keep = torch.ones(x.shape[:2], dtype=torch.int64, device=x.device) if keep is None else keep.long()
    total, count = torch.zeros_like(x), x.new_zeros(x.shape[:2])
    for back in range(min(window, x.shape[1])):
        within = same_segment(keep, back).to(x.dtype)
        total = total + (F.pad(x[:, :-back], (0, 0, back, 0)) if back else x) * within[..., None]
        count = count + within
    # The position itself may be closed and one before it open, among bools; it then has no mean to ask with.
    return total / count.clamp(min=1)[..., None]


class LQueryAttention(nn.Module):
    """Causal attention of given queries over the positions up to their own.

    softmax(Q K^T / sqrt(D)) V with Q = query W_Q + b_Q, K = x W_K, V = x W_V + b_V; heads side by side, then W_O.

    Shape:
        query (B, L, dim), x (B, S, dim) -> (B, L, dim); the last query stands at the last key. `keep` (B, S): False
        closes a key, integers part a row as in `LQueryBlock`. Recorded map: (B, H, L, S).
    Reference:
        Zhu et al. 2024, arXiv 2311.01056, section 3.2; Vaswani et al. 2017, arXiv 1706.03762.
    Deviations:
        No bias in K: it adds the same to every logit of a row, which softmax takes away again (exact).
    Complexity:
        O(L S D) time a head; O(L S) memory in training with dropout, O(L D) otherwise.
    """

    def __init__(self, dim: int, heads: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = ByteDropout(dropout)

    def forward(self, query: Tensor, x: Tensor, keep: Tensor | None = None) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in (self.q(query), self.k(x), self.v(x)))
        mask = causal_mask(q.shape[-2], k.shape[-2], x.device)
        if keep is not None:
            asking = keep[:, -q.shape[-2] :]
            mask = mask & ((keep[:, None, :] == asking[..., None]) & (keep[:, None, :] > 0))[:, None]
        if recording() or (self.training and self.dropout.p > 0):
            weights = masked_softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), mask)
            capture(self, weights)
            out = self.dropout(weights) @ v
        else:
            out = attend(q, k, v, mask=mask)
        return self.out(merge_heads(out))


class LQueryBlock(nn.Module):
    """One block whose query is the mean of the last `window` positions; with window 1 a block of SASRec.

    q = LN(mean(x[t - window + 1 .. t])); y = LN(q + attention(q, x, x)); out = LN(y + W_2 relu(W_1 y + b_1) + b_2).

    Shape:
        x (B, L, dim) -> (B, L, dim), or (B, 1, dim) with `last`: the output at the last position alone, for less work.
        `keep` (B, L): False closes a key, takes the position out of the means, and makes its own output 0. Integers
        from 1 part a row into segments that see nothing of each other, so that many short sequences fill one row.
        Recorded map (of `attention`): (B, H, L, S).
    Reference:
        Zhu et al. 2024, arXiv 2311.01056, section 3.2 (the L-query); Kang and McAuley 2018, SASRec, arXiv 1808.09781.
    Deviations:
        The mean is over the open ones among the last `window` positions, which with padding on the left are the last
        `window` real items.
    Complexity:
        O(L S D) time a head, and O(window L dim) for the means.
    """

    def __init__(self, dim: int, heads: int = 1, window: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"a window holds at least one position, not {window}")
        self.window = window
        self.norm_query = nn.LayerNorm(dim, eps=1e-8)
        self.attention = LQueryAttention(dim, heads, dropout)
        self.norm = nn.LayerNorm(dim, eps=1e-8)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, dim), ByteDropout(dropout), nn.ReLU(), nn.Linear(dim, dim), ByteDropout(dropout)
        )
        self.norm_out = nn.LayerNorm(dim, eps=1e-8)

    def forward(self, x: Tensor, keep: Tensor | None = None, last: bool = False) -> Tensor:
        if last:
            tail = None if keep is None else keep[:, -self.window :]
            mean = window_mean(x[:, -self.window :], self.window, tail)[:, -1:]
        else:
            mean = window_mean(x, self.window, keep)
        query = self.norm_query(mean)
        y = self.norm(query + self.attention(query, x, keep))
        out = self.norm_out(y + self.feed_forward(y))
        if keep is not None:
            out = out * ((keep[:, -1:] if last else keep) > 0)[..., None]
        return out


class MultiLQuery(nn.Module):
    """Several L-query blocks on the same input, mixed: out = sum_i weights_i block_i(x), one block for each window.

    Shape:
        As `LQueryBlock`. Recorded maps: (B, H, L, S) of each branch, `branches.i.attention`.
    Reference:
        Zhu et al. 2024, MQSA-TED, arXiv 2311.01056, section 3.2: windows (1, L) and weights (alpha, 1 - alpha).
    Deviations:
        Any list of windows and weights. The vectors are mixed, not the scores: the same, as scores are linear in them.
    Complexity:
        That of its blocks; one product with the items whatever the number of branches.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        windows: Sequence[int] = (1, 3),
        weights: Sequence[float] = (0.5, 0.5),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(windows) != len(weights) or not windows:
            raise ValueError(f"{len(windows)} windows need as many weights, at least one, not {len(weights)}")
        self.weights = [float(weight) for weight in weights]
        self.branches = nn.ModuleList(LQueryBlock(dim, heads, window, dropout) for window in windows)

    def outputs(self, x: Tensor, keep: Tensor | None = None, last: bool = False) -> list[Tensor]:
        """What each branch adds to the mix: weights_i block_i(x)."""
        return [w * branch(x, keep, last) for w, branch in zip(self.weights, self.branches, strict=True)]

    def forward(self, x: Tensor, keep: Tensor | None = None, last: bool = False) -> Tensor:
        first, *others = self.outputs(x, keep, last)
        return sum(others, first)


def plain_l_query(module: LQueryBlock, x: Tensor, keep: Tensor | None = None) -> Tensor:
    """`LQueryBlock` written plainly from its equation, position by position: the reference of its tests."""
    keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if keep is None else keep
    rows = []
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            if not keep[b, t]:
                rows.append(x.new_zeros(x.shape[-1]))
                continue
            first = max(0, t - module.window + 1)
            query = module.norm_query(x[b, first : t + 1][keep[b, first : t + 1]].mean(0))
            past, att = x[b, : t + 1], module.attention
            q, k, v = (part.unflatten(-1, (att.heads, -1)) for part in (att.q(query), att.k(past), att.v(past)))
            heads, _ = plain_attention(
                q[None, :, None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], mask=keep[b, : t + 1]
            )
            y = module.norm(query + att.out(heads.flatten()))
            inner = module.feed_forward[0](y).relu()
            rows.append(module.norm_out(y + module.feed_forward[3](inner)))
    return torch.stack(rows).view_as(x)


def plain_multi_l_query(module: MultiLQuery, x: Tensor, keep: Tensor | None = None) -> Tensor:
    """`MultiLQuery` from its plain blocks."""
    return torch.stack(
        [w * plain_l_query(branch, x, keep) for w, branch in zip(module.weights, module.branches, strict=True)]
    ).sum(0)


def _inputs(batch: int, length: int, dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"x": torch.randn(batch, length, dim, generator=generator, dtype=torch.float64)}


for _name, _build, _reference in (
    ("L-query", lambda dim, heads: LQueryBlock(dim, heads, window=3), plain_l_query),
    ("multi L-query", lambda dim, heads: MultiLQuery(dim, heads, (1, 3, 5), (0.5, 0.3, 0.2)), plain_multi_l_query),
):
    register(
        Mechanism(
            name=_name,
            build=_build,
            inputs=_inputs,
            reference=_reference,
            paper="Zhu et al. 2024, arXiv 2311.01056, section 3.2",
            causal=True,
            mask="keep",
        )
    )
