"""The boundary-matching layer: features of every proposal, sampled along the recording.

House notation: B batch, T snippets, D longest proposal in snippets, N sample bins of a proposal, P valid proposals,
C channels in, H channels out. Proposal (d, t) is the time [t, t + d + 1), valid where it ends by T.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXTENSION = 0.5  # of a proposal's length, at either end
POINTS = 3  # sample points in a bin


class Samples(NamedTuple):
    """A sparse matrix (rows, columns) by rows, as `embedding_bag` takes it."""

    index: Tensor  # (taps,) columns
    offsets: Tensor  # (rows,) where each row's taps begin
    weight: Tensor  # (taps,)


def valid_proposals(snippets: int, longest: int, end: int | None = None) -> np.ndarray:
    """(D, T) True where proposal (d, t) ends by snippet `end`; left out: by T."""
    return np.arange(1, longest + 1)[:, None] + np.arange(snippets) <= (snippets if end is None else end)


@lru_cache(maxsize=16)
def sample_matrix(snippets: int, longest: int, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sampling weights as coordinates: row p of P, column n * T + t, weight; sorted by row, then by column.

    A proposal, longer by `EXTENSION` of its length at either end, is sampled at `POINTS` places for each of its N bins.
    A place between the middles of two snippets is interpolated linearly; what lies outside the recording is dropped.
    """
    d, t = np.nonzero(valid_proposals(snippets, longest))
    length = d + 1.0
    first, span = t - EXTENSION * length, (1 + 2 * EXTENSION) * length
    places = first[:, None] + span[:, None] * np.linspace(0, 1, bins * POINTS) - 0.5  # snippet i's middle is i + 0.5
    low = np.floor(places)
    rows = np.broadcast_to(np.arange(len(d))[:, None], places.shape)
    n = np.broadcast_to(np.arange(bins * POINTS) // POINTS, places.shape)
    parts = []
    for at, weight in ((low, low + 1 - places), (low + 1, places - low)):
        inside = (at >= 0) & (at < snippets) & (weight > 0)
        key = (rows[inside] * bins + n[inside]) * snippets + at[inside].astype(np.int64)
        parts.append((key, weight[inside] / POINTS))
    keys, place = np.unique(np.concatenate([key for key, _ in parts]), return_inverse=True)
    weights = np.bincount(place, np.concatenate([weight for _, weight in parts]), len(keys))
    row, column = np.divmod(keys, bins * snippets)
    return row, column, weights


@lru_cache(maxsize=16)
def _samples(snippets: int, longest: int, bins: int, transposed: bool, dtype: torch.dtype) -> Samples:
    row, column, weight = sample_matrix(snippets, longest, bins)
    rows = int(valid_proposals(snippets, longest).sum())
    if transposed:
        order = np.argsort(column, kind="stable")
        row, column, weight, rows = column[order], row[order], weight[order], bins * snippets
    offsets = np.searchsorted(row, np.arange(rows))
    return Samples(
        torch.from_numpy(column.astype(np.int32)),
        torch.from_numpy(offsets.astype(np.int32)),
        torch.from_numpy(weight).to(dtype),
    )


class _Sampled(torch.autograd.Function):
    """M x for the sparse sampling matrix M, by `embedding_bag`; the gradient is the same with M transposed."""

    @staticmethod
    def forward(ctx, x: Tensor, snippets: int, longest: int, bins: int) -> Tensor:  # pyright: ignore
        ctx.sizes = (snippets, longest, bins)
        return _bag(x, snippets, longest, bins, transposed=False)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # pyright: ignore
        return _bag(gradient.contiguous(), *ctx.sizes, transposed=True), None, None, None


def _bag(x: Tensor, snippets: int, longest: int, bins: int, *, transposed: bool) -> Tensor:
    # Halves have no kernel of this on every device, and 96 of them would be summed coarsely.
    wide = x if x.dtype == torch.float64 else x.float()
    samples = _samples(snippets, longest, bins, transposed, wide.dtype)
    index, offsets, weight = (part.to(x.device) for part in samples)
    return F.embedding_bag(index, wide, offsets, mode="sum", per_sample_weights=weight).to(x.dtype)


class BoundaryMatching(nn.Module):
    """A feature of every proposal: N bins sampled along it, and a convolution over the bins.

    y[:, d, t] = b + sum_n W_n sum_s M[(d, t), n, s] x[:, s], where row (d, t) of M interpolates the recording at N bins
    of 3 points over the proposal, half its length longer at either end.

    Shape:
        x (B, T, C) -> (B, D, T, H) with D = min(longest, T); 0 where a proposal would end after T.
    Reference:
        Lin et al. 2019, BMN, arXiv 1907.09702, section 3.2 (boundary-matching layer) and 4 (N = 32).
    Deviations:
        The convolution over the bins comes first, since it is linear: C -> N H channels at T places, then one sparse
        matrix (P, N T). The numbers are those of the dense form (`dense_boundary_matching`), which the authors' code
        has. Time is continuous and a snippet lies at its middle (theirs: at its index, and places just before the
        beginning are counted there); proposals that end with the last snippet are valid.
    Complexity:
        O(T N C H + taps H) time with taps < 2 * 3 N P; memory O(N T H + P H) and 12 bytes a tap. Dense: O(N T P C)
        time, and 4 N T P bytes for M alone.
    """

    def __init__(self, dim: int, hidden: int, longest: int, bins: int = 32) -> None:
        super().__init__()
        self.longest, self.bins = longest, bins
        self.weight = nn.Parameter(torch.empty(bins, hidden, dim))
        self.bias = nn.Parameter(torch.zeros(hidden))
        nn.init.normal_(self.weight, std=(2 / (bins * dim)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return spread(self.of_valid(x), x.shape[1], min(self.longest, x.shape[1]))

    def of_valid(self, x: Tensor) -> Tensor:
        """The features of the valid proposals alone, in the order of the rows of M: (P, B, H)."""
        batch, snippets, dim = x.shape
        hidden = len(self.bias)
        # The batch lies beside the channels, so that one matrix serves all of it.
        table = (x @ self.weight.view(-1, dim).T).view(batch, snippets, self.bins, hidden)
        table = table.permute(2, 1, 0, 3).reshape(self.bins * snippets, batch * hidden)
        features = _Sampled.apply(table, snippets, min(self.longest, snippets), self.bins)
        return features.view(-1, batch, hidden) + self.bias


def spread(features: Tensor, snippets: int, longest: int) -> Tensor:
    """(P, B, H), a row for each valid proposal, as maps (B, D, T, H); 0 where there is none."""
    _, batch, hidden = features.shape
    at = torch.from_numpy(np.flatnonzero(valid_proposals(snippets, longest))).to(features.device)
    maps = features.new_zeros(batch, longest * snippets, hidden).index_copy(1, at, features.transpose(0, 1))
    return maps.view(batch, longest, snippets, hidden)


def dense_boundary_matching(module: BoundaryMatching, x: Tensor) -> Tensor:
    """`BoundaryMatching` as the paper writes it: sample first, by a dense (T, N, D, T) mask, then convolve."""
    snippets = x.shape[1]
    longest = min(module.longest, snippets)
    mask = dense_mask(snippets, longest, module.bins).to(x)
    sampled = torch.einsum("bsc,sndt->bcndt", x, mask)
    out = torch.einsum("bcndt,nhc->bdth", sampled, module.weight) + module.bias
    return out * torch.from_numpy(valid_proposals(snippets, longest)).to(x.device)[None, :, :, None]


@lru_cache(maxsize=2)
def dense_mask(snippets: int, longest: int, bins: int) -> Tensor:
    """(T, N, D, T) float64: the weight of snippet s in bin n of proposal (d, t), written plainly."""
    mask = np.zeros((snippets, bins, longest, snippets))
    for d in range(longest):
        for t in range(snippets - d):
            length = d + 1
            places = np.linspace(t - EXTENSION * length, t + (1 + EXTENSION) * length, bins * POINTS)
            for k, place in enumerate(places - 0.5):
                low = int(np.floor(place))
                for at, weight in ((low, low + 1 - place), (low + 1, place - low)):
                    if 0 <= at < snippets:
                        mask[at, k // POINTS, d, t] += weight / POINTS
    return torch.from_numpy(mask)
