"""Attention over feature maps: position, channel, and both in steps guided by a semantic encoder-decoder.

House notation: B batch, C channels, H and W the sides of a map, N = H W its positions.
"""

import math
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention.blocked import blocked_attention
from shared.attention.record import capture, recording
from shared.attention.registry import Mechanism, register


class PositionAttention(nn.Module):
    """Every position of a map gathers from all positions by likeness (PAM).

    s_ji = softmax_i(q_j . k_i),  out_j = gamma sum_i s_ji v_i + x_j, with q, k of C / reduction channels and v of C.

    Shape:
        x (B, C, H, W) -> (B, C, H, W). Recorded map: (B, N, N), its last axis the positions that are looked at.
    Reference:
        Sinha and Dolz 2020, Multi-scale self-guided attention, arXiv 1906.02849, section 3.2; after Fu et al. 2019,
        Dual Attention Network, arXiv 1809.02983.
    Deviations:
        None in the result. Logits are not scaled, as in both papers. The map is made in blocks of queries, and again
        for the gradients (`blocked_attention`); the fused kernel would need q and k padded to the width of v.
    Complexity:
        O(N^2 C) time, O(N C) memory; O(N^2) where the map is recorded.
    """

    def __init__(self, dim: int, *, reduction: int = 8) -> None:
        super().__init__()
        inner = max(1, dim // reduction)
        self.query = nn.Conv2d(dim, inner, 1)
        self.key = nn.Conv2d(dim, inner, 1)
        self.value = nn.Conv2d(dim, dim, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value))
        if recording():
            weights = (q @ k.transpose(1, 2)).softmax(-1)
            capture(self, weights)
            out = weights @ v
        else:
            out = blocked_attention(q[:, None], k[:, None], v[:, None], None, causal=False)[:, 0]
        return self.gamma * out.transpose(1, 2).unflatten(2, x.shape[2:]) + x

    def row(self, x: Tensor, position: tuple[int, int]) -> Tensor:
        """What one position looks at: (B, H, W), each sums to one; the map is not built.

        Raises IndexError for a position outside of it.
        """
        height, width = x.shape[2:]
        if not (0 <= position[0] < height and 0 <= position[1] < width):
            raise IndexError(f"position {position} lies outside of a map of {height} x {width}")
        query = self.query(x[:, :, position[0], position[1], None, None])[..., 0, 0]
        logits = torch.einsum("bc,bchw->bhw", query, self.key(x))
        return logits.flatten(1).softmax(-1).unflatten(1, (height, width))


class ChannelAttention(nn.Module):
    """Every channel of a map gathers from all channels by likeness (CAM).

    s_ji = softmax_i(x_j . x_i) over the N positions,  out_j = gamma sum_i s_ji x_i + x_j.

    Shape:
        x (B, C, H, W) -> (B, C, H, W). Recorded map: (B, C, C), its last axis the channels that are looked at.
    Reference:
        Sinha and Dolz 2020, arXiv 1906.02849, section 3.2.
    Deviations:
        None with `form="paper"`. With `form="released"`, the logits are max_i(e_ji) - e_ji as in the authors' code (and
        DANet's): a channel then gathers from those least like it.
    Complexity:
        O(N C^2) time, O(C^2) memory.
    """

    def __init__(self, form: Literal["paper", "released"] = "paper") -> None:
        super().__init__()
        self.released = form == "released"
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights(x)
        capture(self, weights)
        return self.gamma * (weights @ x.flatten(2)).view_as(x) + x

    def weights(self, x: Tensor) -> Tensor:
        """(B, C, C) what each channel looks at; rows sum to one."""
        energy = inner_products(x, x)
        if self.released:
            energy = energy.amax(-1, keepdim=True) - energy
        return energy.softmax(-1).to(x.dtype)


class SemanticCoder(nn.Module):
    """An encoder-decoder over a map, whose code carries what the map means and whose decoding guides the attention.

    code = E(x),  decoded = D(code); two halvings there, two doublings back.

    Shape:
        x (B, C, H, W) -> code (B, code, ceil(H / 4), ceil(W / 4)), decoded (B, C, H, W).
    Reference:
        Sinha and Dolz 2020, arXiv 1906.02849, section 3.3.
    Deviations:
        Fully convolutional; the authors' code goes through a linear layer of a hard-coded size.
    Complexity:
        O(N C code) time.
    """

    def __init__(self, dim: int, code: int) -> None:
        super().__init__()
        self.down = _conv(dim, code, stride=2)
        self.encode = nn.Conv2d(code, code, 3, stride=2, padding=1)
        self.up = _conv(code, code)
        self.decode = nn.Conv2d(code, dim, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = self.down(x)
        code = self.encode(half)
        up = self.up(F.interpolate(code, size=half.shape[2:], mode="bilinear", align_corners=False))
        return code, self.decode(F.interpolate(up, size=x.shape[2:], mode="bilinear", align_corners=False))


class Refined(NamedTuple):
    """What guided attention makes of a scale: its features, and the two losses that guide it (numbers)."""

    features: Tensor
    guided: Tensor
    reconstruction: Tensor


class GuidedAttention(nn.Module):
    """The features of one scale, refined in steps of position and channel attention under semantic guidance.

    X_1 = [F_s; F_MS],  X_n = [F_s; A_(n-1) * F_MS],  A_n = conv(D_n(E_n(X_n)) o (PAM_n(X_n) + CAM_n(X_n)));
    losses  guided = |E_1(X_1) - E_2(X_2)|^2,  reconstruction = sum_n |X_n - D_n(E_n(X_n))|^2  (means over elements).

    Shape:
        x = F_s (B, C, H, W) and fused = F_MS (B, C, H, W) -> A (B, C, H, W). `refine` returns the losses too.
    Reference:
        Sinha and Dolz 2020, arXiv 1906.02849, section 3.
    Deviations:
        The paper's o is a matrix product whose shapes it does not give. `guidance="matrix"`: channels are mixed,
        (D A^T / N) A, the one product that fits any map. "product": element by element, as in the authors' code. "none"
        takes the encoder-decoder away; with neither attention a step is a convolution: rows of the paper's ablation.
        Group instead of batch normalisation, so that a sample does not depend on its batch.
    Complexity:
        `steps` times that of its parts, on 2 C channels.
    """

    def __init__(
        self,
        dim: int,
        *,
        position: bool = True,
        channel: bool = True,
        steps: int = 2,
        guidance: Literal["matrix", "product", "none"] = "matrix",
        channel_form: Literal["paper", "released"] = "paper",
        reduction: int = 8,
    ) -> None:
        super().__init__()
        self.guidance = guidance
        self.positions = nn.ModuleList(PositionAttention(2 * dim, reduction=reduction) for _ in range(steps * position))
        self.channels = nn.ModuleList(ChannelAttention(channel_form) for _ in range(steps * channel))
        self.coders = nn.ModuleList(SemanticCoder(2 * dim, dim) for _ in range(steps * (guidance != "none")))
        self.merge = nn.ModuleList(_conv(2 * dim, dim) for _ in range(steps))

    def forward(self, x: Tensor, fused: Tensor) -> Tensor:
        return self.refine(x, fused).features

    def refine(self, x: Tensor, fused: Tensor) -> Refined:
        """The refined features with the losses; both losses are 0 without guidance, the guided one with one step."""
        codes: list[Tensor] = []
        reconstruction = x.new_zeros(())
        refined = x.new_ones(())
        for step, merge in enumerate(self.merge):
            joined = torch.cat([x, refined * fused], 1)
            attended = self.attend(step, joined)
            if self.coders:
                code, decoded = self.coders[step](joined)
                codes.append(code)
                reconstruction = reconstruction + F.mse_loss(decoded, joined)
                attended = guide(decoded, attended, self.guidance)
            refined = merge(attended)
        guided = x.new_zeros(())
        for one, next_one in pairwise(codes):
            guided = guided + F.mse_loss(one, next_one)
        return Refined(refined, guided, reconstruction)

    def attend(self, step: int, joined: Tensor) -> Tensor:
        """PAM + CAM of a step, or the one that there is, or what came in."""
        parts = [group[step](joined) for group in (self.positions, self.channels) if len(group)]
        return sum(parts[1:], parts[0]) if parts else joined


def guide(decoded: Tensor, attended: Tensor, guidance: str) -> Tensor:
    """The attention features under the decoded semantics, both (B, C, H, W); see `GuidedAttention`."""
    if guidance == "product":
        return decoded * attended
    features = attended.flatten(2)
    mixing = inner_products(decoded, attended) / features.shape[-1]
    return (mixing.to(features.dtype) @ features).view_as(attended)


def inner_products(a: Tensor, b: Tensor) -> Tensor:
    """Of the channels of two maps, (B, C, H, W) each -> (B, C, C), in float32 at least.

    Sums over a whole map overflow float16, and bfloat16 rounds the differences away that a softmax is about.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = (x.flatten(2).to(torch.promote_types(x.dtype, torch.float32)) for x in (a, b))
        return a @ b.transpose(1, 2)


def _conv(into: int, out: int, stride: int = 1) -> nn.Sequential:
    norm = nn.GroupNorm(math.gcd(out, 4) if out > 4 else 1, out)
    return nn.Sequential(nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False), norm, nn.ReLU())


def plain_position(module: PositionAttention, x: Tensor) -> Tensor:
    """`PositionAttention` written plainly from its equation, position by position: the reference of its tests."""
    q, k, v = (layer(x).flatten(2) for layer in (module.query, module.key, module.value))
    columns = []
    for j in range(q.shape[-1]):
        likeness = torch.stack([(q[:, :, j] * k[:, :, i]).sum(-1) for i in range(k.shape[-1])], -1).exp()
        share = likeness / likeness.sum(-1, keepdim=True)
        columns.append(torch.einsum("bn,bcn->bc", share, v))
    return module.gamma * torch.stack(columns, -1).view_as(x) + x


def plain_channel(module: ChannelAttention, x: Tensor) -> Tensor:
    """`ChannelAttention` written plainly from its equation, channel by channel."""
    rows = []
    for j in range(x.shape[1]):
        likeness = (x * x[:, j, None]).sum((-2, -1))
        if module.released:
            likeness = likeness.max(-1, keepdim=True).values - likeness
        rows.append((likeness.softmax(-1)[..., None, None] * x).sum(1))
    return module.gamma * torch.stack(rows, 1) + x


def plain_guided(module: GuidedAttention, x: Tensor, fused: Tensor) -> Tensor:
    """`GuidedAttention` written plainly: its parts by their references, the matrix product by sums over positions."""
    refined: Tensor | None = None
    for step, merge in enumerate(module.merge):
        joined = torch.cat([x, fused if refined is None else refined * fused], 1)
        attended = plain_position(module.positions[step], joined) + plain_channel(module.channels[step], joined)
        decoded = module.coders[step](joined)[1]
        if module.guidance == "product":
            guided = decoded * attended
        else:
            size = x.shape[-2] * x.shape[-1]
            guided = torch.einsum("bchw,bdhw,bdij->bcij", decoded, attended, attended) / size
        refined = merge(guided)
    assert refined is not None
    return refined


def _map(batch: int, length: int, dim: int, generator: torch.Generator) -> Tensor:
    """A map of `length` positions, as near to a square as whole numbers allow."""
    height = max(side for side in range(1, math.isqrt(length) + 1) if length % side == 0)
    return torch.randn(batch, dim, height, length // height, generator=generator, dtype=torch.float64)


def _inputs(batch: int, length: int, dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"x": _map(batch, length, dim, generator), "fused": _map(batch, length, dim, generator)}


def _opened(module: nn.Module) -> nn.Module:
    """With gammas that are not at zero, where they begin: else nothing behind them would be tested."""
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] == "gamma":
            nn.init.constant_(parameter, 0.7)
    return module


_PAPER = "Sinha and Dolz 2020, arXiv 1906.02849, section 3"
for _name, _build, _reference in (
    ("position", lambda dim, heads: PositionAttention(dim, reduction=2), plain_position),
    ("channel", lambda dim, heads: ChannelAttention(), plain_channel),
    ("channel, released form", lambda dim, heads: ChannelAttention("released"), plain_channel),
    ("guided", lambda dim, heads: GuidedAttention(dim, reduction=2), plain_guided),
    (
        "guided, released form",
        lambda dim, heads: GuidedAttention(dim, guidance="product", channel_form="released"),
        plain_guided,
    ),
):
    register(
        Mechanism(
            name=_name,
            build=lambda dim, heads, build=_build: _opened(build(dim, heads)),
            inputs=_inputs,
            reference=_reference,
            paper=_PAPER,
        )
    )
