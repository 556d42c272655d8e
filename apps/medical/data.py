"""Slices of all cases in memory, and the batches drawn of them. Draws are a function of (seed, epoch), so that a
resumed run repeats them.

House notation: B batch, C channels with the neighbouring slices, S slices, H and W the sides of a slice.
"""

import hashlib
import itertools
import math
from dataclasses import dataclass, replace

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from apps.medical.cases import SPLITS, Case, split_cases
from apps.medical.config import DataConfig
from apps.medical.geometry import Grid, make_grid, normalised, resampled
from apps.medical.volumes import Volume, read_labels, read_volume, same_grid
from shared.command import progress
from shared.errors import InputError


@dataclass(frozen=True)
class Slices:
    """A case ready for the model: images (S, channels, H, W) float32, and where there are labels, those (S, H, W) uint8
    and the truth, which is not resampled (S, rows, columns)."""

    case: Case
    volume: Volume
    grid: Grid
    images: np.ndarray
    labels: np.ndarray | None
    truth: np.ndarray | None
    sha256: str

    def stack(self, at: np.ndarray, config: DataConfig) -> np.ndarray:
        """(B, channels, H, W): slices with their neighbours, the outermost ones repeated; with `place`, three channels
        more that run from -1 to 1 across the slices, the rows and the columns of the volume."""
        near = np.clip(at[:, None] + np.arange(config.context) - config.context // 2, 0, len(self.images) - 1)
        images = self.images[near].reshape(len(at), -1, *self.images.shape[2:])
        if not config.place:
            return images
        (rows, columns), count = self.grid.size, len(self.images)
        ramps = [
            2 * np.arange(n) / max(1, size - 1) - 1 for n, size in zip(images.shape[2:], (rows, columns), strict=True)
        ]
        place = np.empty((len(at), 3, *images.shape[2:]), dtype=np.float32)
        place[:, 0] = (2 * at / max(1, count - 1) - 1)[:, None, None]
        place[:, 1], place[:, 2] = ramps[0][:, None], ramps[1]
        return np.concatenate([images, place], 1)


def prepare(images: list[Volume], config: DataConfig, case: Case, labels: Volume | None = None) -> Slices:
    """Channels of one examination as slices. Raises InputError when they (or the labels) lie on different grids."""
    first = images[0]
    for other in (*images[1:], *([labels] if labels is not None else [])):
        same_grid(first, other)
    grid = make_grid(first.voxels.shape, first.affine, config.plane, config.spacing)
    channels = [normalised(resampled(grid.cut(one.voxels), grid.size), config.clip) for one in images]
    truth = None if labels is None else grid.cut(labels.voxels.astype(np.uint8))
    cut = None if truth is None else padded(resampled(truth, grid.size, nearest=True), config.patch)
    stacked = padded(np.stack(channels, 1).astype(np.float32), config.patch)
    digest = hashlib.sha256(b"".join(one.sha256.encode() for one in images)).hexdigest()
    return Slices(case, first, grid, stacked, cut, truth, digest)


def padded(slices: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """At least `sides` large, by the lowest value on the far sides."""
    missing = [max(0, side - have) for side, have in zip(sides, slices.shape[-2:], strict=True)]
    around = [(0, 0)] * (slices.ndim - 2) + [(0, n) for n in missing]
    return np.pad(slices, around, constant_values=slices.min()) if any(missing) else slices


def read_case(case: Case, config: DataConfig, *, labelled: bool = True) -> Slices:
    """A case from its files. Raises InputError for anything unfit, or a label map that is wanted and missing."""
    if labelled and case.label is None:
        raise InputError(f"{case.images[0]}: has no label map; add it or take the image away")
    label = read_labels(case.label, config.remap) if labelled and case.label is not None else None
    if label is not None and label.voxels.max() > 254:
        raise InputError(f"{label.path}: holds label {label.voxels.max()}; map labels to 1 .. K by data.remap")
    return prepare([read_volume(path) for path in case.images], config, case, label)


def slabs_of(whole: Slices, count: int) -> list[Slices]:
    """One volume cut across its slices into `count` slabs, each a case of its own: for trying a pipeline, no more."""
    bounds = np.linspace(0, len(whole.images), count + 1).astype(int)
    parts = []
    for number, (a, b) in enumerate(itertools.pairwise(bounds), 1):
        name = f"{whole.case.name}-slab{number}"
        grid = replace(whole.grid, shape=(int(b - a), *whole.grid.shape[1:]))
        case = replace(whole.case, name=name, patient=name)
        labels, truth = (None if array is None else array[a:b] for array in (whole.labels, whole.truth))
        images, digest = whole.images[a:b], f"{whole.sha256}-{number}"
        parts.append(replace(whole, case=case, grid=grid, images=images, labels=labels, truth=truth, sha256=digest))
    return parts


@dataclass(frozen=True)
class Dataset:
    """All cases of a run in their splits, the labels' names (1 .. K), and the hash of everything that was read."""

    name: str
    splits: dict[str, list[Slices]]
    labels: tuple[str, ...]
    channels: int
    sha256: str
    rule: str

    def summary(self) -> dict:
        counts = {split: len(cases) for split, cases in self.splits.items()}
        return {"name": self.name, "sha256": self.sha256, "split": self.rule, "labels": list(self.labels), **counts}


def read_dataset(cases: list[Case], names: tuple[str, ...], config: DataConfig, name: str) -> Dataset:
    """Read and split all cases. Raises InputError for an unfit case, for label values that are not 1 .. K, and for one
    image in two splits."""
    with progress() as bar:
        read = [read_case(case, config) for case in bar.track(cases, description="cases")]
    if config.slabs > 1:
        read = [slab for whole in read for slab in slabs_of(whole, config.slabs)]
    names = config.labels or names
    values = sorted({int(v) for one in read if one.labels is not None for v in np.unique(one.labels)} - {0})
    count = max(len(names), values[-1] if values else 0)
    if not values or values[-1] > max(len(names), len(values)):
        held = ", ".join(map(str, values)) or "none"
        raise InputError(f"{name}: its labels are {held}; map them to 1 .. K by data.remap, as data.remap.200=1")
    names = names or tuple(str(value) for value in range(1, count + 1))
    by_name = {one.case.name: one for one in read}
    split = split_cases([one.case for one in read], config)
    splits = {part: [by_name[case.name] for case in split[part]] for part in SPLITS}
    _refuse_duplicates(splits)
    digest = hashlib.sha256("".join(sorted(one.sha256 for one in read)).encode()).hexdigest()
    what = "slabs of one volume: no measure of accuracy" if config.slabs > 1 else "patients"
    rule = f"fold {config.fold} of {config.folds} for the test, {config.valid:g} of the rest for validation, by {what}"
    return Dataset(name, splits, names, read[0].images.shape[1], digest, rule)


def _refuse_duplicates(splits: dict[str, list[Slices]]) -> None:
    seen: dict[str, tuple[str, Slices]] = {}
    for split, cases in splits.items():
        for one in cases:
            before = seen.setdefault(one.sha256, (split, one))
            if before[0] != split:
                raise InputError(
                    f"{one.volume.path}: is the same image as {before[1].volume.path.name}, one in {before[0]} and one "
                    f"in {split}; leave one out, or name the patient by data.patient"
                )


class SegmentationData(lightning.LightningDataModule):
    """Random crops to train on, whole slices to validate on. Batches: x (B, C, H, W), y (B, H, W)."""

    def __init__(
        self, dataset: Dataset, config: DataConfig, *, batch: int, steps: int, seed: int, processes: int = 1
    ) -> None:
        super().__init__()
        if batch % processes:
            raise InputError(f"train.batch {batch} is not divisible by the {processes} processes; choose a multiple")
        self.dataset, self.config = dataset, config
        self.batch, self.steps, self.seed, self.processes = batch, steps, seed, processes
        train = dataset.splits["train"]
        self.all = np.array([(i, s) for i, one in enumerate(train) for s in range(len(one.images))])
        self.held = np.array([(i, s) for i, one in enumerate(train) for s in holding(one)])

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        draws = self.draw(np.random.default_rng((self.seed, epoch)), self.steps * self.batch)
        return DataLoader(
            TensorDataset(torch.from_numpy(draws)), batch_size=self.batch // self.processes, collate_fn=self.collate
        )

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count, 10) float64: case, slice, where to crop (two shares), turn, scale, gain, shift, two flips."""
        slices = self.all[rng.integers(len(self.all), size=count)]
        if len(self.held):
            some = rng.random(count) < self.config.foreground
            slices[some] = self.held[rng.integers(len(self.held), size=int(some.sum()))]
        rest = rng.random((count, 8))
        return np.concatenate([slices, rest], 1)

    def collate(self, rows: list[tuple[Tensor]]) -> dict[str, Tensor]:
        """Crops of the drawn slices, turned, scaled, and changed in brightness."""
        draws = torch.stack([row for (row,) in rows]).numpy()
        height, width = self.config.patch
        x, y = [], []
        for row in draws:
            one, at = self.dataset.splits["train"][int(row[0])], int(row[1])
            assert one.labels is not None
            top = int(row[2] * (one.images.shape[2] - height + 1))
            left = int(row[3] * (one.images.shape[3] - width + 1))
            x.append(one.stack(np.array([at]), self.config)[0, :, top : top + height, left : left + width])
            y.append(one.labels[at, top : top + height, left : left + width])
        images, labels = torch.from_numpy(np.stack(x)), torch.from_numpy(np.stack(y)).long()
        images, labels = moved(images, labels, draws[:, 4:], self.config, len(self.dataset.labels) + 1)
        return {"x": images, "y": labels}

    def val_dataloader(self) -> DataLoader:
        groups = []
        for i, one in enumerate(self.dataset.splits["valid"]):
            # Small enough for each process to have one: a process without any batch ends the training.
            size = max(1, min(4 * self.batch, len(one.images) // self.processes))
            slices = range(len(one.images))
            groups += [(i, list(slices[start : start + size])) for start in slices[::size]]
        return DataLoader(groups, batch_sampler=[[i] for i in range(len(groups))], collate_fn=self.collate_whole)

    def collate_whole(self, groups: list[tuple[int, list[int]]]) -> dict[str, Tensor]:
        number, at = groups[0]
        one = self.dataset.splits["valid"][number]
        assert one.labels is not None
        x = one.stack(np.array(at), self.config)
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(one.labels[at]).long()}


def holding(one: Slices) -> np.ndarray:
    """The slices of a case that hold a label, and one more at either end."""
    assert one.labels is not None
    held = one.labels.any((1, 2))
    return np.flatnonzero(held | np.append(held[1:], False) | np.append(False, held[:-1]))


def moved(x: Tensor, y: Tensor, draws: np.ndarray, config: DataConfig, classes: int) -> tuple[Tensor, Tensor]:
    """Augmented crops: turned by up to `rotate` degrees, scaled, flipped, and with another gain and offset.

    Shape: x (B, C, H, W), y (B, H, W), draws (B, 6) uniform in 0 .. 1.
    """
    batch, (height, width) = len(x), x.shape[2:]
    turn, scale, gain, shift, rows, columns = torch.from_numpy(draws).float().unbind(1)
    angle = (2 * turn - 1) * math.radians(config.rotate)
    size = 1 + (2 * scale - 1) * config.scale
    flip_rows = torch.where((rows < 0.5) & ("rows" in config.flip), -1.0, 1.0)
    flip_columns = torch.where((columns < 0.5) & ("columns" in config.flip), -1.0, 1.0)
    matrix = torch.zeros(batch, 2, 3)
    matrix[:, 0, 0] = angle.cos() * size * flip_columns
    matrix[:, 0, 1] = -angle.sin() * size * height / width * flip_rows
    matrix[:, 1, 0] = angle.sin() * size * width / height * flip_columns
    matrix[:, 1, 1] = angle.cos() * size * flip_rows
    grid = F.affine_grid(matrix, [batch, 1, height, width], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    # Labels one by one and linearly, the strongest wins: smoother borders than nearest neighbour gives.
    masks = torch.stack([(y == k).float() for k in range(1, classes)], 1)
    share, label = F.grid_sample(masks, grid, align_corners=False).max(1)
    y = torch.where(share > 0.5, label + 1, torch.zeros_like(label))
    gain, shift = (1 + (2 * gain - 1) * config.intensity), (2 * shift - 1) * config.intensity
    seen = x.shape[1] - 3 * config.place
    x[:, :seen] = x[:, :seen] * gain[:, None, None, None] + shift[:, None, None, None]
    if config.place:  # where a voxel lies in the mirrored volume, not where it came from
        x[:, -2] *= flip_rows[:, None, None]
        x[:, -1] *= flip_columns[:, None, None]
    return x, y


def input_channels(channels: int, config: DataConfig) -> int:
    """What a network takes in for scans of so many channels."""
    return channels * config.context + 3 * config.place
