"""The four scales that guided attention starts from: a small residual network, and ResNet-101 at the paper's size.

House notation: B batch, C channels, H and W the sides of a map.
"""

import math

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut: x + f(x), after He et al. 2016 (arXiv 1512.03385), figure 5 left."""

    def __init__(self, into: int, out: int, stride: int = 1, norm: str = "batch") -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(into, out, 3, stride, 1, bias=False),
            normalisation(norm, out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            normalisation(norm, out),
        )
        self.short = _short(into, out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        return (self.short(x) + self.body(x)).relu()


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut: He et al. 2016, figure 5 right; the stride lies on the 3x3."""

    def __init__(self, into: int, out: int, stride: int = 1, norm: str = "batch") -> None:
        super().__init__()
        inner = out // 4
        self.body = nn.Sequential(
            nn.Conv2d(into, inner, 1, bias=False),
            normalisation(norm, inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            normalisation(norm, inner),
            nn.ReLU(),
            nn.Conv2d(inner, out, 1, bias=False),
            normalisation(norm, out),
        )
        self.short = _short(into, out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        return (self.short(x) + self.body(x)).relu()


def _short(into: int, out: int, stride: int, norm: str) -> nn.Module:
    if into == out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), normalisation(norm, out))


class Backbone(nn.Module):
    """Four scales of features, the first at 1 / `stride` of the resolution and each next one at half of that.

    Shape:
        x (B, C, H, W), sides that are multiples of `stride` -> four maps of `widths` channels.
    Reference:
        He et al. 2016, Deep residual learning, arXiv 1512.03385.
    Deviations:
        `small` has two blocks of two 3x3 convolutions a scale, and its stem halves by strided convolutions instead of
        pooling; with `stride` 1 or 2 the scales begin at a finer resolution than the paper's quarter. `norm="group"`:
        group instead of batch normalisation, so that the moving average of the weights needs no statistics.
    Complexity:
        Linear in the number of voxels.
    """

    def __init__(self, channels: int, name: str, width: int, stride: int, norm: str = "batch") -> None:
        super().__init__()
        if name == "resnet101":
            self.widths = tuple(256 * 2**i for i in range(4))
            self.stem = nn.Sequential(_norm_conv(channels, 64, 7, 2, norm), nn.MaxPool2d(3, 2, 1))
            block, counts, first = Bottleneck, (3, 4, 23, 3), 64
        else:
            self.widths = tuple(width * 2**i for i in range(4))
            halvings = {1: (1, 1), 2: (1, 2), 4: (2, 2)}[stride]
            self.stem = nn.Sequential(
                _norm_conv(channels, width // 2, 3, halvings[0], norm),
                _norm_conv(width // 2, width, 3, halvings[1], norm),
            )
            block, counts, first = Block, (2, 2, 2, 2), width
        stages = []
        for number, (out, count) in enumerate(zip(self.widths, counts, strict=True)):
            blocks = [block(first if i == 0 else out, out, 2 if number and i == 0 else 1, norm) for i in range(count)]
            stages.append(nn.Sequential(*blocks))
            first = out
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor, medusa: nn.Module | None = None) -> list[Tensor]:
        """The four scales; `medusa` (see `Medusa`) weighs each one before the next is made of it."""
        body = medusa(x) if medusa is not None else None
        scales, x = [], self.stem(x)
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if medusa is not None:
                x = medusa.heads[number](x, body)
            scales.append(x)
        return scales


def _norm_conv(into: int, out: int, kernel: int, stride: int, norm: str) -> nn.Sequential:
    convolution = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, normalisation(norm, out), nn.ReLU())


def normalisation(norm: str, channels: int) -> nn.Module:
    """`batch`, or `group`: up to four groups of the channels of each sample, of two or more (a map may be 1 x 1)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, min(4, channels // 2)), channels)
