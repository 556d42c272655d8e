"""Every fault is found by the doctor and refused by training: one line, the file and the mend, nothing written."""

import gzip
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


FAULTS = {
    nan: "NaN or infinite",
    four_dimensions: "is 4-D",
    constant: "is constant",
    other_shape: "resample it onto the image",
    elsewhere: "lies 100 mm from its image",
    fractions: "no whole numbers",
    unmapped: "data.remap",
    truncated: "truncated",
    empty: "is empty",
    hostile: "no NIfTI file",
    no_label: "no label map",
    repeated: "the same image",
}


@pytest.mark.parametrize(("spoil", "says"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_doctor_and_training_refuse(spoil, says: str, own_balls: Path, medical, tiny, tmp_path: Path) -> None:
    spoil(own_balls)
    found = medical("inspect", "--data", own_balls, "--out", tmp_path / "found", "--set", "data.folds=3")
    assert found.code == 2
    assert says in found.err
    assert found.err.count("\n") == 1
    assert (tmp_path / "found" / "inspection.html").exists()
    refused = medical("train", "--data", own_balls, "--out", tmp_path / "run", "--set", "data.folds=3", *tiny)
    assert refused.code == 2
    assert says in refused.err
    assert refused.err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "run").exists()


def test_a_sound_folder_has_no_findings(balls: Path, medical, tmp_path: Path) -> None:
    result = medical("inspect", "--data", balls, "--out", tmp_path, "--json").json()
    assert result["errors"] == result["warnings"] == 0
    assert result["cases"] == 10


@pytest.mark.parametrize("spoil", [nan, four_dimensions, constant, truncated, empty, hostile], ids=lambda f: f.__name__)
def test_segment_refuses_before_it_writes(spoil, own_balls: Path, medical, tiny_run: Path, tmp_path: Path) -> None:
    spoil(own_balls)
    out = tmp_path / "out"
    done = medical("segment", own_balls / "images", "--checkpoint", tiny_run, "--out", out)
    assert done.code == 2
    assert FAULTS[spoil] in done.err
    assert not out.exists()


def test_odd_arguments(balls: Path, medical, tiny_run: Path, tmp_path: Path) -> None:
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
        done = medical(*arguments, "--checkpoint", tiny_run, "--out", tmp_path / "out")
        assert done.code == 2, arguments
        assert says in done.err
    assert "is none of" in medical("compare", "--data", balls, "--entry", "vnet", "--out", tmp_path / "out").err
    assert not (tmp_path / "out").exists()
