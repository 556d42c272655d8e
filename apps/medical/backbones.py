"""The four scales that guided attention starts from: a small residual network, and ResNet-101 at the paper's size.

House notation: B batch, C channels, H and W the sides of a map.
"""

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut: x + f(x), after He et al. 2016 (arXiv 1512.03385), figure 5 left."""

    def __init__(self, into: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(into, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.short = _short(into, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        return (self.short(x) + self.body(x)).relu()


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut: He et al. 2016, figure 5 right; the stride lies on the 3x3."""

    def __init__(self, into: int, out: int, stride: int = 1) -> None:
        super().__init__()
        inner = out // 4
        self.body = nn.Sequential(
            nn.Conv2d(into, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.short = _short(into, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        return (self.short(x) + self.body(x)).relu()


def _short(into: int, out: int, stride: int) -> nn.Module:
    if into == out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class Backbone(nn.Module):
    """Four scales of features, the first at 1 / `stride` of the resolution and each next one at half of that.

    Shape:
        x (B, C, H, W), sides that are multiples of `stride` -> four maps of `widths` channels.
    Reference:
        He et al. 2016, Deep residual learning, arXiv 1512.03385.
    Deviations:
        `small` has two blocks of two 3x3 convolutions a scale, and its stem halves by strided convolutions instead of
        pooling; with `stride` 1 or 2 the scales begin at a finer resolution than the paper's quarter.
    Complexity:
        Linear in the number of voxels.
    """

    def __init__(self, channels: int, name: str, width: int, stride: int) -> None:
        super().__init__()
        if name == "resnet101":
            self.widths = tuple(256 * 2**i for i in range(4))
            self.stem = nn.Sequential(_norm_conv(channels, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
            block, counts, first = Bottleneck, (3, 4, 23, 3), 64
        else:
            self.widths = tuple(width * 2**i for i in range(4))
            halvings = {1: (1, 1), 2: (1, 2), 4: (2, 2)}[stride]
            self.stem = nn.Sequential(
                _norm_conv(channels, width // 2, 3, halvings[0]), _norm_conv(width // 2, width, 3, halvings[1])
            )
            block, counts, first = Block, (2, 2, 2, 2), width
        stages = []
        for number, (out, count) in enumerate(zip(self.widths, counts, strict=True)):
            blocks = [block(first, out, 2 if number else 1), *(block(out, out) for _ in range(count - 1))]
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


def _norm_conv(into: int, out: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU())
