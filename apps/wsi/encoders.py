"""Encoders of tiles: EfficientNet-Lite0 that is installed, or a user's own as TorchScript or in timm."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from shared.encoders.efficientnet import MEAN, STD, EfficientNetLite0
from shared.errors import InputError
from shared.io.files import input_file, sha256

DEFAULT = "efficientnet-lite0"


class Normalised(nn.Module):
    """A user's network behind ImageNet's normalisation: uint8 tiles (B, H, W, 3) -> features (B, D).

    Raises InputError when it cannot take tiles of this size, and when it yields neither features nor a map of them.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        x = (tiles.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        try:
            found = self.net(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[-120:]
            raise InputError(
                f"--encoder: cannot take tiles of {x.shape[-1]} pixels ({reason}); try --tile 224"
            ) from None
        found = found[0] if isinstance(found, (tuple, list)) else found
        if found.ndim == 4:  # a map of features
            found = found.mean((-2, -1))
        if found.ndim != 2:  # such as tokens, of which only its maker knows which stands for the tile
            raise InputError(
                f"--encoder: yields the shape {tuple(found.shape)} for {len(x)} tiles; save one that yields (B, D)"
            )
        return found


@dataclass(frozen=True)
class Encoder:
    """A network from uint8 tiles (B, H, W, 3) to features (B, D), its short name, and the hash of its file, if any."""

    net: nn.Module
    name: str
    sha256: str | None = None


def load_encoder(name: str, weights: Path | None = None, device: torch.device | str = "cpu") -> Encoder:
    """`efficientnet-lite0`, a TorchScript file, or `timm:NAME` with `weights`.

    Raises InputError for a file that is no TorchScript, where timm is not installed, and for weights that do not fit.
    """
    if weights is not None and not name.startswith("timm:"):
        raise InputError(f"--weights {weights}: is for an encoder of timm; name it as --encoder timm:NAME")
    if name == DEFAULT:
        return Encoder(EfficientNetLite0().to(device), DEFAULT)
    if name.startswith("timm:"):
        if weights is None:
            raise InputError(f"--encoder {name}: needs --weights, a file of its state dict")
        short = name.removeprefix("timm:")
        return Encoder(Normalised(_timm(short, weights)).eval().to(device), short, sha256(weights))
    path = Path(name)
    if not path.exists():
        raise InputError(f"--encoder {name}: is neither {DEFAULT}, a TorchScript file, nor timm:NAME")
    try:
        net = torch.jit.load(str(input_file(path)), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{path}: is no TorchScript file ({reason}); save the encoder with torch.jit.save") from None
    return Encoder(Normalised(net).eval().to(device), path.stem, sha256(path))


def _timm(name: str, weights: Path) -> nn.Module:
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(f"--encoder timm:{name}: timm is not installed; install it, or give TorchScript") from None
    try:
        net = timm.create_model(name, pretrained=False, num_classes=0)
        if weights.suffix == ".safetensors":
            import safetensors.torch

            state = safetensors.torch.load_file(input_file(weights))
        else:
            state = torch.load(input_file(weights), map_location="cpu", weights_only=True)
        net.load_state_dict(state.get("model", state) if isinstance(state, dict) else state)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{weights}: does not fit timm's {name} ({reason})") from None
    return net
