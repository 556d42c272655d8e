"""Data and settings that cannot be trained on or evaluated: refused in one line, with nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Manyheads, Refused, sets

Make = Callable[..., Any]


def test_data_that_cannot_be_trained_on(
    refused: Refused, tmp_path: Path, midi_folder: Path, chorales_json: Path
) -> None:
    out = ("--out", tmp_path / "out")
    piano = (*out, "--set", "data.codec=performance")
    assert "no such file" in refused("music", "train", "--data", tmp_path / "none", *out)
    (tmp_path / "bare").mkdir()
    assert "holds no .mid" in refused("music", "train", "--data", tmp_path / "bare", *piano)
    (tmp_path / "bad").mkdir()
    for name in ("a.mid", "b.midi"):
        (tmp_path / "bad" / name).write_bytes(b"RIFF----")
    line = refused("music", "train", "--data", tmp_path / "bad", *piano)
    assert "none of its 2 files" in line
    assert "a.mid: is not a MIDI file" in line
    assert "--data" in refused("music", "train", *piano)
    assert "chorale" in refused("music", "train", "--data", chorales_json, *piano)
    (tmp_path / "pair").mkdir()
    shutil.copy(midi_folder / "tune0.mid", tmp_path / "pair")
    assert "valid split is empty" in refused("music", "train", "--data", tmp_path / "pair", *piano)
    line = refused("music", "train", "--data", midi_folder, *piano, "--set", "data.accompany=true")
    assert "POP909" in line
    (tmp_path / "data.zip").write_bytes(b"PK\x03\x04")
    assert "data.zip" in refused("music", "train", "--data", tmp_path / "data.zip", *piano)
    (tmp_path / "half.json").write_text('{"train": [')
    assert "half.json" in refused("music", "train", "--data", tmp_path / "half.json", *out)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model.layers=0", "model.layers"),
        ("model.layers=many", "model.layers"),
        ("model.lairs=3", "layers"),
        ("layers=3", "layers"),
        ("model.layers", "field=value"),
        ("=3", "field=value"),
        ("model=3", "model"),
        ("model.heads=3", "divisible"),
        ("train.learning_rate=nan", "learning_rate"),
        ("train.learning_rate=inf", "learning_rate"),
        ("train.minutes=nan", "minutes"),
        ("data.stretches=[0]", "stretches"),
        ("data.stretches=[]", "stretches"),
        ("data.codec=opera", "data.codec"),
        ("data.accompany=true", "accompany"),
    ],
)
def test_settings_that_are_wrong(
    refused: Refused, tmp_path: Path, chorales_json: Path, setting: str, named: str
) -> None:
    line = refused("music", "train", "--data", chorales_json, "--out", tmp_path / "out", "--set", setting)
    assert named in line


@pytest.mark.parametrize("text", ["[model]\nlairs = 3", "[model\n", "\xff\xfe", ""])
def test_a_configuration_that_is_wrong(refused: Refused, tmp_path: Path, chorales_json: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("latin-1"))
    line = refused("music", "train", "--data", chorales_json, "--out", tmp_path / "out", "--config", path)
    assert "mine.toml" in line
    assert "is no file, nor one of accompany" in refused(
        "music", "train", "--data", chorales_json, "--out", tmp_path / "out", "--config", "chorle"
    )


def test_hardware_that_is_not_there(refused: Refused, tmp_path: Path, chorales_json: Path) -> None:
    options = ("--data", chorales_json, "--out", tmp_path / "out", "--device", "cpu")
    for name, value in (("--devices", "0"), ("--devices", "many"), ("--strategy", "magic"), ("--precision", "3-bit")):
        assert name in refused("music", "train", *options, name, value)
    assert "not divisible" in refused("music", "train", *options, "--devices", "2", "--set", "train.batch=7")


def test_a_run_that_is_there_is_kept(
    refused: Refused, tiny_run: Path, tiny: list[str], tmp_path: Path, chorales_json: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    options = ["--data", chorales_json, "--out", tmp_path / "run"]
    assert "--resume" in refused("music", "train", *options)
    for setting in [*tiny, "train.epochs=3", "model.layers=3"]:
        options += ["--set", setting]
    assert "model.layers is 2 there, not 3" in refused("music", "train", *options, "--resume")


def test_other_data_cannot_be_resumed(
    manyheads: Manyheads, refused: Refused, tiny: list[str], chorales_json: Path, tmp_path: Path
) -> None:
    """The run would go on with other music, and its card would name that alone."""
    options = sets(*tiny, "train.epochs=1", "train.steps=2")
    out = ("--out", tmp_path / "run", "--device", "cpu", *options)
    assert manyheads("music", "train", "--data", chorales_json, *out).code == 0
    splits = json.loads(chorales_json.read_text())
    splits["train"] = splits["train"][:20]
    (tmp_path / "other.json").write_text(json.dumps(splits))
    assert "data" in refused("music", "train", "--data", tmp_path / "other.json", *out, "--resume")


def test_an_empty_split(refused: Refused, tiny_run: Path, tmp_path: Path, chorales_json: Path) -> None:
    splits = json.loads(chorales_json.read_text())
    splits["test"] = []
    (tmp_path / "data.json").write_text(json.dumps(splits))
    options = ("--data", tmp_path / "data.json", "--checkpoint", tiny_run, "--out", tmp_path / "out")
    assert "--split" in refused("music", "evaluate", *options)


def test_data_for_another_model(
    refused: Refused,
    tiny_run: Path,
    piano_run: Path,
    accompany_run: Path,
    chorales_json: Path,
    midi_folder: Path,
    tmp_path: Path,
) -> None:
    out = ("--out", tmp_path / "out")
    assert "chorale" in refused("music", "evaluate", "--checkpoint", piano_run, "--data", chorales_json, *out)
    assert "--data" in refused("music", "evaluate", "--checkpoint", piano_run, *out)
    assert "POP909" in refused("music", "evaluate", "--checkpoint", accompany_run, "--data", midi_folder, *out)
    song = midi_folder / "tune0.mid"
    assert "--data" in refused("music", "report", song, "--codec", "performance", *out)
