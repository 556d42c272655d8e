"""Encoders of tiles: EfficientNet-Lite0 that is installed, or a user's own as TorchScript or in timm."""

from pathlib import Path

import torch
from torch import nn

from shared.encoders.efficientnet import MEAN, STD, EfficientNetLite0
from shared.errors import InputError
from shared.io.files import input_file

DEFAULT = "efficientnet-lite0"


class Normalised(nn.Module):
    """A user's network behind ImageNet's normalisation: uint8 tiles (B, H, W, 3) -> features (B, D)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        x = (tiles.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        found = self.net(x)
        found = found[0] if isinstance(found, (tuple, list)) else found
        return found.flatten(2).mean(-1) if found.ndim > 2 else found


def load_encoder(name: str, weights: Path | None = None, device: torch.device | str = "cpu") -> tuple[nn.Module, str]:
    """An encoder and its short name: `efficientnet-lite0`, a TorchScript file, or `timm:NAME` with `weights`.

    Raises InputError for a file that is no TorchScript, where timm is not installed, and for weights that do not fit.
    """
    if name == DEFAULT:
        return EfficientNetLite0().to(device), DEFAULT
    if name.startswith("timm:"):
        return Normalised(_timm(name.removeprefix("timm:"), weights)).eval().to(device), name.partition(":")[2]
    path = Path(name)
    if not path.exists():
        raise InputError(f"--encoder {name}: is neither {DEFAULT}, a TorchScript file, nor timm:NAME")
    try:
        net = torch.jit.load(str(input_file(path)), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{path}: is no TorchScript file ({reason}); save the encoder with torch.jit.save") from None
    return Normalised(net).eval().to(device), path.stem


def _timm(name: str, weights: Path | None) -> nn.Module:
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(f"--encoder timm:{name}: timm is not installed; install it, or give TorchScript") from None
    if weights is None:
        raise InputError(f"--encoder timm:{name}: needs --weights, a file of its state dict")
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
