"""`segment`: scans in, label maps on their own grids out, with pictures, volumes and a page."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.medical.cases import Case, is_scan
from apps.medical.data import prepare
from apps.medical.dicom import dicom_files, write_dicom_seg
from apps.medical.figures import overlay
from apps.medical.segmenter import SEGMENTERS, Segmenter, check_tta, load, segment_slices
from apps.medical.volumes import Volume, read_volume, same_grid, stem, write_labels
from shared.command import progress
from shared.errors import InputError
from shared.io.files import output_folder, replacing, write_json, write_text
from shared.report.page import Section, write_page


def scans_in(given: list[Path]) -> list[Path]:
    """Each scan among files and folders: NIfTI files, folders that are a DICOM series, and what lies in a folder.

    Raises InputError for a path without scans, and for two scans of one name.
    """
    scans: list[Path] = []
    for path in given:
        if not path.is_dir():
            scans.append(path)
            continue
        if dicom_files(path):
            scans.append(path)
            continue
        found = [one for one in sorted(path.iterdir()) if not one.name.startswith(".") and is_scan(one)]
        if not found:
            raise InputError(f"{path}: holds no .nii, .nii.gz or DICOM series; name a scan or a folder of scans")
        scans += found
    names = [stem(path) for path in scans]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{twice}: is the name of two scans; segment them into different --out folders")
    return scans


@dataclass(frozen=True)
class Examination:
    """What a model takes at once: the images of one scan, a channel each, on one grid."""

    name: str
    images: list[Volume]

    @property
    def first(self) -> Volume:
        return self.images[0]

    def case(self) -> Case:
        return Case(self.name, self.name, tuple(image.path for image in self.images), None)


def read_scans(given: list[Path], channels: int) -> list[Examination]:
    """The scans among files and folders, read and checked. For a model of several channels they are the files
    NAME_0000, NAME_0001 ..., of which any may be given; the others are taken from beside it.

    Raises InputError as `scans_in` and `read_volume`, and for a channel that is missing or lies on another grid.
    """
    files: dict[str, list[Path]] = {}
    for path in scans_in(given):
        if channels == 1:
            files[stem(path)] = [path]
            continue
        numbered = re.fullmatch(r"(.+)_\d{4}", stem(path))
        if numbered is None:
            raise InputError(f"{path}: the model takes {channels} channels; name their files NAME_0000, NAME_0001, ...")
        ending = path.name.removeprefix(stem(path))
        channel_files = [path.with_name(f"{numbered[1]}_{k:04}{ending}") for k in range(channels)]
        if files.setdefault(numbered[1], channel_files) != channel_files:
            raise InputError(f"{numbered[1]}: is the name of two scans; segment them into different --out folders")
    read = []
    for name, paths in files.items():
        if missing := next((path for path in paths if len(paths) > 1 and not path.exists()), None):
            raise InputError(f"{missing}: is missing; the model takes {channels} channels of each scan")
        images = [read_volume(path) for path in paths]
        for other in images[1:]:
            same_grid(images[0], other)
        read.append(Examination(name, images))
    return read


def segment(
    given: list[Path], checkpoint: Path | None, out: Path, *, tta: bool, dicom_seg: bool, device: str
) -> dict[str, Any]:
    """Segment each scan: NAME_seg.nii.gz (uint8, the input's grid), NAME.png, and for all volumes.csv and a page.

    All scans are read and checked before the first is segmented. Raises InputError as `read_scans`; nothing is written
    then.
    """
    segmenter = load(checkpoint, device, SEGMENTERS)
    check_tta(segmenter, tta)
    scans = read_scans(given, segmenter.channels)
    for scan in scans:
        if dicom_seg and not scan.first.path.is_dir():
            raise InputError(f"{scan.first.path}: is no DICOM series; leave out --dicom-seg")
    rows: list[dict[str, Any]] = []
    sections = []
    written: list[Path] = []
    folder = output_folder(out)
    with progress() as bar:
        for scan in bar.track(scans, description="scans"):
            name, volume = scan.name, scan.first
            slices = prepare(scan.images, segmenter.config, scan.case())
            found = segment_slices(segmenter, slices, tta=tta)
            label_map, image = folder / f"{name}_seg.nii.gz", folder / f"{name}.png"
            write_labels(label_map, found.labels, volume)
            overlay(
                image,
                volume,
                slices.grid,
                found.labels,
                segmenter.labels,
                segmenter.config.clip,
                uncertainty=found.entropy,
                title=name,
            )
            written += [label_map, image]
            if dicom_seg and found.labels.any():  # an empty object is not allowed
                model = str(segmenter.card["sha256"])[:12]
                with replacing(folder / f"{name}_seg.dcm") as partial:
                    write_dicom_seg(partial, volume.path, found.labels, segmenter.labels, model)
                written.append(folder / f"{name}_seg.dcm")
            mine = volumes(name, found, segmenter, volume.voxel_ml)
            rows += mine
            sections.append(Section(name, figures=[image], table=mine, links=[label_map]))
    write_text(folder / "volumes.csv", _csv(rows))
    facts = {"model": str(segmenter.path), "sha256": segmenter.card["sha256"], "tta": tta, "organs": rows}
    write_json(folder / "segmentation.json", facts)
    note = (
        "Made by a model, for research. Uncertainty is the entropy of the prediction (0 to 1) and the disagreement of "
        "its heads, mean over the voxels of the organ: high values ask for a look."
    )
    page = folder / "report.html"
    write_page(page, "Segmentation", [Section("How to read this", note), *sections], subtitle=str(segmenter.path))
    written += [folder / "volumes.csv", folder / "segmentation.json", page]
    return {"organs": rows, "written": [str(path) for path in written]}


def volumes(name: str, found, segmenter: Segmenter, voxel_ml: float) -> list[dict[str, Any]]:
    """A row for each organ: its volume in ml, and how uncertain its voxels are."""
    rows = []
    for number, organ in enumerate(segmenter.labels, 1):
        mask = found.labels == number
        rows.append(
            {
                "case": name,
                "organ": organ,
                "voxels": int(mask.sum()),
                "volume_ml": float(mask.sum()) * voxel_ml,
                "entropy": float(found.entropy[mask].mean()) if mask.any() else None,
                "disagreement": float(found.disagreement[mask].mean()) if mask.any() else None,
            }
        )
    return rows


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: f"{v:.6g}" if isinstance(v, (float, np.floating)) else v for key, v in row.items()} for row in rows
    )
    return text.getvalue()
