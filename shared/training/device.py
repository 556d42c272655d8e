"""Where to compute."""

import torch

from shared.errors import InputError


def pick_device(name: str) -> torch.device:
    """`--device` as a device to compute on: "auto" is CUDA where there is one, else the CPU. `InputError`: none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise InputError(f"--device {name}: is not available on this machine; use --device cpu") from None
