"""Input that cannot be used: one line that names the file, the place and the mend; nothing is written."""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.command_line import Manyheads, Refused


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clips, tmp_path / "data"))


def change(folder: Path, edit: Callable[[dict], Any]) -> None:
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    edit(content["database"])
    path.write_text(json.dumps(content))


def segment(start: Any, end: Any, label: Any = "jump") -> Callable[[dict], Any]:
    row = {"segment": [start, end], "label": label}
    return lambda database: database["clip-00"].update(annotations=[row])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (segment(3, 3), "zero length"),
        (segment(5, 3), "negative length"),
        (segment(25, 45), "ends after the recording, which is 30 s"),
        (segment(-2, 3), "begins before 0"),
        (segment("soon", 3), "'soon' is no number"),
        (segment(float("nan"), 3), "no number"),
        (segment(1, 3, ""), "no label"),
        (lambda d: d["clip-00"].update(annotations=[{"label": "jump"}]), "no segment of two times"),
        (lambda d: d["clip-00"].update(annotations="none"), "list of annotations"),
        (lambda d: d["clip-00"].update(subset="holdout"), "'holdout' is unknown"),
        (lambda d: d.update({"clip-99": {"annotations": []}}), "clip-99: there are no features"),
        (lambda d: d.update({"../secret": {"annotations": []}}), "no name of a recording"),
        (lambda d: [entry.update(annotations=[]) for entry in d.values()], "no segment at all"),
        (lambda d: d.clear(), "holds no annotations"),
        (segment("1:2:3:4", 3), "'1:2:3:4' is no number"),
        (lambda d: d["clip-00"].update(subset="testing"), "clip-01: has no subset, though others have"),
    ],
)
def test_annotations(refused: Refused, folder: Path, edit: Callable, words: str) -> None:
    change(folder, edit)
    line = refused("action", "train", "--data", folder, "--out", folder / "run")
    assert words in line
    assert "annotations.json" in line
    assert not (folder / "run" / "model.safetensors").exists()


def test_repair_and_inspect(manyheads: Manyheads, folder: Path) -> None:
    change(folder, segment(25, 45))
    done = manyheads("action", "inspect", "--data", folder, "--json")
    report = json.loads(done.out)
    assert not report["usable"]
    assert done.code == 2
    assert "ends after the recording" in done.err
    assert "ends after the recording" in report["problems"][0]
    mended = manyheads("action", "inspect", "--data", folder, "--set", "data.repair=true", "--json").json()
    assert mended["usable"]
    assert mended["skipped"]


def test_classes_and_features(refused: Refused, folder: Path) -> None:
    features = folder / "features"
    (folder / "classes.txt").write_text("jump\nturn\n")
    assert "unknown class" in refused("action", "train", "--data", folder)
    (folder / "classes.txt").write_text("jump\njump\n")
    assert "twice" in refused("action", "train", "--data", folder)
    (folder / "classes.txt").unlink()
    assert "30 s" in refused("action", "train", "--data", folder, "--set", "data.snippet_seconds=0.2")
    good = np.load(features / "clip-00.npy")
    for values, words in (
        (np.full_like(good, np.nan), "no finite number"),
        (good[:0], "shape (0, 6)"),
        (good[:, 0], "shape (60,)"),
        (good[:, :5], "has 6 channels, clip-00 has 5"),
        (np.array([["a", "b"]]), "type <U1"),
    ):
        np.save(features / "clip-00.npy", values)
        assert words in refused("action", "train", "--data", folder)
    np.save(features / "clip-00.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "never loaded" in refused("action", "train", "--data", folder)
    (features / "clip-00.npy").write_bytes(b"\x93NUMPY\x01\x00broken")
    assert "damaged" in refused("action", "train", "--data", folder)
    (features / "clip-00.npy").write_bytes(b"")
    assert "is empty" in refused("action", "train", "--data", folder)


def test_classes_without_a_segment(refused: Refused, folder: Path) -> None:
    (folder / "classes.txt").write_text("jump\nturn\n")
    change(folder, lambda d: [entry.update(annotations=[]) for entry in d.values()])
    for verb in ("inspect", "train"):
        assert "no segment at all" in refused("action", verb, "--data", folder)


def test_folders_that_are_none(refused: Refused, tmp_path: Path) -> None:
    assert "no such" in refused("action", "train", "--data", tmp_path / "none")
    assert "has no annotations" in refused("action", "train", "--data", tmp_path)
    (tmp_path / "annotations.csv").write_text("a,b,c\n1,2,3\n")
    assert "name the columns" in refused("action", "train", "--data", tmp_path)
    (tmp_path / "annotations.csv").write_text("recording,start,end,label\nclip,1\n")
    assert "too few" in refused("action", "train", "--data", tmp_path)
    (tmp_path / "annotations.csv").write_text("recording,start,end,label\nclip,1,2,x\n")
    assert "no folder features" in refused("action", "train", "--data", tmp_path)
    (tmp_path / "annotations.csv").write_bytes(b"\xef\xbb\xbf")
    assert "holds no annotations" in refused("action", "train", "--data", tmp_path)
    (tmp_path / "annotations.csv").write_text("recording,start,end,label\nclip,1,2," + 200_000 * "x" + "\n")
    assert "is no table (field larger" in refused("action", "train", "--data", tmp_path)
    (tmp_path / "annotations.csv").write_text("recording,start,end,label\nclip,1,2,x\n")
    (tmp_path / "videos").mkdir()
    assert "manyheads action extract" in refused("action", "train", "--data", tmp_path)
    (tmp_path / "salads.tar.gz").write_bytes(b"\x1f\x8b broken")
    assert "truncated or no archive" in refused("action", "train", "--data", tmp_path / "salads.tar.gz")
    with tarfile.open(tmp_path / "mine.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "annotations.csv", "annotations.csv")
    assert "unpack data of your own and give the folder" in refused(
        "action", "train", "--data", tmp_path / "mine.tar.gz"
    )


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model.attention=cbam", "model.attention"),
        ("model.longest=200", "data.window"),
        ("detect.low=0.95", "detect.high"),
        ("data.windw=3", "did you mean window"),
        ("data.fold=9", "none of the 5 folds"),
        ("train.batch=0", "train.batch"),
    ],
)
def test_settings(refused: Refused, clips: Path, tmp_path: Path, setting: str, named: str) -> None:
    assert named in refused("action", "train", "--data", clips, "--set", setting, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_that_cannot_be_detected_in(refused: Refused, run: Path, clips: Path, tmp_path: Path) -> None:
    word = ("--checkpoint", run, "--out", tmp_path / "out")
    np.save(tmp_path / "wide.npy", np.zeros((20, 9)))
    assert "has 9 channels, the model reads 6" in refused("action", "detect", tmp_path / "wide.npy", *word)
    (tmp_path / "clip.mp4").write_bytes(b"\0" * 100)
    assert "is a video, but the model reads features" in refused("action", "detect", tmp_path / "clip.mp4", *word)
    assert "no such file" in refused("action", "detect", tmp_path / "none.npy", *word)
    (tmp_path / "notes.docx").write_bytes(b"PK")
    assert "is no array file" in refused("action", "detect", tmp_path / "notes.docx", *word)
    file = clips / "features" / "clip-00.npy"
    assert "name of two recordings" in refused("action", "detect", file, file, *word)
    assert "by standard input" in refused("action", "stream", "-", "--checkpoint", run)
    assert not (tmp_path / "out").exists()


def test_features_of_other_snippets(refused: Refused, run: Path, folder: Path) -> None:
    """The same width, but each snippet lasts twice as long as those that the model has learned from."""
    (folder / "features" / "extracted.json").write_text('{"snippet_seconds": 1.0}')
    change(folder, lambda d: [entry.update(duration=60.0) for entry in d.values()])
    word = ("--checkpoint", run, "--out", folder / "out")
    line = refused("action", "detect", folder / "features" / "clip-00.npy", *word)
    assert "has snippets of 1 s, the model reads 0.5 s" in line
    assert "has snippets of 1 s, the model reads 0.5 s" in refused("action", "evaluate", "--data", folder, *word)
    (folder / "features" / "extracted.json").write_text("[]")
    assert "names no snippet_seconds" in refused("action", "detect", folder / "features" / "clip-00.npy", *word)
    assert not (folder / "out").exists()


def test_models_that_are_none(refused: Refused, run: Path, clips: Path, tmp_path: Path) -> None:
    file = clips / "features" / "clip-00.npy"
    for name in ("model.safetensors", "model.json"):
        shutil.copy(run / name, tmp_path / name)
    card = json.loads((tmp_path / "model.json").read_text())
    for key, value, words in (
        ("labels", ["a"], "1 labels for 3 classes"),
        ("app", "music", "model of the music app"),
        ("scaling", {"mean": [0], "spread": [1]}, "other channels"),
    ):
        (tmp_path / "model.json").write_text(json.dumps({**card, key: value}))
        assert words in refused("action", "detect", file, "--checkpoint", tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**card, "architecture": {**card["architecture"], "dim": 10**6}}))
    assert "do not fit" in refused("action", "detect", file, "--checkpoint", tmp_path)
