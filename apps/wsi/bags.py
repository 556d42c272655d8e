"""A bag: the instances of one slide (or molecule, or image) with the one label that they share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shared.errors import InputError


@dataclass(frozen=True)
class Bag:
    """Instances (N, features) float32 of one bag.

    Fields:
        label: its class, an index into `Bags.classes`; None where it is not known.
        patient: what may not be parted between training and test; the bag itself where nothing is said.
        split: the part that the table of labels puts it in, such as train or test; else empty.
        truth: which instances are of the class looked for (N,) bool, where that is known.
    """

    name: str
    features: np.ndarray
    label: int | None
    patient: str
    truth: np.ndarray | None = None
    source: Path | None = None
    split: str = ""


@dataclass(frozen=True)
class Bags:
    """A data set. Bags of one width; `sha256` of all that was read."""

    name: str
    bags: tuple[Bag, ...]
    classes: tuple[str, ...]
    sha256: str

    @property
    def features(self) -> int:
        return self.bags[0].features.shape[1]

    @property
    def labels(self) -> np.ndarray:
        return np.array([-1 if bag.label is None else bag.label for bag in self.bags])

    @property
    def patients(self) -> np.ndarray:
        return np.array([bag.patient for bag in self.bags])

    def part(self, *names: str) -> "Bags":
        """The bags that the table of labels puts in these parts. Raises InputError when there are none."""
        chosen = tuple(bag for bag in self.bags if bag.split in names)
        if not chosen:
            known = sorted({bag.split for bag in self.bags if bag.split})
            raise InputError(f"{self.name}: no bag is in the split {names[0]}; known: {', '.join(known) or 'none'}")
        return replace(self, bags=chosen)

    def summary(self) -> dict:
        """What a model's card and a run folder say of the data."""
        sizes = [len(bag.features) for bag in self.bags]
        return {
            "name": self.name,
            "sha256": self.sha256,
            "bags": len(self.bags),
            "patients": len(set(self.patients)),
            "instances": sum(sizes),
            "smallest": min(sizes),
            "largest": max(sizes),
            "features": self.features,
            "classes": {name: int((self.labels == index).sum()) for index, name in enumerate(self.classes)},
        }


def check_features(name: str, features: np.ndarray) -> np.ndarray:
    """Features as float32 (N, features). Raises InputError that names the bag and the row that cannot be used."""
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.number):
        raise InputError(
            f"{name}: features have the shape {features.shape} and type {features.dtype}; give numbers (N, D)"
        )
    if not features.shape[0] or not features.shape[1]:
        raise InputError(f"{name}: holds no instance; tile it with a lower tissue share, or leave it out")
    features = features.astype(np.float32, copy=False)
    bad = ~np.isfinite(features).all(1)
    if bad.any():
        raise InputError(
            f"{name}: row {int(bad.argmax())} of its features is not finite ({int(bad.sum())} such rows); "
            "extract it again"
        )
    return features


def check_bags(bags: Sequence[Bag], name: str) -> None:
    """Raises InputError when there is no bag, a name is there twice, or the widths differ."""
    if not bags:
        raise InputError(f"{name}: holds no bag; check the folder and the labels")
    seen: set[str] = set()
    for bag in bags:
        if bag.name in seen:
            raise InputError(f"{name}: the bag {bag.name} is there twice; keep one")
        seen.add(bag.name)
        if bag.features.shape[1] != bags[0].features.shape[1]:
            raise InputError(
                f"{name}: {bags[0].name} has {bags[0].features.shape[1]} features and {bag.name} has "
                f"{bag.features.shape[1]}; extract all with one encoder"
            )


def pad(features: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Bags side by side: x (B, N, features) with zeros at the end of short bags, and keep (B, N)."""
    longest = max(len(one) for one in features)
    x = torch.zeros(len(features), longest, features[0].shape[1])
    keep = torch.zeros(len(features), longest, dtype=torch.bool)
    for row, one in enumerate(features):
        x[row, : len(one)] = torch.from_numpy(one)
        keep[row, : len(one)] = True
    return x, keep


def some_instances(features: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """At most `limit` of the instances, drawn without replacement; 0 is all."""
    if not limit or len(features) <= limit:
        return features
    return features[np.sort(rng.choice(len(features), limit, replace=False))]


def batches(sizes: Sequence[int], batch: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every bag once, in batches of like sizes (so that little is padding) that come in any order."""
    keys = np.log(np.asarray(sizes)) + rng.normal(0, 0.5, len(sizes))
    order = np.argsort(keys, kind="stable")
    parts = [order[first : first + batch] for first in range(0, len(order), batch)]
    return [parts[index] for index in rng.permutation(len(parts))]


def standard(features: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature over all instances; a constant feature gets the deviation 1."""
    count = sum(len(one) for one in features)
    mean = sum(one.sum(0, dtype=np.float64) for one in features) / count
    variance = sum(np.square(one - mean).sum(0) for one in features) / count
    deviation = np.sqrt(variance)
    # Relative to the mean, since a constant column may differ from it by rounding.
    constant = deviation <= 1e-6 * (np.abs(mean) + 1e-12)
    deviation = np.where(constant, 1.0, deviation)
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()
