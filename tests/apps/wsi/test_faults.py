"""Bags, files and splits that cannot be used: exit code 2 and one line that names the file and the mend."""

import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.apps.wsi.conftest import write_features

QUICK = ("--set", "model.width=8", "--set", "model.hidden=4", "--set", "train.epochs=2", "--device", "cpu")


@pytest.fixture
def folder(bags_folder, tmp_path) -> Path:
    """A copy of the folder of features, to spoil, and its labels."""
    shutil.copytree(bags_folder, tmp_path / "data")
    return tmp_path / "data"


def refused(wsi, folder: Path, *words: object, labels: str = "labels.csv") -> str:
    """The line that `train` says of it; nothing is written."""
    out = folder / "run"
    code, line = wsi("train", "--data", folder / "features", "--labels", folder / labels, "--out", out, *QUICK, *words)
    assert code == 2, line
    assert line.startswith("error: ")
    assert "\n" not in line
    assert not out.exists()
    return line


def no_instance(path: Path) -> None:
    write_features(path, np.zeros((0, 12), np.float32))


def not_finite(path: Path) -> None:
    features = np.ones((6, 12), np.float32)
    features[4, 2] = np.nan
    write_features(path, features)


def wider(path: Path) -> None:
    write_features(path, np.ones((6, 13), np.float32))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def no_file_of_features(path: Path) -> None:
    path.write_text("slide,feature\n")


def other_coords(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["coords"]
        file["coords"] = np.zeros((3, 2))


def without_features(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.move("features", "kept")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_instance, "holds no instance; tile it with a lower tissue share"),
        (not_finite, "row 4 of its features is not finite (1 such rows); extract it again"),
        (wider, "slide-00 has 12 features and slide-07 has 13; extract all with one encoder"),
        (truncated, "is truncated or no HDF5 file"),
        (no_file_of_features, "is truncated or no HDF5 file"),
        (other_coords, "coords have the shape (3, 2) for"),
        (without_features, "no features, feats or feat; extract it again"),
    ],
)
def test_a_spoiled_file_is_named(wsi, folder: Path, spoil, words: str) -> None:
    path = folder / "features" / "slide-07.h5"
    spoil(path)
    line = refused(wsi, folder)
    assert words in line
    assert "slide-07" in line
    code, found = wsi("inspect", folder / "features", "--json")  # which shows all the others too
    assert code == 0
    assert len(found["features"]) == 40
    assert spoil is wider or any(row["slide"] == "slide-07" and "fault" in row for row in found["features"])
    assert ("different widths" in found.get("warning", "")) == (spoil is wider)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_hostile_pt_is_not_run(wsi, tmp_path, trained, write) -> None:
    mark, path = tmp_path / "ran", tmp_path / "slide.pt"
    write(Hostile(mark), path)
    for words in (("predict", path, "--checkpoint", trained), ("load-authors", path, "--out", tmp_path / "made")):
        code, line = wsi(*words)
        assert code == 2
        assert "holds more than tensors and is not loaded" in line
    assert not mark.exists()
    assert not (tmp_path / "made").exists()
    assert wsi("predict", tmp_path / "nowhere.pt", "--checkpoint", trained)[0] == 2


def test_a_tensor_of_another_width_is_told_with_the_models(wsi, tmp_path, trained) -> None:
    torch.save(torch.randn(5, 9), tmp_path / "slide.pt")
    code, line = wsi("predict", tmp_path / "slide.pt", "--checkpoint", trained)
    assert code == 2
    assert "has 9 features, the model" in line
    assert "wants 12" in line


def relabel(folder: Path, change) -> str:
    head, *lines = (folder / "labels.csv").read_text().splitlines()
    changed = [change(number, line.split(",")) for number, line in enumerate(lines)]
    (folder / "other.csv").write_text("\n".join([head, *(",".join(words) for words in changed)]) + "\n")
    return "other.csv"


def test_one_class_only(wsi, folder: Path) -> None:
    labels = relabel(folder, lambda number, words: [words[0], "normal", *words[2:3], ""])
    assert "all bags are of the class normal; give bags of two classes" in refused(wsi, folder, labels=labels)
    labels = relabel(folder, lambda number, words: [*words[:3], "valid" if words[1] == "tumour" else "train"])
    assert "the patient patient-00 is in train and valid" in refused(wsi, folder, labels=labels).replace(
        "valid and train", "train and valid"
    )
    labels = relabel(folder, lambda number, words: [*words[:2], words[0], "valid" if words[1] == "tumour" else "train"])
    assert "the split train holds one class only" in refused(wsi, folder, labels=labels)


def test_a_fold_that_would_have_one_class_only(wsi, folder: Path) -> None:
    labels = relabel(folder, lambda number, words: [words[0], "rare" if number < 3 else "normal", words[0], ""])
    words = ("--data", folder / "features", "--labels", folder / labels, "--out", folder / "cv", "--folds", 5)
    code, line = wsi("cross-validate", *words)
    assert code == 2
    assert "the class rare has 3 patients, which is too few for 5 folds; give at least 5" in line
    assert not (folder / "cv").exists()


def test_a_patient_in_two_parts(wsi, folder: Path) -> None:
    labels = relabel(folder, lambda number, words: [*words[:3], "test" if number == 4 else words[3]])
    line = refused(wsi, folder, labels=labels)
    assert "the patient patient-02 is in test and train (1 such patients); put each in one part" in line
    code, found = wsi("inspect", folder / "features", "--labels", folder / labels, "--json")
    assert code == 0
    assert found["leaks"] == [{"patient": "patient-02", "parts": ["test", "train"], "bags": ["slide-04", "slide-05"]}]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("slide,stage\na,1\n", "has the columns slide, stage; it needs slide and label"),
        ("slide,label\na,1\na,2\n", "line 3: the slide a is there twice"),
        ("slide,label\na,\n", "line 2: lacks a slide or a label"),
        ("slide,label\n", "has no line below its head"),
        ("slide,label\nother,1\n", "none of its slides (such as slide-00) is in"),
    ],
)
def test_a_table_of_labels_that_does_not_fit(wsi, folder: Path, table: str, words: str) -> None:
    (folder / "other.csv").write_text(table)
    assert words in refused(wsi, folder, labels="other.csv")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("1,1,0.5\n1,2\n", "give bag label, bag id, features a line"),
        ("1,1,0.5\n0,1,0.5\n", "bag 1 has two labels"),
        ("1,1,nan\n", "line 1 holds a value that is not finite"),
        ("1,1\n", "has 2 columns"),
    ],
)
def test_a_mil_table_that_does_not_fit(wsi, tmp_path, table: str, words: str) -> None:
    (tmp_path / "bags.csv").write_text(table)
    code, line = wsi("train", "--data", tmp_path / "bags.csv", "--out", tmp_path / "run", *QUICK)
    assert code == 2
    assert words in line


def test_bags_of_one_instance_and_of_fewer_than_k_train_and_are_predicted(wsi, tmp_path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "features").mkdir()
    lines = ["slide,label"]
    for index in range(12):
        features = rng.normal(size=(1 + index % 3, 5)).astype(np.float32)
        write_features(tmp_path / "features" / f"s{index:02d}.h5", features)
        lines.append(f"s{index:02d},{'ab'[index // 3 % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = ("--data", tmp_path / "features", "--labels", tmp_path / "labels.csv")
    for number, top in enumerate((10, 1)):
        run = tmp_path / f"run{number}"
        code, found = wsi("train", *data, *QUICK, "--set", f"model.top={top}", "--out", run, "--json")
        assert code == 0
        assert np.isfinite(found["valid_loss"])
    code, found = wsi("predict", tmp_path / "features", "--checkpoint", run, "--out", tmp_path / "p", "--json")
    assert code == 0
    assert [row["tiles"] for row in found["predictions"]] == [1, 2, 3] * 4
