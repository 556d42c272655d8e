"""MEDUSA: one encoder-decoder body that attends to the whole image, and heads that bring it to every scale.

House notation: B batch, C channels, K classes, H and W the sides of an image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apps.medical.backbones import Backbone
from shared.attention.record import capture


class MedusaBody(nn.Module):
    """The single body: an encoder-decoder from the image to one map of attention logits.

    a = D(E(resize(x, side))),  three halvings there, three doublings back, joined at equal sizes.

    Shape:
        x (B, C, H, W) -> (B, 1, side, side) logits.
    Reference:
        Aboutalebi et al. 2021, MEDUSA, arXiv 2110.06063.
    Deviations:
        The paper's abstract and the COVID-Net code family give the single body on the input at 256 x 256 and heads at
        several depths. Widths, depth, joins and the one map are our choice.
    Complexity:
        Linear in side^2.
    """

    def __init__(self, channels: int, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        widths = [width, 2 * width, 4 * width, 4 * width]
        into = [channels, *widths[:-1]]
        self.down = nn.ModuleList(_conv(a, b, 2 if i else 1) for i, (a, b) in enumerate(zip(into, widths, strict=True)))
        self.up = nn.ModuleList(_conv(a + b, b, 1) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.leave = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = _resized(x, (self.side, self.side))
        joins = []
        for layer in self.down:
            x = layer(x)
            joins.append(x)
        for layer, join in zip(self.up, joins[-2::-1], strict=True):
            x = layer(torch.cat([_resized(x, join.shape[2:]), join], 1))
        return self.leave(x)


class MedusaHead(nn.Module):
    """A head: the body's map at the size of one scale, turned into weights of that scale's features.

    out = f (1 + sigmoid(conv([resize(a), mean_c f])))

    Shape:
        f (B, C, H, W), a (B, 1, side, side) -> (B, C, H, W). Recorded: the weights (B, 1, H, W), between 0 and 1.
    Reference:
        Aboutalebi et al. 2021, arXiv 2110.06063.
    Deviations:
        What a head computes is our choice: a convolution over the body's map and the mean of the features, and a
        shortcut, so that a closed head takes nothing away.
    Complexity:
        O(H W C).
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, features: Tensor, body: Tensor) -> Tensor:
        here = _resized(body, features.shape[2:])
        weights = self.mix(torch.cat([here, features.mean(1, keepdim=True)], 1)).sigmoid()
        capture(self, weights)
        return features * (1 + weights)


class Medusa(nn.Module):
    """The body and a head for each scale; what `Backbone` takes as its `medusa`."""

    def __init__(self, channels: int, width: int, side: int, scales: int = 4) -> None:
        super().__init__()
        self.body = MedusaBody(channels, width, side)
        self.heads = nn.ModuleList(MedusaHead() for _ in range(scales))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class MedusaClassifier(nn.Module):
    """A residual classifier whose four scales MEDUSA's heads weigh: logits = W mean(f_4) + b.

    Shape:
        x (B, C, H, W) -> logits (B, K).
    Reference:
        Aboutalebi et al. 2021, arXiv 2110.06063.
    Deviations:
        The backbone is the app's (the paper's: a COVID-Net); the class is taken from the mean of the last scale.
    Complexity:
        Linear in the number of voxels.
    """

    def __init__(
        self, channels: int, classes: int, *, backbone: str = "small", base: int = 16, stride: int = 4, body: int = 256
    ) -> None:
        super().__init__()
        self.medusa = Medusa(channels, max(4, base // 2), body)
        self.backbone = Backbone(channels, backbone, base, stride)
        self.leave = nn.Linear(self.backbone.widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.backbone(x, self.medusa)[-1].mean((2, 3)))


def _resized(x: Tensor, size) -> Tensor:
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _conv(into: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
