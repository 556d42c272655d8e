"""Slot attention: tokens compete for slots. Plain, from shared Gaussians, and in two masked stages.

House notation: B batch, N tokens, C channels, K slots (or semantics), M instances of a semantic.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.attention.functional import plain_attention
from shared.attention.record import capture
from shared.attention.registry import Mechanism, register

TINY = 1e-8  # the least sum of a slot's weights, so that one that no token chose is 0 and not NaN


def compete(q: Tensor, k: Tensor, v: Tensor, open_: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """One round: softmax over slots of q k^T / sqrt(C), then each slot's mean of what it won.

    a = softmax_slots(Q K^T / sqrt(C)) * open;  w = a / sum_tokens a;  U = w V.

    Shape: q (..., K, C), k and v (..., N, C), open_ broadcastable to (..., K, N), between 0 and 1.
        Returns U (..., K, C), a (..., K, N) and w (..., K, N), whose rows sum to one, or to 0 where nothing is open.
    Reference: Locatello et al. 2020, arXiv 2006.15055, algorithm 1.
    Complexity: O(K N C).
    """
    a = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-2)
    if open_ is not None:
        a = a * open_
    w = a / a.sum(-1, keepdim=True).clamp_min(max(TINY, torch.finfo(a.dtype).tiny))
    return w @ v, a, w


def _opening(keep: Tensor | None, x: Tensor) -> Tensor | None:
    return None if keep is None else keep[:, None, :].to(x.dtype)


def _some(slots: Tensor, keep: Tensor | None) -> Tensor:
    """Slots of samples without an open token are 0."""
    return slots if keep is None else slots * keep.any(-1)[(..., *([None] * (slots.ndim - 1)))]


class SlotAttention(nn.Module):
    """Slots that all start from one learned Gaussian and are refined by a gated recurrent unit.

    q = W_q LN(s), k = W_k LN(x), v = W_v LN(x);  U = compete(q, k, v);  s <- GRU(U, s);  s <- s + MLP(LN(s)).

    Shape:
        x (B, N, C) -> slots (B, K, C). `noise` (B, K, C): where they start, standard normal; None: drawn anew.
        `keep` (B, N): False closes a token; a sample with none open gives slots 0. Recorded map: w (B, K, N).
    Reference:
        Locatello et al. 2020, Object-Centric Learning with Slot Attention, arXiv 2006.15055, section 2.1.
    Deviations:
        The weights over tokens are divided by their sum, and not by their sum plus an epsilon.
    Complexity:
        O(iterations K N C).
    """

    def __init__(self, dim: int, slots: int, iterations: int = 3, hidden: int | None = None) -> None:
        super().__init__()
        self.slots, self.iterations = slots, iterations
        self.mean = nn.Parameter(torch.randn(1, 1, dim) * dim**-0.5)
        self.log_sigma = nn.Parameter(torch.zeros(1, 1, dim) - 0.5)
        self.norm_x, self.norm_slots, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.gru = nn.GRUCell(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden or 2 * dim), nn.ReLU(), nn.Linear(hidden or 2 * dim, dim))

    def forward(self, x: Tensor, noise: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        return self.with_masks(x, noise, keep)[0]

    def with_masks(self, x: Tensor, noise: Tensor | None = None, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The slots (B, K, C) and which share of each token they won in the last round, a (B, K, N)."""
        if noise is None:
            noise = torch.randn(len(x), self.slots, x.shape[-1], dtype=x.dtype, device=x.device)
        slots = self.mean + self.log_sigma.exp() * noise
        inside = self.norm_x(x)
        k, v, opening = self.k(inside), self.v(inside), _opening(keep, x)
        masks = weights = x.new_zeros(len(x), slots.shape[1], x.shape[1])
        for _ in range(self.iterations):
            update, masks, weights = compete(self.q(self.norm_slots(slots)), k, v, opening)
            slots = self.gru(update.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            slots = slots + self.mlp(self.norm_mlp(slots))
        capture(self, weights)
        return _some(slots, keep), masks


class GaussianSlots(nn.Module):
    """Slots that each start from a learned Gaussian of their own, shared by all videos: slot k means the same in all.

    s_k = mu_k + sigma_k * noise (mu_k without noise);  s <- s + compete(W_q LN(s), W_k LN(x), W_v LN(x)).

    Shape:
        x (B, N, C) -> slots (B, K, C). `noise` (B, K, C), or None: start at the means. `keep` (B, N) as in
        `SlotAttention`. Recorded map: w (B, K, N).
    Reference:
        Qian et al. 2023, Semantics Meets Temporal Correspondence, arXiv 2308.09951, first stage.
    Deviations:
        The residual update has no MLP.
    Complexity:
        O(iterations K N C).
    """

    def __init__(self, dim: int, slots: int = 16, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations
        self.mean = nn.Parameter(torch.randn(slots, dim))
        self.log_sigma = nn.Parameter(torch.zeros(slots, dim) - 1)
        self.norm_x, self.norm_slots = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))

    def forward(self, x: Tensor, noise: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        return self.with_masks(x, noise, keep)[0]

    def sample(self, noise: Tensor) -> Tensor:
        """Reparameterised, so that mean and deviation get gradients: noise (..., K, C) -> slots of that shape."""
        return self.mean + self.log_sigma.exp() * noise

    def with_masks(self, x: Tensor, noise: Tensor | None = None, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The slots (B, K, C) and which share of each token they won in the last round, a (B, K, N)."""
        slots = self.mean.expand(len(x), -1, -1) if noise is None else self.sample(noise)
        slots, masks, weights = self.refine(slots, x, _opening(keep, x))
        capture(self, weights)
        return _some(slots, keep), masks

    def refine(self, slots: Tensor, x: Tensor, opening: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The rounds: slots (..., K, C) of tokens x (..., N, C), see `compete`."""
        inside = self.norm_x(x)
        k, v = self.k(inside), self.v(inside)
        masks = weights = x.new_zeros(*slots.shape[:-1], x.shape[-2])
        for _ in range(self.iterations):
            update, masks, weights = compete(self.q(self.norm_slots(slots)), k, v, opening)
            slots = slots + update
        return slots, masks, weights


@dataclass(frozen=True)
class Stages:
    """What the two stages found: slots, and which share of each token they hold."""

    semantics: Tensor  # (B, K, C)
    semantic_masks: Tensor  # (B, K, N), sums to one over K where a token is open
    instances: Tensor  # (B, K, M, C)
    instance_masks: Tensor  # (B, K, M, N), sums to one over K and M together


class TwoStageSlots(nn.Module):
    """First what a token is (shared Gaussians), then which of several it belongs to, inside each semantic's mask.

    Stage 1: s_k from its mean, a_k = the share of tokens it wins. Stage 2: s_km = mu_k + sigma_k * noise_km, M slots
    that compete with each other only, for tokens weighted by a_k.

    Shape:
        x (B, N, C) -> instance slots (B, K M, C); `stages` gives all of it. `noise` (B, M, K, C), standard normal;
        None: drawn anew. `keep` (B, N) as in `SlotAttention`. Recorded map: the second stage's w (B, K, M, N).
    Reference:
        Qian et al. 2023, Semantics Meets Temporal Correspondence, arXiv 2308.09951.
    Deviations:
        Both stages share the projections. Instances are drawn by mu + sigma * noise; `torch.normal` of a parameter, as
        in released code, would leave sigma without a gradient.
    Complexity:
        O(iterations K M N C).
    """

    def __init__(self, dim: int, semantics: int = 16, instances: int = 4, iterations: int = 3) -> None:
        super().__init__()
        self.instances = instances
        self.gaussians = GaussianSlots(dim, semantics, iterations)

    def forward(self, x: Tensor, noise: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        return self.stages(x, noise, keep).instances.flatten(1, 2)

    def stages(self, x: Tensor, noise: Tensor | None = None, keep: Tensor | None = None) -> Stages:
        slots, semantics = self.gaussians, self.gaussians.mean
        first, areas, _ = slots.refine(semantics.expand(len(x), -1, -1), x, _opening(keep, x))
        if noise is None:
            noise = torch.randn(len(x), self.instances, *semantics.shape, dtype=x.dtype, device=x.device)
        start = slots.sample(noise).transpose(1, 2)  # (B, K, M, C)
        second, masks, weights = slots.refine(start, x[:, None], areas[:, :, None])
        capture(self, weights)
        return Stages(_some(first, keep), areas, _some(second, keep), masks)


def _plain_round(q: Tensor, k: Tensor, v: Tensor, opening: Tensor) -> tuple[Tensor, Tensor]:
    """`compete` token by token: attention from tokens to slots, turned round and normalised by loops."""
    _, share = plain_attention(k, q, q)  # (B, 1, N, K)
    share = share.transpose(-2, -1) * opening
    rows = []
    for slot in range(share.shape[-2]):
        won = share[..., slot, :]
        mean = (won[..., None] * v).sum(-2) / won.sum(-1, keepdim=True).clamp_min(TINY)
        rows.append(mean)
    return torch.stack(rows, -2), share


def plain_slots(module: nn.Module, x: Tensor, noise: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
    """Each of the three, written plainly: the reference of its tests."""
    keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if keep is None else keep
    opening = keep[:, None, None, :].to(x.dtype)
    parts = module.gaussians if isinstance(module, TwoStageSlots) else module
    inside = parts.norm_x(x)
    k, v = parts.k(inside)[:, None], parts.v(inside)[:, None]

    def rounds(slots: Tensor, opening: Tensor) -> tuple[Tensor, Tensor]:
        share = opening
        for _ in range(parts.iterations):
            update, share = _plain_round(parts.q(parts.norm_slots(slots)), k, v, opening)
            if isinstance(parts, SlotAttention):
                slots = parts.gru(update.flatten(0, -2), slots.flatten(0, -2)).view_as(slots)
                slots = slots + parts.mlp(parts.norm_mlp(slots))
            else:
                slots = slots + update
        return slots, share

    if isinstance(module, TwoStageSlots):
        assert noise is not None
        _, areas = rounds(parts.mean.expand(len(x), 1, -1, -1), opening)
        found = []
        for semantic in range(len(parts.mean)):
            start = parts.mean[semantic] + parts.log_sigma[semantic].exp() * noise[:, :, semantic]
            found.append(rounds(start[:, None], areas[..., semantic : semantic + 1, :])[0][:, 0])
        out = torch.cat(found, 1)
    else:
        out = rounds((parts.mean + parts.log_sigma.exp() * noise)[:, None], opening)[0][:, 0]
    return out * keep.any(-1)[:, None, None]


def _inputs(shape: tuple[int, ...]):
    def inputs(batch: int, length: int, dim: int, generator: torch.Generator) -> dict:
        x = torch.randn(batch, length, dim, generator=generator, dtype=torch.float64)
        return {"x": x, "noise": torch.randn(batch, *shape, dim, generator=generator, dtype=torch.float64)}

    return inputs


for _name, _build, _shape, _paper in (
    ("slot", lambda dim, heads: SlotAttention(dim, 3), (3,), "Locatello et al. 2020, arXiv 2006.15055, section 2.1"),
    ("slot gaussian", lambda dim, heads: GaussianSlots(dim, 3), (3,), "Qian et al. 2023, arXiv 2308.09951"),
    ("slot two-stage", lambda dim, heads: TwoStageSlots(dim, 3, 2), (2, 3), "Qian et al. 2023, arXiv 2308.09951"),
):
    register(
        Mechanism(
            name=_name,
            build=_build,
            inputs=_inputs(_shape),
            reference=plain_slots,
            paper=_paper,
            mask="keep",
            pooled=True,
        )
    )
