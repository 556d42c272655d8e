"""State dicts with the keys of the authors' code, and the scores that their own forward pass would give."""

from pathlib import Path

import numpy as np
import pytest
import torch

from apps.wsi.bags import Bag
from apps.wsi.classifier import load


def linear(out: int, into: int, *, bias: bool = True) -> dict[str, torch.Tensor]:
    found = {"weight": torch.randn(out, into) / into**0.5}
    return {**found, "bias": torch.randn(out)} if bias else found


def named(prefix: str, part: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{key}": value for key, value in part.items()}


def acmil(branches: int, features: int = 20, width: int = 16, hidden: int = 8, classes: int = 3) -> dict:
    torch.manual_seed(0)
    state = named("dimreduction.fc1", linear(width, features, bias=False))
    state |= named("attention.attention_V.0", linear(hidden, width))
    state |= named("attention.attention_U.0", linear(hidden, width))
    state |= named("attention.attention_weights", linear(branches, hidden))
    for branch in range(branches):
        state |= named(f"classifier.{branch}.fc", linear(classes, width))
    return state | named("Slide_classifier.fc", linear(classes, width))


def acmil_forward(state: dict, x: torch.Tensor) -> torch.Tensor:
    """As the authors' ACMIL_GA computes it in evaluation."""
    h = torch.relu(x @ state["dimreduction.fc1.weight"].T)
    v = torch.tanh(h @ state["attention.attention_V.0.weight"].T + state["attention.attention_V.0.bias"])
    u = torch.sigmoid(h @ state["attention.attention_U.0.weight"].T + state["attention.attention_U.0.bias"])
    a = (v * u) @ state["attention.attention_weights.weight"].T + state["attention.attention_weights.bias"]
    bag = (a.T.softmax(-1)).mean(0, keepdim=True) @ h
    return bag @ state["Slide_classifier.fc.weight"].T + state["Slide_classifier.fc.bias"]


def clam(dropout: bool, features: int = 20, width: int = 16, hidden: int = 8, classes: int = 2) -> dict:
    torch.manual_seed(0)
    gated = f"attention_net.{3 if dropout else 2}"
    state = named("attention_net.0", linear(width, features))
    state |= named(f"{gated}.attention_a.0", linear(hidden, width))
    state |= named(f"{gated}.attention_b.0", linear(hidden, width))
    state |= named(f"{gated}.attention_c", linear(1, hidden))
    state |= named("classifiers", linear(classes, width))
    for branch in range(classes):
        state |= named(f"instance_classifiers.{branch}", linear(2, width))
    return state


def clam_forward(state: dict, x: torch.Tensor) -> torch.Tensor:
    h = torch.relu(x @ state["attention_net.0.weight"].T + state["attention_net.0.bias"])
    net = next(key.rsplit(".attention_c", 1)[0] for key in state if ".attention_c." in key)
    a = torch.tanh(h @ state[f"{net}.attention_a.0.weight"].T + state[f"{net}.attention_a.0.bias"])
    b = torch.sigmoid(h @ state[f"{net}.attention_b.0.weight"].T + state[f"{net}.attention_b.0.bias"])
    weights = ((a * b) @ state[f"{net}.attention_c.weight"].T + state[f"{net}.attention_c.bias"]).T.softmax(-1)
    return weights @ h @ state["classifiers.weight"].T + state["classifiers.bias"]


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
@pytest.mark.parametrize(
    ("state", "forward", "layout"),
    [
        (acmil(5), acmil_forward, "ACMIL_GA"),
        (acmil(1), acmil_forward, "ACMIL_GA"),
        (clam(dropout=True), clam_forward, "clam_sb"),
        (clam(dropout=False), clam_forward, "clam_sb"),
    ],
)
def test_released_weights_give_the_scores_of_their_own_code(wsi, tmp_path: Path, state, forward, layout, wrap) -> None:
    torch.save(wrap(state), tmp_path / "released.pt")
    code, found = wsi("load-authors", tmp_path / "released.pt", "--out", tmp_path / "made", "--json")
    assert code == 0
    assert found["layout"] == layout
    x = torch.randn(30, 20)
    logits, weights = load(tmp_path / "made", "cpu").predict([Bag("x", x.numpy(), None, "x")])
    np.testing.assert_allclose(logits, forward(state, x).numpy(), atol=1e-5)
    assert weights[0].shape == (found["architecture"]["branches"], 30)


def test_what_is_neither_is_told(wsi, tmp_path: Path) -> None:
    def line(value: object, *words: object) -> str:
        torch.save(value, tmp_path / "w.pt")
        code, text = wsi("load-authors", tmp_path / "w.pt", "--out", tmp_path / "made", *words)
        assert code == 2
        assert not (tmp_path / "made").exists()
        return text

    state = acmil(5)
    assert "neither those of ACMIL_GA nor of clam_sb" in line({"fc.weight": torch.ones(2, 2)})
    assert "holds no state dict" in line(torch.ones(2))
    assert "names 2 classes, the model has 3" in line(state, "--classes", "normal,tumour")
    del state["attention.attention_weights.weight"]
    assert "lacks 'attention.attention_weights.weight'" in line(state)
    multi = clam(dropout=True)
    multi["attention_net.3.attention_c.weight"] = torch.ones(2, 8)
    assert "attention_c of one branch (this is clam_mb, which has one a class)" in line(multi)
    state = acmil(5)
    state["Slide_classifier.fc.weight"] = torch.ones(3, 9)  # of another width than the rest
    assert "the weights do not fit" in line(state)
