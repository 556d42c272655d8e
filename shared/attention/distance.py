"""The logits of relative distance and of other relations, and the skew that makes them cheap.

House notation: B batch, H heads, L queries, S keys, D head width, R the number of distances that have an embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def distance_window(queries: int, keys: int, first: int, reach: int, causal: bool) -> tuple[int, int, int, int]:
    """Which rows of a distance table a block of queries needs, and the zero columns to the left and right of them.

    The columns then hold the distances from the last query to the first key (left) up to the first query to the last
    key.
    """
    lowest = -(first + queries - 1)
    highest = 0 if causal else keys - 1 - first
    low, high = max(lowest, 1 - reach), min(highest, reach - 1)
    return low + reach - 1, high + reach, low - lowest, highest - high + max(0, keys - (highest - lowest))


def skew(qe: Tensor, keys: int) -> Tensor:
    """Turn columns that count distances into columns that count keys, by a view alone: row a moves left by L - 1 - a.

    Shape:
        qe (..., L, W) contiguous, W > keys -> a view (..., L, keys). Where a row would run past its end it shows
        values of the next row: those places must be masked (causal) or not exist.
    Reference:
        Huang et al. 2018, arXiv 1809.04281, section 3 (memory efficient implementation);
        the paper's L x L procedure is the case L = keys.
    """
    queries, width = qe.shape[-2:]
    flat = qe.flatten(-2)[..., queries - 1 : queries - 1 + queries * (width - 1)]
    return flat.unflatten(-1, (queries, width - 1))[..., :keys]


def relative_logits(q: Tensor, table: Tensor, keys: int, first: int, causal: bool) -> Tensor:
    """q_i . E[j - i] for queries at positions first .. first + L - 1 against keys 0 .. S - 1; zero beyond the table.

    Shape:
        q (B, H, L, D); table (H, R, D) with rows for the distances -R + 1 .. 0 when causal, (H, 2 R - 1, D) with rows
        for -R + 1 .. R - 1 otherwise; -> (B, H, L, S). When causal, places with j > i hold nothing meaningful.
    Reference:
        Huang et al. 2018, arXiv 1809.04281, section 3 (relative positional self-attention, memory efficient).
    Complexity:
        O(L S D) time, O(L S) memory: never the (L, S, D) tensor of Shaw et al. 2018.
    """
    queries = q.shape[-2]
    reach = table.shape[1] if causal else (table.shape[1] + 1) // 2
    low, high, left, right = distance_window(queries, keys, first, reach, causal)
    qe = F.pad(q @ table[:, low:high].transpose(-2, -1), (left, right))
    return skew(qe, keys)


def relation_rows(query_at: Tensor, key_at: Tensor, reach: int) -> Tensor:
    """(B, L), (B, S) -> (B, 1, L, S): the column 1 .. 2 R - 1 of each coordinate difference, 0 and 2 R for those
    beyond."""
    return (key_at[:, None, :] - (query_at - reach)[:, :, None]).clamp_(0, 2 * reach)[:, None]


def relation_logits(q: Tensor, table: Tensor, query_at: Tensor, key_at: Tensor) -> Tensor:
    """q_i . R[c_j - c_i] for integer coordinates c (time step, pitch, ...); zero beyond the table.

    Shape:
        q (B, H, L, D); table (H, 2 R - 1, D), rows for the differences -R + 1 .. R - 1; query_at (B, L), key_at (B, S);
        -> (B, H, L, S).
    Reference:
        Huang et al. 2018, arXiv 1809.04281, section 4 (relative pitch and time on JSB).
    """
    columns = relation_rows(query_at, key_at, (table.shape[1] + 1) // 2).expand(-1, q.shape[1], -1, -1)
    return F.pad(q @ table.transpose(-2, -1), (1, 1)).gather(-1, columns)


def shaw_logits(q: Tensor, table: Tensor, keys: int, causal: bool) -> Tensor:
    """The same logits by way of the (L, S, D) tensor of every pair's embedding; for tests and the benchmark.

    Shape: q (B, H, L, D) with L = keys; table as in `relative_logits`; -> (B, H, L, S), places beyond the table zero.
    Reference: Shaw et al. 2018, arXiv 1803.02155, section 3.2.
    Complexity: O(L S D) memory a head, which is what the skew avoids.
    """
    reach = table.shape[1] if causal else (table.shape[1] + 1) // 2
    position = torch.arange(keys, device=q.device)
    distance = position - position[:, None]
    inside = (distance.abs() < reach) & ((distance <= 0) | (not causal))
    pairs = table[:, (distance + reach - 1).clamp(0, table.shape[1] - 1)] * inside[..., None]
    return torch.einsum("bhld,hlsd->bhls", q, pairs)
