"""Pages: of an evaluation, a comparison and of what was segmented."""

from pathlib import Path
from typing import Any

import numpy as np

from apps.medical.data import Slices
from apps.medical.figures import bars, overlay, strip
from apps.medical.segmenter import Segmenter, segment_slices
from shared.io.files import output_folder
from shared.report.page import Section, write_page


def evaluation_page(out: Path, result: dict[str, Any], segmenter: Segmenter, cases: list[Slices], tta: bool) -> Path:
    """evaluation.html: the organs' table, all cases as dots, and the best, the middle and the worst case."""
    names = {one.case.name: one for one in cases}
    means: dict[str, float] = {}
    for name in names:
        dice = [row["dice"] for row in result["cases"] if row["case"] == name and row["dice"] is not None]
        if dice:
            means[name] = float(np.mean(dice))
    ranked = sorted(means, key=lambda name: means[name])
    picked = {"worst": 0, "middle": len(ranked) // 2, "best": len(ranked) - 1} if ranked else {}
    figures = [output_folder(out / "figures") / "dice.png"]
    strip(figures[0], result["cases"])
    for rank, at in dict(zip(picked.values(), picked, strict=True)).items():
        one = names[ranked[rank]]
        found = segment_slices(segmenter, one, tta=tta)
        path = out / "figures" / f"{at}-{one.case.name}.png"
        picture(path, one, found, segmenter, f"{at} case, {one.case.name}: mean Dice {means[one.case.name]:.3f}")
        figures.append(path)
    low, high = result["interval_95"]
    notes = "\n\n".join(filter(None, [result.get("note"), RULES + result["rule"]]))
    text = f"Mean Dice {result['mean_dice']:.4f} (95 % interval over cases {low:.4f} to {high:.4f}).\n\n{notes}"
    sections = [
        Section("Organs", text, figures=figures, table=result["organs"]),
        Section("Cases", table=result["cases"]),
    ]
    path = out / "evaluation.html"
    write_page(path, "Evaluation of a segmenter", sections, subtitle=f"{result['model']} on {result['data']['name']}")
    return path


RULES = "Distances are between surfaces: msd their symmetric mean, hd95 the 95th percentile of the larger. "


def picture(path: Path, one: Slices, found, segmenter: Segmenter, title: str) -> None:
    """The overlay of a case; one of a slab shows the slab."""
    from dataclasses import replace

    volume = replace(one.volume, voxels=one.grid.restore(whole_slices(one)))
    truth = None if one.truth is None else one.grid.restore(one.truth)
    overlay(
        path,
        volume,
        one.grid,
        found.labels,
        segmenter.labels,
        None,
        truth=truth,
        uncertainty=found.entropy,
        title=title,
    )


def whole_slices(one: Slices) -> np.ndarray:
    """The first channel as the file has it (S, rows, columns); of a slab its slices alone, as the model sees them."""
    cut = one.grid.cut(one.volume.voxels)
    if cut.shape == one.grid.shape:
        return cut
    from apps.medical.geometry import resampled

    rows, columns = one.grid.size
    return resampled(one.images[:, 0, :rows, :columns], one.grid.shape[1:])


def comparison_page(out: Path, result: dict[str, Any]) -> Path:
    """comparison.html: the table and its picture."""
    figure = output_folder(out / "figures") / "comparison.png"
    bars(figure, result["entries"])
    text = (
        f"Each entry was trained for {result['steps']} steps of {result['batch']} slices on the same cases with "
        f"{len(result['seeds'])} seed(s), and evaluated on the {result['data']['test']} test cases "
        f"({result['data']['split']}). Seconds are of training, on this machine."
    )
    path = out / "comparison.html"
    write_page(path, "Comparison of segmenters", [Section("Entries", text, figures=[figure], table=result["entries"])])
    return path
