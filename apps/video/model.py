"""The two models that are trained: a spatio-temporal block on frozen features, and two-stage slots.

House notation: B clips, T frames, h and w cells, C channels, L = T h w tokens, K semantics, M instances.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention.slot import Stages, TwoStageSlots
from shared.attention.spatio_temporal import SpatioTemporalBlock


class Standardise(nn.Module):
    """(x - mean) / deviation of each channel; both are those of the training frames, kept with the weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def fit(self, tokens: Tensor) -> None:
        """tokens (N, C)."""
        self.mean.copy_(tokens.mean(0))
        self.deviation.copy_(tokens.std(0).clamp_min(1e-4))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class TemporalModel(nn.Module):
    """A spatio-temporal block on the standardised keys and class tokens of several frames.

    Shape:
        keys (B, T, h, w, C), cls (B, T, C) -> tokens (B, L, C), and attention between patches (B, L, L), the mean
        over heads, whose rows are normalised after the class tokens are left out.
    Reference:
        Ding et al. 2024, Betrayed by Attention (SSL-UVOS), arXiv 2311.17893.
    Deviations:
        Features are standardised by channel. Queries and keys start as the same projection, so that attention begins
        as likeness; the released code starts at random and trains for longer.
    Complexity:
        That of `SpatioTemporalBlock`.
    """

    def __init__(self, dim: int, heads: int = 8, ratio: int = 4, *, sharpness: float = 4.0) -> None:
        super().__init__()
        self.enter = Standardise(dim)
        self.block = SpatioTemporalBlock(dim, heads, ratio)
        with torch.no_grad():
            # Of normalised tokens, q . k / sqrt(D) is then about sharpness * sqrt(D) * cosine.
            start = torch.eye(dim) * sharpness**0.5
            self.block.qkv.weight[:dim], self.block.qkv.weight[dim : 2 * dim] = start, start
            self.block.qkv.bias.zero_()

    def forward(self, keys: Tensor, cls: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.enter(keys).flatten(1, 3)
        tokens, rows = self.block.with_rows(torch.cat([patches, self.enter(cls)], 1))
        count = patches.shape[1]
        rows = rows[:, :count, :count]
        return tokens[:, :count], rows / rows.sum(-1, keepdim=True).clamp_min(1e-8)

    def signatures(self, keys: Tensor, context: Tensor) -> Tensor:
        """Where tokens look in the frames of `context`: (N, C) and (S, C) -> (N, S), rows that sum to one."""
        return self.block.rows(self.enter(keys)[None], self.enter(context)[None])[0]


class SlotModel(nn.Module):
    """Two-stage slots on keys and on how they correspond to the previous frame.

    x = W LN(keys) + conv(correlation), where the correlation of a cell has its cosines with the cells of the previous
    frame up to `reach` away.

    Shape:
        keys (B, h, w, C), previous (B, h, w, C) -> tokens (B, h w, width) and `Stages`.
    Reference:
        Qian et al. 2023, Semantics Meets Temporal Correspondence (SMTC), arXiv 2308.09951.
    Deviations:
        The correlation is local, so that its channels do not depend on the size of the frame. Features are frozen and
        standardised.
    Complexity:
        O(h w ((2 reach + 1)^2 C + iterations K M width)) a frame.
    """

    def __init__(
        self,
        dim: int,
        width: int = 64,
        semantics: int = 16,
        instances: int = 4,
        iterations: int = 3,
        reach: int = 4,
    ) -> None:
        super().__init__()
        self.reach = reach
        self.enter = Standardise(dim)
        self.project = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
        self.correspond = nn.Sequential(
            nn.Conv2d((2 * reach + 1) ** 2, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 1)
        )
        self.slots = TwoStageSlots(width, semantics, instances, iterations)

    def tokens(self, keys: Tensor, previous: Tensor) -> Tensor:
        keys, previous = self.enter(keys), self.enter(previous)
        moved = self.correspond(local_correlation(keys, previous, self.reach))
        return self.project(keys).flatten(1, 2) + moved.flatten(2).transpose(1, 2)

    def forward(self, keys: Tensor, previous: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Stages]:
        tokens = self.tokens(keys, previous)
        return tokens, self.slots.stages(tokens, noise)


def local_correlation(keys: Tensor, previous: Tensor, reach: int) -> Tensor:
    """Cosines of each cell with those up to `reach` away in another frame, (B, h, w, C) both.

    Returns (B, (2 reach + 1)^2, h, w), 0 beyond the frame. One shift at a time, so that memory is O(h w) a shift.
    """
    a, b = F.normalize(keys, dim=-1), F.normalize(previous, dim=-1)
    h, w = a.shape[1:3]
    padded = F.pad(b, (0, 0, reach, reach, reach, reach))
    size = 2 * reach + 1
    shifts = [(a * padded[:, dy : dy + h, dx : dx + w]).sum(-1) for dy in range(size) for dx in range(size)]
    return torch.stack(shifts, 1)


def build(kind: str, architecture: dict) -> TemporalModel | SlotModel:
    """The model of a card."""
    return (TemporalModel if kind == "attention" else SlotModel)(**architecture)
