"""Frozen features of frames behind one small protocol: keys on a grid, a finer grid for propagation, a class token.

House notation: B frames, H and W pixels, h and w cells, C channels.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention.record import record_attention
from shared.encoders.efficientnet import EfficientNetLite0
from shared.encoders.vit import MEAN, STD, VisionTransformer, load_dino
from shared.errors import InputError
from shared.io.files import sha256
from shared.training.checkpoint import load_model, load_weights

COARSE_SHARE = 0.5  # of the squared length of a fine feature, that its stride-16 part has


class Encoder(Protocol):
    """What the methods need of an encoder. Frames are uint8 (B, H, W, 3) of any size from 32 pixels."""

    name: str
    stride: int  # pixels a cell of `keys`
    dim: int  # of keys

    def keys(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, h, w, C) keys, and a class token (B, C)."""
        ...

    def fine(self, frames: Tensor) -> Tensor:
        """(B, h, w, C) features of length one, on the finest grid that it has to offer."""
        ...

    def salience(self, frames: Tensor) -> Tensor:
        """(B, h, w), the grid of the keys: how much a cell counts for what the network makes of the frame."""
        ...

    def parameters(self) -> Iterator[Tensor]: ...


def device_of(encoder: Encoder) -> torch.device:
    """Where an encoder computes."""
    return next(iter(encoder.parameters())).device


class LiteEncoder(nn.Module):
    """EfficientNet-Lite0 of ImageNet: its 112 channels at stride 16 are the keys; `fine` joins 40 at stride 8.

    Salience is the mean activation of its 1280 last channels: Wei et al. 2017, Selective Convolutional Descriptor
    Aggregation, arXiv 1604.04994, section 3.1.
    """

    name, stride, dim = "efficientnet-lite0", 16, 112

    def __init__(self) -> None:
        super().__init__()
        self.net = EfficientNetLite0()

    def keys(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.net.maps(frames, (16,))[16]
        return maps.permute(0, 2, 3, 1), maps.mean((-2, -1))

    def fine(self, frames: Tensor) -> Tensor:
        maps = self.net.maps(frames, (8, 16))
        fine = F.normalize(maps[8], dim=1) * (1 - COARSE_SHARE) ** 0.5
        coarse = F.interpolate(maps[16], fine.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([fine, F.normalize(coarse, dim=1) * COARSE_SHARE**0.5], 1).permute(0, 2, 3, 1)

    def salience(self, frames: Tensor) -> Tensor:
        active = self.net.maps(frames, (32,))[32].mean(1, keepdim=True)
        grid = [-(-side // self.stride) for side in frames.shape[1:3]]
        return F.interpolate(active, grid, mode="bilinear", align_corners=False)[:, 0]


class ViTEncoder(nn.Module):
    """A ViT in DINO's format: the keys of its last layer. Frames are resized to the nearest multiple of the patch.

    Salience is what the class token looks at in the last layer, the mean over heads: Caron et al. 2021, section 4.2.2.
    """

    def __init__(self, vit: VisionTransformer, name: str) -> None:
        super().__init__()
        self.vit, self.name, self.stride, self.dim = vit, name, vit.patch, vit.dim
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None] * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None] * 255, persistent=False)
        self.requires_grad_(False).eval()

    def keys(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        images = self.prepare(frames)
        h, w = (size // self.stride for size in images.shape[-2:])
        cls, _, keys = self.vit.features(images)
        return keys.unflatten(1, (h, w)), cls

    def fine(self, frames: Tensor) -> Tensor:
        return F.normalize(self.keys(frames)[0], dim=-1)

    def salience(self, frames: Tensor) -> Tensor:
        images = self.prepare(frames)
        with record_attention(self.vit.blocks[-1]) as maps:
            self.vit(images)
        ((weights,),) = maps.values()
        return weights[:, :, 0, 1:].mean(1).unflatten(1, [side // self.stride for side in images.shape[-2:]])

    def prepare(self, frames: Tensor) -> Tensor:
        images = (frames.permute(0, 3, 1, 2).float() - self.mean) / self.std
        size = [max(1, round(side / self.stride)) * self.stride for side in images.shape[-2:]]
        if size != list(images.shape[-2:]):
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        return images


def load_encoder(weights: Path | None, device: torch.device | str = "cpu") -> Encoder:
    """None: EfficientNet-Lite0. Else a DINO file (.pth, .safetensors), or what `pretrain` made (a run folder, a model).

    Raises InputError for a file that is neither.
    """
    if weights is None:
        encoder: nn.Module = LiteEncoder()
    elif weights.is_dir() or (weights.suffix == ".safetensors" and weights.with_suffix(".json").exists()):
        state, card = load_model(weights, "video")
        if card.get("kind") != "encoder":
            raise InputError(f"{weights}: is a model of train, no encoder; give it as --checkpoint, not --weights")
        vit = VisionTransformer(**card["architecture"])
        load_weights(vit, state, weights)
        encoder = ViTEncoder(vit, f"vit {card['sha256'][:12]}")
    else:
        # By its content, as what is kept of an encoder (`remember.py`, a model's card) goes by its name.
        encoder = ViTEncoder(load_dino(weights), f"dino {sha256(weights)[:12]}")
    return encoder.to(device)  # pyright: ignore[reportReturnType]
