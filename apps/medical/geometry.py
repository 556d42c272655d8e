"""From a volume as its file has it to slices of one plane at one spacing, and exactly back.

House notation: X, Y, Z the axes of the file; S slices, H and W the sides of a slice after resampling.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

PLANES = ("sagittal", "coronal", "axial")  # the axis across the slices, of R, A, S


@dataclass(frozen=True)
class Grid:
    """How slices of a volume were cut, so that what is found in them goes back to the file's own grid."""

    order: tuple[int, int, int]  # the file's axes as slices, rows, columns
    flips: tuple[bool, bool, bool]  # of those axes, to run towards right, anterior, superior
    shape: tuple[int, int, int]  # slices, rows and columns before resampling
    size: tuple[int, int]  # rows and columns after it
    spacing: tuple[float, float, float]  # mm, of slices, rows, columns before resampling

    def cut(self, voxels: np.ndarray) -> np.ndarray:
        """(X, Y, Z) -> (S, rows, columns), not resampled; a view."""
        turned = voxels.transpose(self.order)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def restore(self, slices: np.ndarray) -> np.ndarray:
        """(S, rows, columns) -> (X, Y, Z): the inverse of `cut`."""
        turned = slices[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return turned.transpose(np.argsort(self.order))

    def index(self, voxel: tuple[int, int, int]) -> tuple[int, int, int]:
        """A voxel of the file as (slice, row, column) before resampling."""
        turned = [voxel[axis] for axis in self.order]
        return tuple(n - 1 - i if flip else i for i, n, flip in zip(turned, self.shape, self.flips, strict=True))


def make_grid(shape: tuple[int, ...], affine: np.ndarray, plane: str, spacing: float | None) -> Grid:
    """The slices of a volume: `plane` by the anatomy, or "auto", across the axis with the largest spacing.

    An oblique volume is cut along its own axes, each taken for the anatomical one that it is nearest to.
    """
    import nibabel

    towards = nibabel.orientations.io_orientation(affine)  # for each axis of the file: which of R, A, S, and its sign
    anatomy = [int(np.flatnonzero(towards[:, 0] == axis)[0]) for axis in range(3)]
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if plane == "auto":
        widest = [axis for axis in range(3) if steps[axis] > 0.99 * steps.max()]
        across = anatomy.index(anatomy[2] if anatomy[2] in widest else widest[-1])
    else:
        across = PLANES.index(plane)
    order = tuple(anatomy[axis] for axis in (across, *(axis for axis in range(3) if axis != across)))
    rows, columns = ((shape[axis], steps[axis]) for axis in order[1:])
    size = [max(1, round(count * step / (spacing or step))) for count, step in (rows, columns)]
    return Grid(
        order,
        tuple(bool(towards[axis, 1] < 0) for axis in order),
        tuple(int(shape[axis]) for axis in order),
        (size[0], size[1]),
        tuple(float(steps[axis]) for axis in order),
    )


def resampled(slices: np.ndarray, size: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    """(S, rows, columns) -> (S, *size), in the plane; smoothed where coarser. Labels by nearest neighbour."""
    if slices.shape[1:] == tuple(size):
        return slices
    tensor = torch.from_numpy(np.ascontiguousarray(slices, dtype=np.float32))[:, None]
    if nearest:
        return F.interpolate(tensor, size=size, mode="nearest-exact")[:, 0].numpy().astype(slices.dtype)
    coarser = size[0] < slices.shape[1] or size[1] < slices.shape[2]
    return F.interpolate(tensor, size=size, mode="bilinear", antialias=coarser)[:, 0].numpy()


def normalised(slices: np.ndarray, clip: tuple[float, float] | None) -> np.ndarray:
    """Intensities for the model: z-scores of the volume, or `clip` to -1 .. 1."""
    if clip is None:
        return (slices - slices.mean()) / max(float(slices.std()), 1e-6)
    low, high = clip
    return (np.clip(slices, low, high) - low) * (2 / (high - low)) - 1
