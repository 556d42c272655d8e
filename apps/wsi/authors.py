"""`load-authors`: weights that the authors of ACMIL or CLAM released, as a model of this app."""

from pathlib import Path

import torch
from torch import Tensor

from apps.wsi.layouts import load_pt
from apps.wsi.model import build_model
from shared.errors import InputError
from shared.io.files import sha256
from shared.training.checkpoint import load_weights, save_model


def load_authors(path: Path, out: Path, classes: list[str] | None) -> dict:
    """Reads a state dict of ACMIL_GA or CLAM's clam_sb, with `weights_only=True`, and writes a model into `out`.

    Raises InputError for a file that holds more than tensors, for keys of neither, and for class names that do not fit.
    """
    state = read_state(path)
    architecture, converted, layout = convert(state, path)
    count = architecture["classes"]
    names = classes or [f"class {index}" for index in range(count)]
    if len(names) != count:
        raise InputError(f"--classes: names {len(names)} classes, the model has {count}")
    # Centre and scale are not in these files: features are taken as they are.
    model = build_model(architecture)
    full = {**model.state_dict(), **converted}
    load_weights(model, full, path)
    card = {
        "app": "wsi",
        "architecture": architecture,
        "classes": names,
        "temperature": 1.0,
        "start": f"{layout}: {path.name}",
        "data": {"name": "unknown: trained by others", "sha256": sha256(path)},
        "metrics": {},
    }
    weights = save_model(out, full, card)
    return {"model": str(weights), "layout": layout, "architecture": architecture, "classes": names}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: a state dict, or one under `model` or `state_dict`."""
    value = load_pt(path)
    for key in ("model", "state_dict"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict) or not all(isinstance(one, Tensor) for one in value.values()) or not value:
        raise InputError(f"{path}: holds no state dict; give the file that torch.save wrote of a model's weights")
    return {key.removeprefix("module."): one.float() for key, one in value.items()}


def convert(state: dict[str, Tensor], path: Path) -> tuple[dict, dict[str, Tensor], str]:
    """The flat arguments of the model, its state dict, and whose layout it was."""
    try:
        if "dimreduction.fc1.weight" in state:
            return (*_acmil(state), "ACMIL_GA")
        if any(key.startswith("attention_net.") for key in state):
            return (*_clam(state), "clam_sb")
    except KeyError as error:
        raise InputError(f"{path}: lacks {error}; it is no whole state dict of ACMIL_GA or clam_sb") from None
    known = ", ".join(list(state)[:4])
    raise InputError(f"{path}: has the keys {known} ..., neither those of ACMIL_GA nor of clam_sb")


def _acmil(state: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    reduce, weigh = state["dimreduction.fc1.weight"], state["attention.attention_weights.weight"]
    branches, hidden = weigh.shape
    converted = {
        "embedding.reduce.weight": reduce,
        "attention.score.weight": state["attention.attention_V.0.weight"],
        "attention.score.bias": state["attention.attention_V.0.bias"],
        "attention.gate.weight": state["attention.attention_U.0.weight"],
        "attention.gate.bias": state["attention.attention_U.0.bias"],
        "attention.weigh.weight": weigh,  # its bias is the same for all instances, and the softmax takes it away
        "bag.weight": state["Slide_classifier.fc.weight"],
        "bag.bias": state["Slide_classifier.fc.bias"],
    }
    if branches > 1:
        for part in ("weight", "bias"):
            converted[f"heads.{part}"] = torch.stack([state[f"classifier.{m}.fc.{part}"] for m in range(branches)])
    return _arguments(reduce, hidden, branches, len(converted["bag.bias"]), bias=False), converted


def _clam(state: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    # The gated network is the last of attention_net: behind a linear layer, ReLU and perhaps dropout.
    gated = next((key.rsplit(".attention_c", 1)[0] for key in state if key.endswith(".attention_c.weight")), None)
    if gated is None:
        raise KeyError("attention_net.3.attention_c.weight")
    weigh, reduce = state[f"{gated}.attention_c.weight"], state["attention_net.0.weight"]
    if len(weigh) != 1:
        raise KeyError("attention_c of one branch (this is clam_mb, which has one a class)")
    converted = {
        "embedding.reduce.weight": reduce,
        "embedding.reduce.bias": state["attention_net.0.bias"],
        "attention.score.weight": state[f"{gated}.attention_a.0.weight"],
        "attention.score.bias": state[f"{gated}.attention_a.0.bias"],
        "attention.gate.weight": state[f"{gated}.attention_b.0.weight"],
        "attention.gate.bias": state[f"{gated}.attention_b.0.bias"],
        "attention.weigh.weight": weigh,
        "bag.weight": state["classifiers.weight"],
        "bag.bias": state["classifiers.bias"],
    }
    return _arguments(reduce, weigh.shape[1], 1, len(converted["bag.bias"]), bias=True), converted


def _arguments(reduce: Tensor, hidden: int, branches: int, classes: int, *, bias: bool) -> dict:
    width, features = reduce.shape
    masking = {"top": 10 if branches > 1 else 0, "masked": 0.6, "fraction": 1.0, "bernoulli": False}
    sizes = {"features": features, "classes": classes, "width": width, "hidden": hidden, "branches": branches}
    return {"kind": "acmil", **sizes, "gated": True, **masking, "dropout": 0.0, "bias": bias}
