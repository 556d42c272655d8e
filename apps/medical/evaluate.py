"""`evaluate`: how well a model segments the cases that it was not trained on, organ by organ and case by case."""

import csv
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from apps.medical.cases import find_cases
from apps.medical.data import Slices, read_case, slabs_of
from apps.medical.segmenter import SEGMENTERS, Segmenter, check_tta, load, segment_slices
from shared.command import progress
from shared.errors import InputError
from shared.evaluation.bootstrap import bootstrap_interval
from shared.io.files import output_folder, write_json, write_text

MEASURES = ("dice", "volumetric_similarity", "msd_mm", "hd95_mm", "msd_voxels", "hd95_voxels")
RULE = (
    "An organ that neither the truth nor the prediction has is left out of the case. One that only one of them has "
    "counts as Dice 0 and volumetric similarity 0, and as the diagonal of the volume in both distances."
)


def evaluate(
    checkpoint: Path | None, data: Path | None, split: str, out: Path, *, tta: bool, seed: int, device: str
) -> dict:
    """Every measure of each organ in each case of a split, as CSV, JSON and HTML.

    The split is that of the model's training where its names are in `data`; else every case is evaluated, and the
    result says so. Raises InputError for an empty split and for data without label maps.
    """
    segmenter = load(checkpoint, device, SEGMENTERS)
    check_tta(segmenter, tta)
    cases, note = chosen(segmenter, data, split)
    output_folder(out)
    rows = score(segmenter, cases, tta)
    result = {
        "model": str(segmenter.path),
        "data": {"name": data.name if data else "the embedded CT", "split": split, "cases": len(cases)},
        "tta": tta,
        **({"note": note} if note else {}),
        "rule": RULE,
        **summary(rows, segmenter.labels, seed),
        "cases": rows,
    }
    write_json(out / "evaluation.json", result)
    write_text(out / "evaluation.csv", as_csv(rows))
    from apps.medical.report import evaluation_page

    evaluation_page(out, result, segmenter, cases, tta)
    shown = {key: value for key, value in result.items() if key != "cases"}
    return {**shown, "written": [str(out / f"evaluation.{kind}") for kind in ("json", "csv", "html")]}


def chosen(segmenter: Segmenter, data: Path | None, split: str) -> tuple[list[Slices], str]:
    """The cases of a split, read; and a note where the split is not that of the training."""
    cases, _ = find_cases(data, segmenter.config)
    names = segmenter.card.get("split", {})
    kept = set(names.get(split, []))
    slabs = segmenter.config.slabs
    known = {name.rpartition("-slab")[0] for part in names.values() for name in part} if slabs > 1 else kept
    mine = [case for case in cases if case.name in known]
    note = ""
    if not mine:
        trained = {name for part in names.values() for name in part}
        mine = [case for case in cases if case.name not in trained]
        if not mine:
            raise InputError(
                f"{data or 'the embedded CT'}: has no case of the {split} split; choose another by --split"
            )
        note = f"these cases are not those of the model's {split} split: all {len(mine)} were evaluated"
    with progress() as bar:
        read = [read_case(case, segmenter.config) for case in bar.track(mine, description="cases")]
    if slabs > 1:
        read = [slab for whole in read for slab in slabs_of(whole, slabs) if slab.case.name in kept]
        note = "slabs of one volume, labelled by a model: this shows the pipeline and measures no accuracy"
    return read, note


def score(segmenter: Segmenter, cases: list[Slices], tta: bool) -> list[dict[str, Any]]:
    """A row for each organ of each case: its measures and volumes."""
    rows = []
    with progress() as bar:
        for one in bar.track(cases, description="segmenting"):
            found = segment_slices(segmenter, one, tta=tta)
            assert one.truth is not None
            rows += compared(one, one.grid.cut(found.labels), one.truth, segmenter.labels)
    return rows


def compared(one: Slices, found: np.ndarray, real: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """Measures by monai.metrics of each organ, (S, rows, columns) each; absent organs by `RULE`."""
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_distance import compute_average_surface_distance

    diagonal = {
        "mm": float(np.linalg.norm(np.array(one.grid.shape) * one.grid.spacing)),
        "voxels": float(np.linalg.norm(one.grid.shape)),
    }
    rows = []
    for number, name in enumerate(labels, 1):
        a, b = found == number, real == number
        sizes = int(a.sum()), int(b.sum())
        row: dict[str, Any] = {"case": one.case.name, "organ": name, "present": "both" if all(sizes) else "neither"}
        if not any(sizes):
            rows.append(row | dict.fromkeys(MEASURES) | {"found_ml": 0.0, "true_ml": 0.0})
            continue
        both = int((a & b).sum())
        row["dice"] = 2 * both / sum(sizes)
        row["volumetric_similarity"] = 1 - abs(sizes[0] - sizes[1]) / sum(sizes)
        if all(sizes):
            box = _around(a | b)
            pair = [torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None].float() for mask in (a, b)]
            for unit, spacing in (("mm", list(one.grid.spacing)), ("voxels", [1.0, 1.0, 1.0])):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # MONAI warns of an argument that it passes itself
                    msd = compute_average_surface_distance(
                        *pair, include_background=True, symmetric=True, spacing=spacing
                    )
                    hd = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
                row |= {f"msd_{unit}": float(msd), f"hd95_{unit}": float(hd)}
        else:
            row["present"] = "prediction only" if sizes[0] else "truth only"
            row |= {f"{measure}_{unit}": far for unit, far in diagonal.items() for measure in ("msd", "hd95")}
        rows.append(
            row
            | {f"{kind}_ml": size * one.volume.voxel_ml for kind, size in zip(("found", "true"), sizes, strict=True)}
        )
    return rows


def _around(mask: np.ndarray) -> tuple[slice, ...]:
    """The box of a mask with a voxel to spare, in which surfaces are sought: the distances are the same and quicker."""
    box = []
    for axis in range(3):
        held = np.flatnonzero(mask.any(tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(0, held[0] - 1), held[-1] + 2))
    return tuple(box)


def summary(rows: list[dict[str, Any]], labels: list[str], seed: int) -> dict[str, Any]:
    """Mean, standard deviation and 95 % interval over cases of each organ, and of the mean over organs in a case."""
    table = []
    for organ in labels:
        mine = [row for row in rows if row["organ"] == organ]
        table.append({"organ": organ, **_figures(mine, seed), **_presence(mine)})
    cases = list(dict.fromkeys(row["case"] for row in rows))
    means = []
    for case in cases:
        dice = [row["dice"] for row in rows if row["case"] == case and row["dice"] is not None]
        if dice:
            means.append(float(np.mean(dice)))
    low, high = bootstrap_interval(means, seed=seed) if means else (float("nan"), float("nan"))
    mean = float(np.mean(means)) if means else float("nan")
    return {"mean_dice": mean, "interval_95": [low, high], "organs": table}


def _figures(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for measure in MEASURES:
        values = np.array([row[measure] for row in rows if row[measure] is not None])
        if len(values):
            figures[measure] = float(values.mean())
            figures[f"{measure}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            if measure == "dice":
                low, high = bootstrap_interval(values, seed=seed)
                figures["dice_interval_95"] = f"{low:.4f} to {high:.4f}"
    return figures


def _presence(rows: list[dict[str, Any]]) -> dict[str, int]:
    kinds = [row["present"] for row in rows]
    return {
        "cases": len(kinds) - kinds.count("neither"),
        "missed": kinds.count("truth only"),
        "invented": kinds.count("prediction only"),
    }


def as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["case", "organ", "present", *MEASURES, "found_ml", "true_ml"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    return text.getvalue()
