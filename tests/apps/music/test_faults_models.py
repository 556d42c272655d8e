"""Files that are no model, or not the one that is needed: refused in one line, with nothing written."""

import hashlib
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from apps.music.midi import Track, write_midi
from tests.command_line import Refused

Make = Callable[..., Any]


@pytest.fixture
def run_copy(tiny_run: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("model.safetensors", "model.json"):
        shutil.copy(tiny_run / name, folder)
    return folder


def edit_card(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    card = json.loads(path.read_text())
    for key, value in changes.items():
        if key in card["architecture"]:
            card["architecture"][key] = value
        elif value is None:
            card.pop(key, None)
        else:
            card[key] = value
    path.write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"app": "video"}, "is a model of the video app"),
        ({"layers": 3}, "the weights have 2 layers, not 3"),
        ({"layers": 10**9}, "card"),
        ({"layers": -1}, "card"),
        ({"dim": 48}, "do not fit the architecture"),
        ({"dim": 10**12}, "card"),
        ({"dim": "wide"}, "card"),
        ({"dim": 0}, "card"),
        ({"heads": 3}, "card"),
        ({"heads": 0}, "card"),
        ({"relations": ["colour"]}, "card"),
        ({"positions": "nowhere"}, "card"),
        ({"vocab": 131}, "card"),
        ({"vocab": 391, "codec": "performance"}, "do not fit the architecture"),
        ({"codec": "performance"}, "card"),
        ({"codec": "abc"}, "card"),
        ({"codec": None}, "card"),
        ({"length": None}, "card"),
        ({"length": "long"}, "card"),
        ({"length": -5}, "card"),
        ({"sha256": "0"}, "sha256"),
    ],
)
def test_a_card_that_does_not_fit(
    refused: Refused, run_copy: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    edit_card(run_copy, **changes)
    began = time.process_time()
    line = refused("music", "generate", "--checkpoint", run_copy, "--out", tmp_path / "out", "--length", "1bar")
    assert time.process_time() - began < 10
    assert reason in line
    assert "copy" in line


@pytest.mark.parametrize("card", ["", "[]", "{}", '{"app": "music"}', '{"app": "music", "architecture": []}', "no"])
def test_a_card_that_is_none(refused: Refused, run_copy: Path, tmp_path: Path, card: str) -> None:
    (run_copy / "model.json").write_text(card)
    assert "model" in refused("music", "info", "--checkpoint", run_copy)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


def test_a_pickle_is_never_opened(refused: Refused, tmp_path: Path) -> None:
    for name, protocol in (("a.pt", 2), ("b.safetensors", 4), ("c.pkl", 0)):
        (tmp_path / name).write_bytes(pickle.dumps(Trap(), protocol))
        line = refused("music", "generate", "--checkpoint", tmp_path / name, "--out", tmp_path / "out")
        assert "pickle" in line or "no safetensors" in line
    torch.save({"weights": torch.zeros(2)}, tmp_path / "d.ckpt")
    assert "pickle" in refused("music", "info", "--checkpoint", tmp_path / "d.ckpt")
    assert "pickle" in refused("music", "info", "--checkpoint", tmp_path / "d.ckpt", "--json")


def test_models_that_are_not_there(refused: Refused, run_copy: Path, tmp_path: Path) -> None:
    assert "no such file" in refused("music", "info", "--checkpoint", tmp_path / "none")
    (tmp_path / "bare").mkdir()
    assert "no model.safetensors" in refused("music", "info", "--checkpoint", tmp_path / "bare")
    weights = run_copy / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    assert "truncated" in refused("music", "info", "--checkpoint", run_copy)
    weights.write_bytes(b"")
    assert "is empty" in refused("music", "info", "--checkpoint", run_copy)
    (run_copy / "model.json").unlink()
    weights.write_bytes(data)
    assert "card" in refused("music", "info", "--checkpoint", run_copy)


def test_a_model_for_another_verb(
    refused: Refused, tiny_run: Path, piano_run: Path, accompany_run: Path, tmp_path: Path, make_tune: Make
) -> None:
    song = tmp_path / "song.mid"
    write_midi(song, [Track("Piano", 0, False, make_tune(1, 8))])
    out = ("--out", tmp_path / "out")
    assert "accompany MELODY" in refused("music", "generate", "--checkpoint", accompany_run, *out)
    assert "accompany MELODY" in refused("music", "continue", song, "--checkpoint", accompany_run, *out)
    assert "not trained to accompany" in refused("music", "accompany", song, "--checkpoint", tiny_run, *out)
    assert "no chorale model" in refused("music", "harmonise", song, "--checkpoint", piano_run, *out)
    assert "explain" in refused("music", "explain", song, "--checkpoint", accompany_run, *out)


def test_weights_of_other_sizes(refused: Refused, run_copy: Path, tmp_path: Path) -> None:
    """A card and weights that belong together by hash, but not to this model."""
    path = run_copy / "model.safetensors"
    state = safetensors.torch.load_file(path)
    state.popitem()
    safetensors.torch.save_file(state, path)
    edit_card(run_copy, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert "do not fit" in refused("music", "info", "--checkpoint", run_copy)
