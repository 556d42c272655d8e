"""The cases of a data folder: which image belongs to which label map, whose they are, and who trains on them.

A folder has `images/` and `labels/`, or nnU-Net's `imagesTr/`, `labelsTr/` and `dataset.json`; or it is a .tar of one.
An image is a NIfTI file or a folder with one DICOM series, a label map a NIfTI file of the same name.
"""

import hashlib
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.medical.config import DataConfig
from apps.medical.dicom import dicom_files
from apps.medical.volumes import is_nifti, stem
from shared.errors import InputError
from shared.io.cache import cache_folder
from shared.io.files import input_file, read_json, sha256

EMBEDDED = Path(__file__).resolve().parents[2] / "data" / "abdominal_ct"
LAYOUTS = (("images", "labels"), ("imagesTr", "labelsTr"))


@dataclass(frozen=True)
class Case:
    """One examination: its image in one or several channels, and its label map where there is one."""

    name: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None


def find_cases(data: Path | None, config: DataConfig) -> tuple[list[Case], tuple[str, ...]]:
    """The cases of a folder (None: the embedded CT) by name, and the labels' names from dataset.json, if it has one.

    Raises InputError for a folder of another layout, and for an image or a label map without its other half.
    """
    folder = _folder(data if data is not None else EMBEDDED)
    for images_name, labels_name in LAYOUTS:  # noqa: B007
        if (folder / images_name).is_dir():
            break
    else:
        raise InputError(f"{folder}: has no images/ and labels/ (or imagesTr/ and labelsTr/); name such a folder")
    described = folder / "dataset.json"
    names, channels = _described(described) if images_name == "imagesTr" and described.exists() else ((), 1)
    images = _files(folder / images_name)
    labels = {stem(path): path for path in _files(folder / labels_name)} if (folder / labels_name).is_dir() else {}
    groups: dict[str, list[Path]] = {}
    for path in images:
        name = stem(path)
        numbered = re.fullmatch(r"(.+)_\d{4}", name)
        key = numbered[1] if numbered and name not in labels else name
        groups.setdefault(key, []).append(path)
    for name, path in labels.items():
        if name not in groups:
            raise InputError(f"{path}: has no image of that name in {images_name}/; add it or take the label map away")
    cases = [
        Case(name, _patient(name, config.patient), tuple(sorted(paths)), labels.get(name))
        for name, paths in sorted(groups.items())
    ]
    if not cases:
        raise InputError(f"{folder / images_name}: holds no .nii, .nii.gz or DICOM series; add the scans")
    counts = {len(case.images) for case in cases}
    if len(counts) > 1 or (channels > 1 and counts != {channels}):
        odd = next(case for case in cases if len(case.images) != max(counts | {channels}))
        raise InputError(f"{odd.images[0]}: case {odd.name} has {len(odd.images)} channels, others more; add the rest")
    return cases, names


def _folder(data: Path) -> Path:
    if data.is_dir():
        inner = [data, *(path for path in sorted(data.iterdir()) if path.is_dir())]
        return next((path for path in inner for pair in LAYOUTS if (path / pair[0]).is_dir()), data)
    if input_file(data).suffix != ".tar":
        raise InputError(f"{data}: is no folder with images/ and labels/, nor a .tar of one; name one")
    kept = cache_folder() / f"medical-{sha256(data)[:16]}"
    if not kept.exists():
        partial = kept.with_name(f".{kept.name}.partial-")
        try:
            with tarfile.open(data) as archive:
                archive.extractall(partial, filter="data")  # refuses absolute paths, .. and links out of the folder
        except (tarfile.TarError, OSError, EOFError) as error:
            reason = " ".join(str(error).split())[:100]
            raise InputError(f"{data}: cannot be unpacked ({reason}); copy it again or unpack it yourself") from None
        partial.rename(kept)
    return _folder(kept)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_scan(path) and not path.name.startswith("."))


def is_scan(path: Path) -> bool:
    """Whether a path looks like a NIfTI file or like a folder with DICOM files."""
    return bool(dicom_files(path)) if path.is_dir() else is_nifti(path)


def _described(path: Path) -> tuple[tuple[str, ...], int]:
    """Names of the labels 1 .. K and the number of channels, from nnU-Net's dataset.json (either version)."""
    content = read_json(path)
    try:
        labels = content.get("labels", {})
        pairs = [(int(a), str(b)) if str(a).isdecimal() else (int(b), str(a)) for a, b in labels.items()]
        channels = len(content.get("channel_names") or content.get("modality") or {"0": ""})
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"{path}: labels: is not of the form of nnU-Net's dataset.json; mend or remove it") from None
    return tuple(name for value, name in sorted(pairs) if value > 0), channels


def _patient(name: str, pattern: str | None) -> str:
    if pattern is None:
        return name
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise InputError(f"data.patient: {pattern!r} is no regular expression ({error})") from None
    if found is None or not found.groups():
        raise InputError(f"data.patient: {pattern!r} finds no group in the name {name}; put the patient in brackets")
    return found[1]


SPLITS = ("train", "valid", "test")


def split_cases(cases: list[Case], config: DataConfig) -> dict[str, list[Case]]:
    """Cases for training, for choosing the epoch and for the test, no patient in two of them.

    Patients are put in an order by a hash of their names, dealt out in `folds` parts; part `fold` is the test, and
    `valid` of the rest chooses the epoch. Adding a patient moves no other by more than a place. Raises InputError for
    too few patients.
    """
    patients = sorted({case.patient for case in cases}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    test = set(patients[config.fold :: config.folds])
    rest = [patient for patient in patients if patient not in test]
    count = max(1, round(config.valid * len(rest)))
    if not test or len(rest) - count < 1:
        raise InputError(f"--data: holds {len(patients)} patients; {config.folds} folds need {max(3, config.folds)}")
    valid = set(np.array(rest)[:: max(1, len(rest) // count)][:count])
    chosen = {"test": test, "valid": valid, "train": set(rest) - valid}
    return {split: [case for case in cases if case.patient in chosen[split]] for split in SPLITS}
