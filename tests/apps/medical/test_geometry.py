"""Slices go back to the grid that they came from, whatever its orientation and spacing."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.medical.geometry import make_grid
from apps.medical.volumes import Volume, read_nifti, write_labels

ORIENTATIONS = ["".join(p) for axes in itertools.permutations(("RL", "AP", "SI")) for p in itertools.product(*axes)]


def affine_of(codes: str, steps: tuple[float, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (code, step) in enumerate(zip(codes, steps, strict=True)):
        row = next(i for i, pair in enumerate(("RL", "AP", "SI")) if code in pair)
        affine[row, axis] = step if code in "RAS" else -step
    affine[:3, 3] = (-20, 7, 90)
    return affine


@given(
    codes=st.sampled_from(ORIENTATIONS),
    plane=st.sampled_from(["auto", "sagittal", "coronal", "axial"]),
    steps=st.tuples(*[st.sampled_from([0.5, 1.0, 4.0])] * 3),
)
def test_cut_and_restore_are_inverse_and_slices_lie_in_one_frame(codes: str, plane: str, steps) -> None:
    rng = np.random.default_rng(0)
    voxels = rng.normal(size=(4, 5, 6))
    affine = affine_of(codes, steps)
    grid = make_grid(voxels.shape, affine, plane, None)
    cut = grid.cut(voxels)
    assert np.array_equal(grid.restore(cut), voxels)
    assert cut.shape == grid.shape
    for voxel in ((0, 0, 0), (3, 1, 5), (2, 4, 0)):
        assert cut[grid.index(voxel)] == voxels[voxel]
    if plane == "axial":  # towards superior, right, anterior, as nibabel's own canonical image
        canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels, affine)).get_fdata()
        assert np.array_equal(cut, canonical.transpose(2, 0, 1))


@pytest.mark.parametrize("codes", ["LPS", "SAL", "PIR", "RAS"])
def test_a_label_map_has_its_image_s_grid_for_nibabel(codes: str, tmp_path: Path) -> None:
    affine = affine_of(codes, (0.7, 3.0, 1.1))
    image = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32), affine)
    image.set_sform(affine, 2)
    image.set_qform(affine, 1)
    nibabel.save(image, tmp_path / "a.nii.gz")
    labels = np.random.default_rng(1).integers(0, 3, (4, 5, 6))
    write_labels(tmp_path / "b.nii.gz", labels, read_nifti(tmp_path / "a.nii.gz"))
    back = nibabel.load(tmp_path / "b.nii.gz")
    assert back.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(back.dataobj), labels)
    assert np.allclose(back.affine, image.affine)
    assert (int(back.header["sform_code"]), int(back.header["qform_code"])) == (2, 1)


def test_volume_of_a_voxel() -> None:
    volume = Volume(Path("x"), np.zeros((2, 2, 2), np.float32), np.diag([2.0, 3.0, 5.0, 1.0]))
    assert volume.voxel_ml == pytest.approx(0.03)
