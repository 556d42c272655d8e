"""Every fault is found by the doctor and refused by training: one line, the file and the mend, nothing written."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.apps.medical.conftest import scan, write

IMAGE, LABEL = Path("images/case01.nii.gz"), Path("labels/case01.nii.gz")


def nan(data: Path) -> None:
    voxels = scan(1)[0]
    voxels[3, 3, 3] = np.nan
    write(data / IMAGE, voxels)


def four_dimensions(data: Path) -> None:
    write(data / IMAGE, np.stack([scan(1)[0]] * 3, -1))


def constant(data: Path) -> None:
    write(data / IMAGE, np.full((20, 24, 12), 7, np.float32))


def other_shape(data: Path) -> None:
    write(data / LABEL, scan(1)[1][:-1])


def elsewhere(data: Path) -> None:
    affine = np.eye(4)
    affine[0, 3] = 100
    write(data / LABEL, scan(1)[1], affine)


def fractions(data: Path) -> None:
    write(data / LABEL, scan(1)[1] * np.float32(0.5))


def unmapped(data: Path) -> None:
    write(data / LABEL, scan(1)[1].astype(np.int16) * 200)


def truncated(data: Path) -> None:
    (data / IMAGE).write_bytes((data / IMAGE).read_bytes()[:2000])


def empty(data: Path) -> None:
    (data / IMAGE).write_bytes(b"")


def hostile(data: Path) -> None:
    (data / IMAGE).write_bytes(gzip.compress(pickle.dumps([1, 2, 3])))


def no_label(data: Path) -> None:
    (data / LABEL).unlink()


def repeated(data: Path) -> None:
    for number in range(2, 6):
        for part in ("images", "labels"):
            name = f"case{number:02}.nii.gz"
            (data / part / name).write_bytes((data / part / "case01.nii.gz").read_bytes())


def text(data: Path) -> None:
    (data / IMAGE).write_bytes(gzip.compress(b"case,class\n" * 100))


def plain_text(data: Path) -> None:
    (data / LABEL).unlink()
    (data / "labels" / "case01.nii").write_text("this is no scan\n" * 100)


def not_finite_label(data: Path) -> None:
    labels = scan(1)[1].astype(np.float32)
    labels[2, 2, 2] = np.inf
    write(data / LABEL, labels)


def single_slice(data: Path) -> None:
    for path, voxels in zip((IMAGE, LABEL), scan(1), strict=True):
        write(data / path, voxels[..., :1])


def singular(data: Path) -> None:
    header = bytearray(gzip.decompress((data / IMAGE).read_bytes()))
    header[296:312] = bytes(16)  # the second row of the affine
    (data / IMAGE).write_bytes(gzip.compress(header))


# What each line says is wrong, and how it says that one can mend it.
FAULTS = {
    nan: ("case01.nii.gz: holds 1 voxels that are NaN or infinite", "replace them"),
    four_dimensions: ("case01.nii.gz: is 4-D", "split it"),
    constant: ("case01.nii.gz: is constant", "leave it out"),
    single_slice: ("case01.nii.gz: has a single slice", "give a volume"),
    singular: ("case01.nii.gz: its affine is singular", "set the voxel spacing"),
    other_shape: ("case01.nii.gz: is 19 x 24 x 12 voxels, its image 20 x 24 x 12", "resample it onto the image"),
    elsewhere: ("case01.nii.gz: lies 100 mm from its image", "correct its affine"),
    fractions: ("case01.nii.gz: holds labels that are no whole numbers", "resample label maps by nearest neighbour"),
    not_finite_label: ("case01.nii.gz: holds labels that are NaN or infinite", "write it anew"),
    unmapped: ("case01.nii.gz: holds label 400", "by data.remap"),
    truncated: ("case01.nii.gz: is truncated", "copy or convert it again"),
    empty: ("case01.nii.gz: is empty", ""),
    text: ("case01.nii.gz: is truncated or no NIfTI file", "copy or convert it again"),
    plain_text: ("case01.nii: is truncated or no NIfTI file", "copy or convert it again"),
    hostile: ("case01.nii.gz: is truncated or no NIfTI file", "copy or convert it again"),
    no_label: ("case01.nii.gz: ", "has no label map; add it or take the image away"),
    repeated: ("the same image", "leave one out"),
}


@pytest.mark.parametrize(("spoil", "says"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_doctor_and_training_refuse(
    spoil, says: tuple[str, str], own_balls: Path, manyheads, tiny, tmp_path: Path
) -> None:
    spoil(own_balls)
    found = manyheads("medical", "inspect", "--data", own_balls, "--out", tmp_path / "found", "--set", "data.folds=3")
    refused = manyheads(
        "medical", "train", "--data", own_balls, "--out", tmp_path / "run", "--set", "data.folds=3", *tiny
    )
    for done in (found, refused):
        assert done.code == 2
        line = done.err.splitlines()[-1]
        assert line.startswith("error: ")
        assert all(part in line for part in says), line
    assert found.err.count("\n") == 1
    assert (tmp_path / "found" / "inspection.html").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spoil", [nan, other_shape, elsewhere, fractions, truncated], ids=lambda f: f.__name__)
def test_evaluate_refuses_before_it_writes(spoil, own_balls: Path, manyheads, tiny_run: Path, tmp_path: Path) -> None:
    spoil(own_balls)
    splits = json.loads((tiny_run / "split.json").read_text())
    split = next(name for name in ("train", "valid", "test") if "case01" in splits[name])
    arguments = ("--data", own_balls, "--split", split, "--checkpoint", tiny_run, "--out", tmp_path / "out")
    done = manyheads("medical", "evaluate", *arguments)
    assert done.code == 2
    assert FAULTS[spoil][0] in done.err
    assert not (tmp_path / "out").exists()


def test_a_sound_folder_has_no_findings(balls: Path, manyheads, tmp_path: Path) -> None:
    result = manyheads("medical", "inspect", "--data", balls, "--out", tmp_path, "--json").json()
    assert result["errors"] == result["warnings"] == 0
    assert result["cases"] == 10


@pytest.mark.parametrize(
    "spoil", [nan, four_dimensions, constant, truncated, empty, text, hostile], ids=lambda f: f.__name__
)
def test_segment_refuses_before_it_writes(spoil, own_balls: Path, manyheads, tiny_run: Path, tmp_path: Path) -> None:
    spoil(own_balls)
    out = tmp_path / "out"
    done = manyheads("medical", "segment", own_balls / "images", "--checkpoint", tiny_run, "--out", out)
    assert done.code == 2
    assert all(part in done.err for part in FAULTS[spoil])
    assert not out.exists()


def test_odd_arguments(balls: Path, manyheads, tiny_run: Path, tmp_path: Path) -> None:
    image = balls / "images" / "case00.nii.gz"
    for arguments, says in (
        (("segment", tmp_path / "none.nii.gz"), "no such file"),
        (("segment", tmp_path), "holds no .nii"),
        (("segment", image, "--dicom-seg"), "no DICOM series"),
        (("explain", image, "--voxel", "1,2"), "12,30,20"),
        (("explain", image, "--voxel", "99,2,2"), "lies outside"),
        (("classify", image), "needs one of medusa"),
        (("evaluate", "--data", tmp_path), "images/"),
    ):
        done = manyheads("medical", *arguments, "--checkpoint", tiny_run, "--out", tmp_path / "out")
        assert done.code == 2, arguments
        assert says in done.err
    assert (
        "is none of"
        in manyheads("medical", "compare", "--data", balls, "--entry", "vnet", "--out", tmp_path / "out").err
    )
    assert not (tmp_path / "out").exists()


class Marks:
    """Whoever unpickles it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def hostile_checkpoint(folder: Path, mark: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(pickle.dumps(Marks(mark)))
    (folder / "model.json").write_text("{}")
    return path


def no_card(folder: Path, mark: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return path


@pytest.mark.parametrize(
    ("make", "says"), [(hostile_checkpoint, "is a pickle"), (no_card, "its card model.json is missing")]
)
def test_a_checkpoint_of_unknown_origin(make, says: str, balls: Path, manyheads, tmp_path: Path) -> None:
    mark, image = tmp_path / "mark", balls / "images" / "case00.nii.gz"
    path = make(tmp_path, mark)
    for arguments in (("segment", image), ("evaluate", "--data", balls), ("explain", image)):
        done = manyheads("medical", *arguments, "--checkpoint", path, "--out", tmp_path / "out")
        assert done.code == 2
        assert says in done.err
        assert done.err.count("\n") == 1
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_nothing(manyheads, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "hollow" / "images").mkdir(parents=True)
    (tmp_path / "hollow" / "labels").mkdir()
    (tmp_path / "file.txt").write_text("no scan")
    for name, says in {
        "bare": "has no images/ and labels/",
        "hollow": "holds no .nii",
        "missing": "no such file",
        "file.txt": "is no folder with images/ and labels/",
    }.items():
        for verb in ("inspect", "train"):
            done = manyheads("medical", verb, "--data", tmp_path / name, "--out", tmp_path / "out")
            assert done.code == 2
            assert f"{name}" in done.err
            assert says in done.err
    assert not (tmp_path / "out").exists()


def test_a_prediction_without_the_organ_has_finite_distances(
    own_balls: Path, manyheads, tiny_run: Path, tmp_path: Path
) -> None:
    """MONAI's own answer is NaN, which a mean then carries on."""
    for number in range(6):
        write(own_balls / "labels" / f"case{number:02}.nii.gz", np.where(scan(number)[1] == 1, 2, 0).astype(np.uint8))
    done = manyheads(
        "medical",
        "evaluate",
        "--data",
        own_balls,
        "--split",
        "train",
        "--checkpoint",
        tiny_run,
        "--out",
        tmp_path,
        "--json",
    )
    organs = {row["organ"]: row for row in done.json()["organs"]}
    assert np.isfinite([row["hd95_mm"] for row in organs.values()]).all()
    assert organs["1"]["invented"] > 0
    assert organs["1"]["dice"] < 0.1
