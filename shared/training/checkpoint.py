"""Model files that a user can be handed: safetensors for the weights, JSON beside it for everything else."""

import hashlib
import math
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode

from shared.errors import InputError
from shared.io.files import input_file, output_folder, read_json, replacing, sha256, to_json
from shared.versions import package_version

REQUIRED = ("app", "architecture")

Built = TypeVar("Built", bound=torch.nn.Module)


def save_model(folder: Path, state_dict: dict[str, torch.Tensor], card: dict[str, Any], name: str = "model") -> Path:
    """Writes `folder/<name>.safetensors` and its card `folder/<name>.json`, and returns the former.

    The card has at least `app` and `architecture` (flat arguments that build the module); `data`, `vocabulary` or
    `labels` and `metrics` belong there too. The weights' hash and the versions are added here.
    """
    missing = [key for key in REQUIRED if key not in card]
    if missing:
        raise ValueError(f"a model's card needs {', '.join(missing)}")
    output_folder(folder)
    # Cloned, because safetensors refuses tensors that share storage (tied weights).
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state_dict.items()}
    weights = folder / f"{name}.safetensors"
    # Both are complete before either takes its place, so that a kill can part them only between two renames;
    # the hash then tells, on loading.
    with replacing(weights.with_suffix(".json")) as card_partial, replacing(weights) as weights_partial:
        # Not save_file: it makes files that nobody else may read.
        weights_partial.write_bytes(safetensors.torch.save(tensors))
        card = {**card, "versions": {**versions(), **card.get("versions", {})}, "sha256": sha256(weights_partial)}
        card_partial.write_text(to_json(card, indent=2) + "\n", encoding="utf-8")
    return weights


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": metadata.version("lightning"),
        "manyheads": package_version(),
    }


def load_model(path: Path | str, app: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and the card of a model: `path` is a run folder or a `.safetensors` file with its card beside it.

    Raises `InputError` when either is missing, is a pickle (never loaded: it could run anything), is truncated,
    belongs to another app, or when the weights are not those that the card was written for.
    """
    weights = _weights_file(Path(path))
    card_path = weights.with_suffix(".json")
    if not card_path.exists():
        raise InputError(f"{weights}: its card {card_path.name} is missing; keep the two files together")
    card = read_json(card_path)
    if not isinstance(card, dict) or any(key not in card for key in REQUIRED):
        raise InputError(f"{card_path}: is no model card (it has no app and architecture); use the one made by train")
    if card["app"] != app:
        raise InputError(f"{weights}: is a model of the {card['app']} app; give one that {app} trained")
    data = weights.read_bytes()
    try:
        state_dict = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{weights}: is truncated or damaged ({_line(error)}); copy it again or retrain") from None
    if card.get("sha256") != hashlib.sha256(data).hexdigest():
        raise InputError(f"{weights}: is not the file that {card_path.name} describes (sha256); keep the pair together")
    return state_dict, card


def _weights_file(path: Path) -> Path:
    if path.is_dir():
        weights = path / "model.safetensors"
        if not weights.exists() and (path / "last.ckpt").exists():
            raise InputError(f"{path}: holds an unfinished run without a model; finish it with train --resume")
        if not weights.exists():
            raise InputError(f"{path}: has no model.safetensors; give a run folder of train, or a .safetensors file")
        return input_file(weights)
    with open(input_file(path), "rb") as file:
        start = file.read(16)
    if _is_pickle(start):
        raise InputError(f"{path}: is a pickle, which can run code and is never loaded; give a .safetensors file")
    if path.suffix != ".safetensors" or not _is_safetensors(start):
        raise InputError(f"{path}: is no safetensors file; give a run folder of train, or a .safetensors file")
    return path


def _is_pickle(start: bytes) -> bool:
    """A pickle (protocol 2 and later), or the zip archive that torch.save makes around one."""
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return start[:4] == b"PK\x03\x04" or (pickled and not _is_safetensors(start))


def _is_safetensors(start: bytes) -> bool:
    """Eight bytes of header length, then the header, which is a JSON object."""
    return len(start) > 8 and start[8:9] == b"{"


def build_within(build: Callable[[], Built], state_dict: dict[str, torch.Tensor]) -> Built:
    """`build()`, which is stopped as soon as it asks for more memory than the weights justify.

    A card may claim a vast model. (Sizes alone, on torch's meta device, would cost a second: torch imports its compiler
    for the arithmetic of initial values.) Raises ValueError.
    """
    with _AtMost(2 * sum(value.numel() for value in state_dict.values()) + 10_000):
        return build()


class _AtMost(TorchFunctionMode):
    """Counts the numbers of all tensors that are made; twice what is held leaves room for what is made on the way."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.left = numbers

    def __torch_function__(self, func, types, args=(), kwargs=None):  # pyright: ignore
        if func in (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn):
            self.left -= math.prod(torch.Size(args[0] if isinstance(args[0], (tuple, list)) else args))
            if self.left < 0:
                raise ValueError("the weights do not fit: the card claims a larger model than they are")
        return func(*args, **(kwargs or {}))


def load_weights(module: torch.nn.Module, state_dict: dict[str, torch.Tensor], path: Path | str) -> None:
    """Loads `state_dict` into `module`; `InputError` naming `path` when they do not fit."""
    try:
        module.load_state_dict(state_dict)
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit the architecture in the card ({_line(error)})") from None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 200 else text[:197] + "..."
