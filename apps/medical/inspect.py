"""`inspect`: the data doctor. What is wrong with a folder of scans, before anything trains on it."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.medical.cases import Case, find_cases, split_cases
from apps.medical.config import MedicalConfig
from apps.medical.volumes import Volume, read_labels, read_volume, same_grid
from shared.command import progress
from shared.errors import InputError
from shared.io.files import output_folder, write_json
from shared.report.page import Section, write_page


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`error`: training refuses it) or odd (`warning`), with the file and the mend."""

    level: str
    file: str
    what: str


def inspect(config: MedicalConfig, data: Path | None, out: Path) -> dict[str, Any]:
    """Look at every case and write inspection.json and inspection.html. Errors are findings here, not exceptions, but
    for a folder that holds no cases at all (InputError)."""
    cases, names = find_cases(data, config.data)
    findings: list[Finding] = []
    rows: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    with progress() as bar:
        for case in bar.track(cases, description="cases"):
            row, found, digest = examine(case, config)
            findings += found
            rows.append(row)
            if digest is not None:
                findings += _repeated(case, digest, hashes, cases, config)
    findings += odd_ones(rows)
    labels = _labels(rows, cases, config, names, findings)
    errors = [one for one in findings if one.level == "error"]
    result = {
        "data": data.name if data is not None else "the embedded CT",
        "cases": len(cases),
        "errors": len(errors),
        "warnings": len(findings) - len(errors),
        "findings": [asdict(one) for one in findings],
        "labels": labels,
        "spacings": Counter(str(row["spacing"]) for row in rows if "spacing" in row),
        "orientations": Counter(row["orientation"] for row in rows if "orientation" in row),
    }
    output_folder(out)
    write_json(out / "inspection.json", result | {"scans": rows})
    page = out / "inspection.html"
    text = f"{len(cases)} cases, {len(errors)} errors, {result['warnings']} warnings."
    sections = [
        Section("Findings", text, table=result["findings"] or None),
        Section("Labels", table=labels or None),
        Section("Scans", table=rows),
    ]
    write_page(page, "Data doctor", sections, subtitle=result["data"])
    return result | {"written": [str(out / "inspection.json"), str(page)]}


def examine(case: Case, config: MedicalConfig) -> tuple[dict[str, Any], list[Finding], str | None]:
    """The facts and findings of one case, and the hash of its image where it can be read."""
    findings: list[Finding] = []
    row: dict[str, Any] = {"case": case.name}
    images: list[Volume] = []
    for path in case.images:
        try:
            images.append(read_volume(path))
        except InputError as error:
            findings.append(_finding("error", path, error))
    if len(images) < len(case.images):
        return row, findings, None
    first = images[0]
    row |= facts(first)
    for other in images[1:]:
        _try(findings, other.path, lambda other=other: same_grid(first, other))
    if case.label is None:
        findings.append(Finding("error", str(case.images[0]), "has no label map; add it or take the image away"))
        return row, findings, first.sha256
    try:
        labels = read_labels(case.label, config.data.remap)
    except InputError as error:
        findings.append(_finding("error", case.label, error))
        return row, findings, first.sha256
    _try(findings, case.label, lambda: same_grid(first, labels))
    values, counts = np.unique(labels.voxels, return_counts=True)
    row["labels"] = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    if not labels.voxels.any():
        findings.append(Finding("warning", str(case.label), "holds background alone; check that this is meant"))
    return row, findings, first.sha256


def facts(volume: Volume) -> dict[str, Any]:
    import nibabel

    voxels = volume.voxels
    return {
        "shape": " x ".join(map(str, voxels.shape)),
        "spacing": " x ".join(f"{mm:.3g}" for mm in volume.spacing),
        "orientation": "".join(nibabel.orientations.aff2axcodes(volume.affine)),
        "lowest": float(voxels.min()),
        "highest": float(voxels.max()),
        "mean": float(voxels.mean()),
    }


def _try(findings: list[Finding], path: Path, check) -> None:
    try:
        check()
    except InputError as error:
        findings.append(_finding("error", path, error))


def _finding(level: str, path: Path, error: Exception) -> Finding:
    file, _, what = str(error).partition(": ")
    return Finding(level, file, what) if what and Path(file).exists() else Finding(level, str(path), str(error))


def _repeated(
    case: Case, digest: str, hashes: dict[str, str], cases: list[Case], config: MedicalConfig
) -> list[Finding]:
    """Whether an image was seen before: an error where the two are in different splits."""
    before = hashes.setdefault(digest, case.name)
    if before == case.name:
        return []
    try:
        splits = split_cases(cases, config.data)
        place = {one.name: split for split, part in splits.items() for one in part}
    except InputError:
        place = {}
    same = place.get(before) == place.get(case.name)
    where = "in the same split" if same else f"one in {place.get(before)}, one in {place.get(case.name)}"
    what = f"is the same image as case {before}, {where}; leave one out, or name the patient by data.patient"
    return [Finding("warning" if same else "error", str(case.images[0]), what)]


def odd_ones(rows: list[dict[str, Any]]) -> list[Finding]:
    """Warnings for scans whose spacing or orientation is far from most others'."""
    findings = []
    known = [row for row in rows if "spacing" in row]
    if not known:
        return findings
    usual = Counter(row["orientation"] for row in known).most_common(1)[0][0]
    steps = np.array([[float(mm) for mm in row["spacing"].split(" x ")] for row in known])
    middle = np.median(steps, 0)
    for row, mine in zip(known, steps, strict=True):
        if row["orientation"] != usual:
            what = f"is oriented {row['orientation']}, most are {usual}; slices are turned alike, so check the header"
            findings.append(Finding("warning", row["case"], what))
        if (mine > 2 * middle).any() or (mine < middle / 2).any():
            what = f"has a spacing of {row['spacing']} mm, far from the median; set data.spacing, or check the header"
            findings.append(Finding("warning", row["case"], what))
    return findings


def _labels(
    rows: list[dict[str, Any]],
    all_cases: list[Case],
    config: MedicalConfig,
    names: tuple[str, ...],
    findings: list[Finding],
) -> list[dict[str, Any]]:
    """How often each label occurs; an error where the values are not 1 .. K."""
    total: Counter[int] = Counter()
    cases: Counter[int] = Counter()
    for row in rows:
        for value, count in row.get("labels", {}).items():
            total[value] += count
            cases[value] += 1
    values = sorted(value for value in total if value)
    names = config.data.labels or names
    if values and values[-1] > max(len(names), len(values)):
        held = ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")
        file = next(one.label for one, row in zip(all_cases, rows, strict=True) if values[-1] in row.get("labels", {}))
        what = f"holds label {values[-1]}, all files hold {held}"
        findings.append(
            Finding("error", str(file), f"{what}; map them to 1 .. K by data.remap, as data.remap.{values[-1]}=1")
        )
    return [
        {
            "label": value,
            "name": names[value - 1] if 0 < value <= len(names) else "background" if value == 0 else None,
            "cases": cases[value],
            "voxels": total[value],
        }
        for value in sorted(total)
    ]
