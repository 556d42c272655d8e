"""A network from the flat arguments that a model's card keeps: the guided segmenter, MEDUSA, or one of MONAI's."""

from typing import Any

from torch import nn

from apps.medical.config import ModelConfig
from apps.medical.medusa import MedusaClassifier
from apps.medical.model import GuidedSegmenter

GUIDED = ("backbone", "base", "width", "stride", "head", "position", "channel", "steps", "guidance", "channel_form",
          "reduction", "norm")  # fmt: skip


def architecture(config: ModelConfig, channels: int, classes: int) -> dict[str, Any]:
    """The arguments of `build` for a configuration: `kind`, and those of the network of that kind alone."""
    common = {"kind": config.kind, "channels": channels, "classes": classes}
    if config.kind == "guided":
        body = {"body": config.body} if config.medusa else {}
        return common | {name: getattr(config, name) for name in GUIDED} | body
    if config.kind == "medusa":
        return common | {name: getattr(config, name) for name in ("backbone", "base", "stride", "body")}
    return common | {"base": config.base}


def build(kind: str, channels: int, classes: int, **arguments: Any) -> nn.Module:
    """The network: (B, channels, H, W) -> logits (B, classes, H, W), of `medusa` (B, classes)."""
    if kind == "guided":
        return GuidedSegmenter(channels, classes, **arguments)
    if kind == "medusa":
        return MedusaClassifier(channels, classes, **arguments)
    return _monai(kind, channels, classes, **arguments)


def _monai(kind: str, channels: int, classes: int, base: int) -> nn.Module:
    from monai.networks.nets import AttentionUnet, SegResNet, UNet

    widths = [base * 2**i for i in range(4)]
    if kind == "unet":
        net = UNet(2, channels, classes, channels=widths, strides=(2, 2, 2), num_res_units=2)
    elif kind == "attention-unet":
        net = AttentionUnet(2, channels, classes, channels=widths, strides=(2, 2, 2))
    else:
        net = SegResNet(2, init_filters=base, in_channels=channels, out_channels=classes)
    return Even(net)


class Even(nn.Module):
    """A network of MONAI's on slices of any sides: padded to multiples of 8 by their last voxels, and cut again."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        down, right = -x.shape[2] % 8, -x.shape[3] % 8
        padded = nn.functional.pad(x, (0, right, 0, down), mode="replicate") if down or right else x
        return self.net(padded)[..., : x.shape[2], : x.shape[3]]
