"""Ranks of held-out items among all items, and the metrics that are made of them.

Where other items score exactly as much as the target, its rank is not one number: metrics are then their mean over all
orders of the tied items.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

CUTOFFS = (5, 10, 20)


def count_ranks(scores: Tensor, targets: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How many items stand above the target, and how many others beside it (ties).

    Shape:
        scores (B, N), targets (B,) items from 1; seen (B, L) items from 1 with 0 as padding: left out of the ranking,
        repeated or not, but for the target itself. Returns (B,), (B,) int64.
    """
    own = scores.gather(1, targets[:, None] - 1)
    # In place on floats: a sum of bools takes ten times as long. The target ties with itself.
    above = scores.clone().gt_(own).sum(1).long()
    beside = scores.clone().ge_(own).sum(1).long() - above - 1
    if seen is not None and seen.shape[1]:
        distinct = seen.sort(1).values
        counted = distinct > 0
        counted[:, 1:] &= distinct[:, 1:] != distinct[:, :-1]
        counted &= distinct != targets[:, None]
        known = scores.gather(1, (distinct - 1).clamp(min=0))
        above = above - ((known > own) & counted).sum(1)
        beside = beside - ((known == own) & counted).sum(1)
    return above, beside


def _gains(longest: int) -> dict[str, np.ndarray]:
    """For each metric what a target at rank r = 1, 2, ... is worth."""
    rank = np.arange(1, longest + 1)
    table = {}
    for k in CUTOFFS:
        inside = rank <= k
        table[f"hr@{k}"] = inside.astype(float)
        table[f"ndcg@{k}"] = inside / np.log2(rank + 1)
        table[f"mrr@{k}"] = inside / rank
    return table


def metrics_of(above: np.ndarray, beside: np.ndarray) -> dict[str, np.ndarray]:
    """HR, NDCG and MRR at 5, 10 and 20 for each user, the mean over all orders of tied items: (n,) each.

    With one relevant item, NDCG is 1 / log2(rank + 1) and MRR 1 / rank, 0 beyond the cutoff.
    """
    above, beside = np.asarray(above), np.asarray(beside)
    longest = int((above + beside).max(initial=0)) + 2
    result = {}
    for name, gain in _gains(longest).items():
        total = np.concatenate([[0.0], np.cumsum(gain)])
        result[name] = (total[above + beside + 1] - total[above]) / (beside + 1)
    return result


def means(metrics: dict[str, np.ndarray], rows: Sequence[int] | np.ndarray | None = None) -> dict[str, float]:
    """The mean of each metric, over `rows` where given."""
    return {name: float((values if rows is None else values[rows]).mean()) for name, values in metrics.items()}


def top_k(scores: Tensor, k: int, block: int = 64) -> tuple[Tensor, Tensor]:
    """The k best columns of each row, exactly, faster than torch.topk on long rows.

    The k best lie in the k blocks with the highest maxima: those are found in one pass, the rest is never sorted.

    Shape:
        scores (B, N) -> values (B, k), columns (B, k), best first, k <= N.
    Complexity:
        O(N) a row with a small constant; O(k block log k) for the sort.
    """
    width = scores.shape[1]
    blocks = width // block
    if blocks <= 2 * k:
        return scores.topk(k, 1)
    head = scores[:, : blocks * block].unflatten(1, (blocks, block))
    chosen = head.amax(2).topk(k, 1).indices  # (B, k)
    columns = (chosen[..., None] * block + torch.arange(block, device=scores.device)).flatten(1)
    tail = torch.arange(blocks * block, width, device=scores.device).expand(len(scores), -1)
    columns = torch.cat([columns, tail], 1)
    values, at = scores.gather(1, columns).topk(k, 1)
    return values, columns.gather(1, at)
