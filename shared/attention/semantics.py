"""Attention by class semantics for temporal action detection, and squeeze-and-excitation, which it is compared with.

House notation: B batch, T time (snippets), C channels of the encoder, R channels of the class-semantic sequence.
"""

import torch
from torch import Tensor, nn

from shared.attention.record import capture, recording
from shared.attention.registry import Mechanism, register


class ClassSemanticsAttention(nn.Module):
    """Gates the channels and the time of an encoder's output by what a sequence of class semantics says.

    a = sigmoid(FC(pool_t(ReLU(conv(R))))), b = sigmoid(conv(pool_c(ReLU(conv'(R))))), Y = W [F * a, F * b] + c:
    the channel branch weighs C channels, the temporal branch T snippets, and their results are projected back to C.

    Shape:
        x (B, T, C) the encoder's output F; semantics (B, T, R), snippet features or class scores; `keep` (B, T): False
        closes a snippet (padding), which then counts for nothing and gives 0. Returns (B, T, C). Recorded maps: those
        of `channel` (B, 1, C) and `temporal` (B, 1, T), gates between 0 and 1 that need not sum to one.
    Reference:
        Sridhar et al. 2021, Class Semantics-based Attention for Action Detection, arXiv 2109.02613, section 3 and its
        figure of the block. No residual path and no loss of its own, as there.
    Deviations:
        The figure leaves kernel and widths open: ours are `kernel` and `hidden`. In place of the temporal branch's
        fully connected layer over a fixed T stands a convolution, so that any T is served.
    Complexity:
        O(T (R hidden kernel + C^2)) time, O(T (hidden + C)) memory.
    """

    def __init__(self, dim: int, semantics: int, hidden: int, *, kernel: int = 3, reach: int = 9) -> None:
        super().__init__()
        self.channel = ChannelBranch(dim, semantics, hidden, kernel)
        self.temporal = TemporalBranch(semantics, hidden, kernel, reach)
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, semantics: Tensor, keep: Tensor | None = None) -> Tensor:
        channel = self.channel(semantics, keep)  # (B, 1, C)
        temporal = self.temporal(semantics, keep)  # (B, T, 1)
        return closed(self.project(torch.cat([x * channel, x * temporal], -1)), keep)


class ChannelBranch(nn.Module):
    """sigmoid(FC(mean over time of ReLU(conv(R)))): semantics (B, T, R) -> a gate for each channel, (B, 1, C)."""

    def __init__(self, dim: int, semantics: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(semantics, hidden, kernel, padding=kernel // 2)
        self.gate = nn.Linear(hidden, dim)

    def forward(self, semantics: Tensor, keep: Tensor | None = None) -> Tensor:
        hidden = convolved(self.conv, semantics, keep)
        gates = torch.sigmoid(self.gate(mean_over_time(hidden, keep)))
        if recording():
            capture(self, gates)
        return gates


class TemporalBranch(nn.Module):
    """sigmoid(conv(mean over channels of ReLU(conv(R)))): semantics (B, T, R) -> a gate for each snippet, (B, T, 1)."""

    def __init__(self, semantics: int, hidden: int, kernel: int, reach: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(semantics, hidden, kernel, padding=kernel // 2)
        self.gate = nn.Conv1d(1, 1, reach, padding=reach // 2)

    def forward(self, semantics: Tensor, keep: Tensor | None = None) -> Tensor:
        pooled = closed(convolved(self.conv, semantics, keep).mean(-1, keepdim=True), keep)
        # A channel put in, not transposed: the gradient then has the weight's own strides, which processes expect.
        gates = torch.sigmoid(self.gate(pooled.squeeze(-1).unsqueeze(1)))
        if recording():
            capture(self, gates)
        return gates.transpose(1, 2)


class SqueezeExcitation(nn.Module):
    """Gates the channels of a sequence by its own mean over time.

    a = sigmoid(W_2 ReLU(W_1 mean_t(F))), Y = F * a.

    Shape:
        x (B, T, C) -> (B, T, C); `keep` (B, T): False closes a snippet, which gives 0. Recorded map: (B, 1, C).
    Reference:
        Hu et al. 2018, Squeeze-and-Excitation Networks, arXiv 1709.01507, section 3.
    Deviations:
        Over time where the paper has images. The mean leaves closed snippets out.
    Complexity:
        O(T C + C hidden) time, O(T C) memory.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(dim, hidden)
        self.excite = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = closed(x, keep)
        gates = torch.sigmoid(self.excite(self.squeeze(mean_over_time(x, keep)).relu()))
        if recording():
            capture(self, gates)
        return x * gates


def closed(x: Tensor, keep: Tensor | None) -> Tensor:
    """x (B, T, C) with 0 where `keep` (B, T) is False."""
    return x if keep is None else x * keep[..., None]


def mean_over_time(x: Tensor, keep: Tensor | None) -> Tensor:
    """(B, T, C) -> (B, 1, C), the mean of the snippets that are kept; 0 where none is."""
    if keep is None:
        return x.mean(1, keepdim=True)
    count = keep.sum(1).clamp(min=1).to(x.dtype)
    return closed(x, keep).sum(1, keepdim=True) / count[:, None, None]


def convolved(conv: nn.Conv1d, x: Tensor, keep: Tensor | None) -> Tensor:
    """ReLU(conv(x)) along time: (B, T, C) -> (B, T, conv's width); closed snippets are read as 0."""
    return conv(closed(x, keep).transpose(1, 2)).relu().transpose(1, 2)


def plain_semantics(
    module: ClassSemanticsAttention, x: Tensor, semantics: Tensor, keep: Tensor | None = None
) -> Tensor:
    """`ClassSemanticsAttention` written plainly from its equation, a sample at a time: the reference of its tests."""
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        real = torch.ones(x.shape[1], dtype=torch.bool, device=x.device) if keep is None else keep[b]
        r = semantics[b] * real[:, None]
        if not real.any():
            continue
        pooled = _plain_conv(module.channel.conv, r).relu()[real].mean(0)
        channel = torch.sigmoid(module.channel.gate.weight @ pooled + module.channel.gate.bias)
        pooled = _plain_conv(module.temporal.conv, r).relu().mean(-1) * real
        temporal = torch.sigmoid(_plain_conv(module.temporal.gate, pooled[:, None]))
        both = torch.cat([x[b] * channel, x[b] * temporal], -1)
        out[b] = (both @ module.project.weight.T + module.project.bias) * real[:, None]
    return out


def _plain_conv(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """(T, C_in) -> (T, C_out): the sum over the kernel's places, zeros beyond both ends."""
    reach = conv.kernel_size[0] // 2
    padded = torch.cat([x.new_zeros(reach, x.shape[1]), x, x.new_zeros(reach, x.shape[1])])
    taps = [padded[k : k + len(x)] @ conv.weight[:, :, k].T for k in range(conv.kernel_size[0])]
    return torch.stack(taps).sum(0) + conv.bias


def plain_squeeze_excitation(module: SqueezeExcitation, x: Tensor, keep: Tensor | None = None) -> Tensor:
    """`SqueezeExcitation` written plainly, a sample at a time."""
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        real = torch.ones(x.shape[1], dtype=torch.bool, device=x.device) if keep is None else keep[b]
        if real.any():
            hidden = (module.squeeze.weight @ x[b][real].mean(0) + module.squeeze.bias).relu()
            gates = torch.sigmoid(module.excite.weight @ hidden + module.excite.bias)
            out[b] = x[b] * gates * real[:, None]
    return out


def _inputs(batch: int, length: int, dim: int, generator: torch.Generator) -> dict:
    def draw(width: int) -> Tensor:
        return torch.randn(batch, length, width, generator=generator, dtype=torch.float64)

    return {"x": draw(dim), "semantics": draw(5)}


register(
    Mechanism(
        name="class semantics",
        build=lambda dim, heads: ClassSemanticsAttention(dim, 5, 6 * heads),
        inputs=_inputs,
        reference=plain_semantics,
        paper="Sridhar et al. 2021, arXiv 2109.02613, section 3",
        mask="keep",
        normalised=False,
    )
)
register(
    Mechanism(
        name="squeeze and excitation",
        build=lambda dim, heads: SqueezeExcitation(dim, 6 * heads),
        inputs=_inputs,
        reference=plain_squeeze_excitation,
        paper="Hu et al. 2018, arXiv 1709.01507, section 3",
        mask="keep",
        normalised=False,
    )
)
