"""Splits that keep a patient together, and a report of what leaks where a split does not."""

from collections.abc import Sequence

import numpy as np

from apps.wsi.bags import Bags
from shared.errors import InputError


def check_classes(data: Bags, least: int, purpose: str) -> None:
    """Raises InputError when a bag has no label, there is one class, or a class has fewer than `least` patients."""
    unlabelled = [bag.name for bag in data.bags if bag.label is None]
    if unlabelled:
        raise InputError(f"{data.name}: {unlabelled[0]} has no label ({len(unlabelled)} such bags); add it to --labels")
    if len(data.classes) < 2:
        raise InputError(f"{data.name}: all bags are of the class {data.classes[0]}; give bags of two classes or more")
    for index, name in enumerate(data.classes):
        patients = len(set(data.patients[data.labels == index]))
        if patients < least:
            raise InputError(
                f"{data.name}: the class {name} has {patients} patients, which is too few for {purpose}; "
                f"give at least {least}"
            )


def folds(data: Bags, count: int, seed: int) -> np.ndarray:
    """The fold of each bag, 0 .. count - 1: classes in like shares, a patient in one fold only.

    Raises InputError when a class has fewer patients than there are folds, so that a fold had to do without it.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    check_classes(data, count, f"{count} folds")
    labels, patients = data.labels, data.patients
    if len(set(patients)) == len(patients):
        splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    else:
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    fold = np.empty(len(labels), dtype=int)
    grouped = None if isinstance(splitter, StratifiedKFold) else patients
    for index, (_, test) in enumerate(splitter.split(labels, labels, grouped)):
        fold[test] = index
        if len(set(np.delete(labels, test))) < len(data.classes):
            raise InputError(f"{data.name}: fold {index + 1} takes a class whole out of training; use fewer folds")
    return fold


def holdout(data: Bags, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the bags to train on and to validate on, about `share` of the patients; both have every class."""
    count = max(2, round(1 / share))
    fewest = min(len(set(data.patients[data.labels == index])) for index in range(len(data.classes)))
    check_classes(data, 2, "training and validation")
    fold = folds(data, min(count, fewest), seed)
    return np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)


def leakage(names: Sequence[str], patients: Sequence[str], split: Sequence[str]) -> list[dict]:
    """Patients whose bags lie in more than one part of a split: a row each, with the parts and the bags."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, patient, part in zip(names, patients, split, strict=True):
        if part:
            found.setdefault(patient, {}).setdefault(part, []).append(name)
    return [
        {"patient": patient, "parts": sorted(parts), "bags": [name for bags in parts.values() for name in bags]}
        for patient, parts in found.items()
        if len(parts) > 1
    ]
