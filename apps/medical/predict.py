"""`segment`: scans in, label maps on their own grids out, with pictures, volumes and a page."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from apps.medical.cases import Case
from apps.medical.data import prepare
from apps.medical.dicom import dicom_files, write_dicom_seg
from apps.medical.figures import overlay
from apps.medical.segmenter import SEGMENTERS, Segmenter, load, segment_slices
from apps.medical.volumes import is_nifti, read_volume, stem, write_labels
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
        below = [one for one in sorted(path.iterdir()) if not one.name.startswith(".")]
        found = [one for one in below if (one.is_file() and is_nifti(one)) or (one.is_dir() and dicom_files(one))]
        if not found:
            raise InputError(f"{path}: holds no .nii, .nii.gz or DICOM series; name a scan or a folder of scans")
        scans += found
    names = [stem(path) for path in scans]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{twice}: is the name of two scans; segment them into different --out folders")
    return scans


def segment(
    given: list[Path], checkpoint: Path | None, out: Path, *, tta: bool, dicom_seg: bool, device: str
) -> dict[str, Any]:
    """Segment each scan: NAME_seg.nii.gz (uint8, the input's grid), NAME.png, and for all volumes.csv and a page.

    All scans are read and checked before the first is segmented. A model of several channels takes NAME_0000, _0001 ...
    of the first scan's folder. Raises InputError for an unfit scan; nothing is written then.
    """
    segmenter = load(checkpoint, device, SEGMENTERS)
    scans = scans_in(given)
    read = [read_volume(path) for path in scans]
    for path, volume in zip(scans, read, strict=True):
        if dicom_seg and not path.is_dir():
            raise InputError(f"{volume.path}: is no DICOM series; leave out --dicom-seg")
    rows: list[dict[str, Any]] = []
    sections = []
    written: list[Path] = []
    folder = output_folder(out)
    with progress() as bar:
        for path, volume in bar.track(list(zip(scans, read, strict=True)), description="scans"):
            name = stem(path)
            slices = prepare([volume], segmenter.config, Case(name, name, (path,), None))
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
                with replacing(folder / f"{name}_seg.dcm") as partial:
                    write_dicom_seg(partial, path, found.labels, segmenter.labels, str(segmenter.card["sha256"])[:12])
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
