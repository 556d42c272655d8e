"""Scans and label maps as files: NIfTI and DICOM series in, NIfTI out, and what is wrong with one told in a line.

House notation: X, Y, Z the axes of a volume as the file has them; K labels besides the background, which is 0.
"""

import gzip
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import InputError
from shared.io.files import input_file, replacing

NIFTI = (".nii", ".nii.gz")
LARGEST_LABEL = 65_535


@dataclass(frozen=True)
class Volume:
    """One scan as it lies in its file: voxels (X, Y, Z) float32, the affine to mm (RAS+), and the file's header."""

    path: Path
    voxels: np.ndarray
    affine: np.ndarray
    header: Any = field(default=None, repr=False)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm between the centres of neighbouring voxels, an axis each."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_ml(self) -> float:
        """The volume of a voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def sha256(self) -> str:
        """Of the voxels alone: the same image under another name or header has the same."""
        return hashlib.sha256(np.ascontiguousarray(self.voxels).tobytes()).hexdigest()


def is_nifti(path: Path) -> bool:
    return path.name.endswith(NIFTI)


def stem(path: Path) -> str:
    """The name of a scan without `.nii` and `.gz`."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def read_volume(path: Path) -> Volume:
    """A scan: a NIfTI file, or a folder with the files of one DICOM series. Raises InputError for one that is unfit."""
    if path.is_dir():
        from apps.medical.dicom import read_series

        volume = read_series(path)
    else:
        volume = read_nifti(path)
    return check_voxels(volume)


def read_nifti(path: Path) -> Volume:
    """The file's content unchecked but for its shape and its affine. Raises InputError."""
    if not is_nifti(input_file(path)):
        raise InputError(f"{path}: is no NIfTI file (.nii, .nii.gz) and no folder of DICOM files; convert it first")
    import nibabel

    try:
        image = nibabel.Nifti1Image.from_filename(path)
        data: Any = image.dataobj
        if image.get_data_dtype().names or np.issubdtype(image.get_data_dtype(), np.complexfloating):
            raise InputError(f"{path}: holds colours or complex numbers; give one number a voxel")
        voxels = np.asarray(data, dtype=np.float32)
    except InputError:
        raise
    except Exception as error:  # nibabel and zlib raise whatever a damaged header leads to
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{path}: is truncated or no NIfTI file ({reason}); copy or convert it again") from None
    if voxels.ndim > 3 and voxels.shape[3:] == (1,) * (voxels.ndim - 3):
        voxels = voxels.reshape(voxels.shape[:3])
    if voxels.ndim != 3:
        kind = f"is {voxels.ndim}-D ({' x '.join(map(str, voxels.shape))})"
        raise InputError(f"{path}: {kind}; give one 3-D volume a file, so split it or take one time point")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: its affine is singular or not finite; set the voxel spacing in its header")
    return Volume(path, voxels, affine, image.header)


def check_voxels(volume: Volume) -> Volume:
    """The scan itself. Raises InputError for NaN and infinite voxels, and for a constant image."""
    voxels = volume.voxels
    if wrong := int(voxels.size - np.isfinite(voxels).sum()):
        raise InputError(f"{volume.path}: holds {wrong} voxels that are NaN or infinite; replace them, by 0 or air")
    if voxels.size == 0 or voxels.min() == voxels.max():
        raise InputError(f"{volume.path}: is constant ({voxels.flat[0] if voxels.size else 'empty'}); leave it out")
    if min(voxels.shape) < 2:
        raise InputError(f"{volume.path}: has a single slice; give a volume of two slices or more")
    return volume


def read_labels(path: Path, remap: dict[str, int] | None = None) -> Volume:
    """A label map as whole numbers, its values replaced by `remap`. Raises InputError for one that is unfit."""
    volume = read_nifti(path)
    voxels = volume.voxels
    if not np.isfinite(voxels).all():
        raise InputError(f"{path}: holds labels that are NaN or infinite; write it anew with whole numbers")
    whole = np.rint(voxels)
    if np.abs(whole - voxels).max(initial=0) > 1e-3:
        raise InputError(f"{path}: holds labels that are no whole numbers; resample label maps by nearest neighbour")
    if whole.min(initial=0) < 0 or whole.max(initial=0) > LARGEST_LABEL:
        raise InputError(f"{path}: holds labels outside of 0 to {LARGEST_LABEL}; write it anew")
    return Volume(path, mapped(whole.astype(np.int32), remap or {}), volume.affine, volume.header)


def mapped(labels: np.ndarray, remap: dict[str, int]) -> np.ndarray:
    """Label values replaced; those that `remap` does not name become background when it names any."""
    if not remap:
        return labels
    table = np.zeros(LARGEST_LABEL + 1, dtype=np.int32)
    for value, label in remap.items():
        table[min(int(value), LARGEST_LABEL)] = label
    return table[labels]


def same_grid(image: Volume, labels: Volume) -> None:
    """Raises InputError when a label map lies on another grid than its image (shape, or place in mm)."""
    if image.voxels.shape != labels.voxels.shape:
        shapes = [" x ".join(map(str, one.voxels.shape)) for one in (labels, image)]
        raise InputError(f"{labels.path}: is {shapes[0]} voxels, its image {shapes[1]}; resample it onto the image")
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= np.array(image.voxels.shape) - 1
    apart = float(np.linalg.norm(corners @ (image.affine - labels.affine).T, axis=1).max())
    if apart > 0.25 * min(image.spacing):
        raise InputError(f"{labels.path}: lies {apart:.3g} mm from its image; correct its affine or resample it")


def write_labels(path: Path, labels: np.ndarray, like: Volume) -> None:
    """A label map (X, Y, Z) as uint8 on the grid of `like`: its affine, its codes of orientation, its units."""
    import nibabel

    image = nibabel.Nifti1Image(labels.astype(np.uint8), like.affine)
    if like.header is not None:
        for form in ("sform", "qform"):
            matrix, code = getattr(like.header, f"get_{form}")(coded=True)
            getattr(image, f"set_{form}")(matrix if code else None, int(code))
        image.header.set_xyzt_units(*like.header.get_xyzt_units())
    with replacing(path) as partial:
        # nibabel goes by the suffix, of which `replacing` keeps the last part.
        data = image.to_bytes()
        partial.write_bytes(gzip.compress(data, 6, mtime=0) if path.name.endswith(".gz") else data)
