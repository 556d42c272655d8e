"""Tokens that attend alike belong together: attention rows clustered by their divergence.

House notation: N tokens, S keys that rows look at, K clusters.
"""

import torch
from torch import Tensor

FLOOR = 1e-8  # of a probability: log 0 would make everything NaN


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Symmetric KL: p (N, S), q (K, S), rows that sum to one -> (N, K) of (KL(p | q) + KL(q | p)) / 2.

    KL(p | q) + KL(q | p) = p . log p + q . log q - p . log q - q . log p, so that two matrix products do for all pairs.
    Complexity: O(N K S) time, O((N + K) S + N K) memory; `plain_divergence` holds (N, K, S).
    """
    p, q = p.clamp_min(FLOOR), q.clamp_min(FLOOR)
    log_p, log_q = p.log(), q.log()
    own_p, own_q = (p * log_p).sum(-1), (q * log_q).sum(-1)
    return ((own_p[:, None] + own_q - p @ log_q.T - log_p @ q.T) / 2).clamp_min(0)


def plain_divergence(p: Tensor, q: Tensor) -> Tensor:
    """`divergence` as it stands in the definition: the reference of its tests and of the benchmark."""
    p, q = p.clamp_min(FLOOR)[:, None], q.clamp_min(FLOOR)[None]
    return ((p - q) * (p.log() - q.log())).sum(-1) / 2


def mean_shift(rows: Tensor, frames: Tensor, tau: float, window: int) -> Tensor:
    """One step: each row becomes the mean of those within `tau` of it, in the frames of its window.

    Shape: rows (N, S), frames (N,) the number of the frame of each -> (N, S).
    """
    moved = torch.empty_like(rows)
    reach = window // 2
    for frame in frames.unique().tolist():
        here = frames == frame
        near = (frames - frame).abs() <= reach
        close = (divergence(rows[here], rows[near]) < tau).to(rows.dtype)
        moved[here] = close @ rows[near] / close.sum(1, keepdim=True).clamp_min(1)
    return moved


def merge(rows: Tensor, sizes: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Greedy: the row with the most others within tau takes them into one; repeated on the means until none is near.

    Shape: rows (N, S) that stand for sizes (N,) tokens each -> centroids (K, S) and their sizes (K,).
    """
    while True:
        close = divergence(rows, rows) < tau
        close |= torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        centres, counts = [], []
        while bool(free.any()):
            weight = (close & free).float() @ sizes
            first = int(weight.masked_fill(~free, -1).argmax())
            taken = close[first] & free
            share = sizes[taken] / sizes[taken].sum()
            centres.append((rows[taken] * share[:, None]).sum(0))
            counts.append(sizes[taken].sum())
            free &= ~taken
        if len(centres) == len(rows):
            return rows, sizes
        rows, sizes = torch.stack(centres), torch.stack(counts)


def cluster(
    rows: Tensor,
    frames: Tensor,
    tau: float,
    window: int = 3,
    most: int = 20,
    least: int = 2,
    smallest: float = 0.005,
) -> tuple[Tensor, float]:
    """Attention rows (N, S) of several frames -> centroids (K, S) by size, and the tau that gave them.

    Mean shift in windows, then greedy merging, at a divergence of tau times the mean of all pairs. tau grows by a tenth
    until there are at most `most` clusters, and shrinks by a fifth until there are `least`; clusters with less than
    `smallest` of the tokens are left to the others.

    Reference:
        Ding et al. 2024, Betrayed by Attention, arXiv 2311.17893, on inference.
    Deviations:
        tau is relative to the rows at hand and adapts, where the released code's is a number, with which clusters grow
        into the hundreds or melt into one; small clusters are left out.
    """
    rows = rows / rows.sum(-1, keepdim=True).clamp_min(FLOOR)
    mean = float(divergence(rows, rows).mean()) + FLOOR

    def clusters(tau: float) -> tuple[Tensor, Tensor, Tensor]:
        moved = mean_shift(rows, frames, tau * mean, window)
        centres, sizes = merge(moved, torch.ones(len(rows), device=rows.device), tau * mean)
        return centres, sizes, sizes >= min(smallest * len(rows), float(sizes.max()))

    centres, sizes, enough = clusters(tau)
    while len(sizes) < min(least, len(rows)) and tau > 1e-3:
        tau *= 0.8
        centres, sizes, enough = clusters(tau)
    # Too many, or crumbs that are all too small to count.
    while int(enough.sum()) > most or int(enough.sum()) < least < len(sizes):
        tau *= 1.1
        centres, sizes = merge(centres, sizes, tau * mean)
        enough = sizes >= min(smallest * len(rows), float(sizes.max()))
    order = sizes[enough].argsort(descending=True, stable=True)
    return centres[enough][order], tau


def assign_rows(rows: Tensor, centres: Tensor, sharpness: float = 10.0) -> Tensor:
    """How much each row (N, S) belongs to each centroid (K, S): softmax of -sharpness * divergence, (N, K)."""
    rows = rows / rows.sum(-1, keepdim=True).clamp_min(FLOOR)
    return (-sharpness * divergence(rows, centres)).softmax(-1)
