"""DICOM series through every verb, and segmentation objects that others can read: on the files that pydicom brings."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pydicom.data
import pytest

from apps.medical.dicom import read_headers, write_dicom_seg
from apps.medical.volumes import read_volume, write_labels

BROUGHT = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests"


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A data folder's images/ct: five slices of a CT, 2.5 mm apart."""
    brought = BROUGHT / "98892001" / "CT5N"
    if not brought.is_dir():
        pytest.skip("this pydicom does not bring its DICOMDIR test files")
    return Path(shutil.copytree(brought, tmp_path / "data" / "images" / "ct"))


def two_labels(shape: tuple[int, ...]) -> np.ndarray:
    """Label 1 in the first three slices, 2 in the fourth, none in the last."""
    labels = np.zeros(shape, np.uint8)
    labels[2:7, 3:9, :3] = 1
    labels[9:12, 1:3, 3] = 2
    return labels


def test_every_verb_serves_a_series(series: Path, manyheads, tiny_run: Path, medusa_run: Path, tmp_path: Path) -> None:
    volume = read_volume(series)
    data = series.parents[1]
    write_labels(data / "labels" / "ct.nii.gz", two_labels(volume.voxels.shape), volume)
    assert manyheads("medical", "inspect", "--data", data, "--out", tmp_path / "found", "--json").json()["errors"] == 0
    checkpoint, out = ("--checkpoint", tiny_run), ("--out", tmp_path / "out", "--json")
    manyheads("medical", "segment", series, *checkpoint, *out).json()
    back = nibabel.load(tmp_path / "out" / "ct_seg.nii.gz")
    assert back.shape == volume.voxels.shape
    assert np.allclose(back.affine, volume.affine)
    measured = manyheads("medical", "evaluate", "--data", data, *checkpoint, *out).json()
    assert measured["data"]["cases"] == 1
    assert "not those of the model" in measured["note"]
    explained = manyheads("medical", "explain", series, "--voxel", "4,5,1", *checkpoint, *out).json()
    assert explained["voxel"] == [4, 5, 1]
    said = manyheads("medical", "classify", series, "--checkpoint", medusa_run, *out).json()
    assert [row["scan"] for row in said["scans"]] == ["ct"]


def test_a_series_lies_where_its_headers_say(series: Path) -> None:
    volume = read_volume(series)
    for one in read_headers(series):
        right, back, up = one.ImagePositionPatient
        at = np.linalg.inv(volume.affine) @ np.array([-right, -back, up, 1])
        assert np.allclose(at, np.rint(at), atol=1e-3)
        pixels = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
        assert np.allclose(volume.voxels[:, :, round(at[2])].T, pixels)


@pytest.mark.parametrize("blank", [(), ("FrameOfReferenceUID", "StudyInstanceUID"), ("SOPInstanceUID",)], ids=str)
def test_a_segmentation_object_has_the_frames_of_its_labels(blank: tuple[str, ...], series: Path, tmp_path: Path):
    highdicom = pytest.importorskip("highdicom")
    for path in series.iterdir():
        one = pydicom.dcmread(path)
        for keyword in blank:
            setattr(one, keyword, "")
        one.save_as(path)
    labels = two_labels(read_volume(series).voxels.shape)
    path = tmp_path / "seg.dcm"
    write_dicom_seg(path, series, labels, ["liver", "spleen"], "abc")
    seg = highdicom.seg.segread(path)
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["liver", "spleen"]
    assert seg.NumberOfFrames == 4  # slices without the organ have none
    assert seg.StudyInstanceUID
    assert seg.FrameOfReferenceUID
    found = np.zeros_like(labels)
    headers = read_headers(series)
    places = np.array([one.ImagePositionPatient for one in headers], float)
    plain = pydicom.dcmread(path)
    for frame, facts in zip(plain.pixel_array, plain.PerFrameFunctionalGroupsSequence, strict=True):
        place = np.array(facts.PlanePositionSequence[0].ImagePositionPatient, float)
        at = int(np.linalg.norm(places - place, axis=1).argmin())
        found[:, :, at] += frame.T * np.uint8(facts.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    assert np.array_equal(found, labels)
    if "SOPInstanceUID" not in blank:  # those made up for the object are in no file
        pixels = seg.get_pixels_by_source_instance(
            [one.SOPInstanceUID for one in headers], combine_segments=True, assert_missing_frames_are_empty=True
        )
        assert np.array_equal(pixels.transpose(2, 1, 0), labels)


def test_segment_writes_the_object_beside_the_label_map(
    series: Path, manyheads, tiny_run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom")
    out = tmp_path / "out"
    manyheads("medical", "segment", series, "--checkpoint", tiny_run, "--out", out, "--dicom-seg", "--json").json()
    found = np.asarray(nibabel.load(out / "ct_seg.nii.gz").dataobj)
    assert (out / "ct_seg.dcm").exists() == found.any()


def changed(series: Path, **values: object) -> None:
    path = sorted(series.iterdir())[0]
    one = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(one, keyword, value)
    one.save_as(path)


def gap(series: Path) -> None:
    Path(read_headers(series)[2].filename).unlink()


def double(series: Path) -> None:
    shutil.copy(sorted(series.iterdir())[0], series / "again")


def scout(series: Path) -> None:
    changed(series, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])


def several(series: Path) -> None:
    changed(series, SeriesInstanceUID="1.2.3")


def cut(series: Path) -> None:
    path = sorted(series.iterdir())[0]
    path.write_bytes(path.read_bytes()[:-200])


BROKEN = {
    gap: "add what is missing",
    double: "leave one out",
    scout: "leave scouts out",
    several: "holds 2 series",
    cut: "convert it first",
}


@pytest.mark.parametrize(("spoil", "says"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_series_that_is_no_volume_is_refused(
    spoil, says: str, series: Path, manyheads, tiny_run: Path, tmp_path: Path
) -> None:
    spoil(series)
    done = manyheads("medical", "segment", series, "--checkpoint", tiny_run, "--out", tmp_path / "out")
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
