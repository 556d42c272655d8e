"""The guided segmenter: four scales of a backbone, fused, and refined at each scale by guided attention.

House notation: B batch, C channels, K classes with the background, H and W the sides of a slice.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apps.medical.backbones import Backbone, normalisation
from apps.medical.medusa import Medusa
from shared.attention.guided import GuidedAttention


class Predictions(NamedTuple):
    """All heads of one pass (logits (B, K, H, W) each) and the two losses of the guidance (numbers)."""

    coarse: list[Tensor]
    refined: list[Tensor]
    guided: Tensor
    reconstruction: Tensor


class GuidedSegmenter(nn.Module):
    """Multi-scale self-guided attention for slices.

    F_s = upsampled scale s of a backbone, F_MS = conv([F_0 .. F_3]), A_s = guided attention of (F_s, F_MS);
    heads on every F_s and every A_s; logits = mean over s of the heads on A_s.

    Shape:
        x (B, C, H, W), any sides -> logits (B, K, H, W).
    Reference:
        Sinha and Dolz 2020, arXiv 1906.02849, section 3 and figure 2.
    Deviations:
        `backbone="small"` is a residual network for a CPU; `resnet101` is the paper's. `stride` is where attention
        works: at 1/4 of the resolution in the paper. `head="subpixel"` predicts the voxels of each position,
        `"bilinear"` (the paper) enlarges the logits. With `body`, MEDUSA's body of that side weighs the backbone's
        scales. Sides are padded to multiples of `stride` and cut again. Heads begin at the odds of background.
    Complexity:
        That of the backbone, plus eight attentions of O(N^2 width) with N = H W / stride^2.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        backbone: str = "small",
        base: int = 16,
        width: int = 32,
        stride: int = 4,
        head: str = "bilinear",
        position: bool = True,
        channel: bool = True,
        steps: int = 2,
        guidance: str = "matrix",
        channel_form: str = "paper",
        reduction: int = 8,
        norm: str = "batch",
        body: int = 0,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.medusa = Medusa(channels, max(4, base // 2), body) if body else None
        self.backbone = Backbone(channels, backbone, base, stride, norm)
        self.narrow = nn.ModuleList(_conv(into, width, 1, norm) for into in self.backbone.widths)
        self.fuse = _conv(4 * width, width, 3, norm)
        self.attention = nn.ModuleList(
            GuidedAttention(
                width,
                position=position,
                channel=channel,
                steps=steps,
                guidance=guidance,
                channel_form=channel_form,
                reduction=reduction,
            )
            for _ in self.backbone.widths
        )
        fine = stride if head == "subpixel" else 1
        self.coarse_heads = nn.ModuleList(_head(width, classes, fine) for _ in self.backbone.widths)
        self.refined_heads = nn.ModuleList(_head(width, classes, fine) for _ in self.backbone.widths)
        self.shuffle = nn.PixelShuffle(fine)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(self.predict(x).refined).mean(0)

    def scales(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The four F_s at the resolution of the first, and F_MS: (B, width, H / stride, W / stride) each."""
        deep = self.backbone(self._padded(x), self.medusa)
        size = deep[0].shape[2:]
        scales = [_enlarged(narrow(scale), size) for narrow, scale in zip(self.narrow, deep, strict=True)]
        return scales, self.fuse(torch.cat(scales, 1))

    def predict(self, x: Tensor) -> Predictions:
        """Every head's logits and the losses of the guidance."""
        scales, fused = self.scales(x)
        refined = [attention.refine(scale, fused) for attention, scale in zip(self.attention, scales, strict=True)]
        size = x.shape[2:]
        return Predictions(
            [self._logits(head, scale, size) for head, scale in zip(self.coarse_heads, scales, strict=True)],
            [self._logits(head, one.features, size) for head, one in zip(self.refined_heads, refined, strict=True)],
            torch.stack([one.guided for one in refined]).sum(),
            torch.stack([one.reconstruction for one in refined]).sum(),
        )

    def _logits(self, head: nn.Module, features: Tensor, size: torch.Size) -> Tensor:
        whole = (features.shape[2] * self.stride, features.shape[3] * self.stride)
        return _enlarged(self.shuffle(head(features)), whole)[..., : size[0], : size[1]]

    def _padded(self, x: Tensor) -> Tensor:
        down, right = (-x.shape[2] % self.stride, -x.shape[3] % self.stride)
        return F.pad(x, (0, right, 0, down)) if down or right else x


def _head(width: int, classes: int, fine: int) -> nn.Conv2d:
    """Begins at nine voxels of ten being background, which else takes the first hundreds of steps to learn."""
    head = nn.Conv2d(width, classes * fine**2, 1)
    with torch.no_grad():
        head.bias.fill_(-2.2)
        head.bias[: fine**2] = 0
    return head


def _enlarged(x: Tensor, size) -> Tensor:
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _conv(into: int, out: int, kernel: int, norm: str) -> nn.Sequential:
    convolution = nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, normalisation(norm, out), nn.ReLU())
