"""`convert`: features from one layout into another, without the slides."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from apps.wsi.layouts import (
    Features,
    Layout,
    find_features,
    in_pixels,
    read_features,
    write_features,
    write_single,
)
from apps.wsi.read import Labels, label_of, read_data, read_labels
from shared.io.files import output_folder, replacing, write_json


def convert(data: Path, labels: Path | None, out: Path, layout: Layout | Literal["csv"], mpp: float | None) -> dict:
    """Writes the features of `data` into `out` in a layout of `apps.wsi.layouts`, or as the plain MIL table.

    The table needs labels; classes and bags are numbers there, and `bags.json` says which. `mpp` is for files that do
    not state it: coordinates in micrometres (STAMP) cannot be told in pixels without it, nor the other way round.
    Raises InputError when it is needed and absent, and as `read_features`.
    """
    table = read_labels(labels) if labels is not None else None
    if layout == "csv":
        return _table(data, labels, out)
    slides = [_ready(one, table, mpp) for file in find_features(data) for one in read_features(file)]
    written = write_layout(slides, out, layout)
    return {"written": str(written), "slides": len(slides)}


def write_layout(slides: Iterable[Features], out: Path, layout: Layout) -> Path:
    """All slides in one layout; returns the folder, or the one file of ACMIL's."""
    if layout == "acmil":
        found = list(slides)
        return write_single(found, output_folder(out) / f"patch_feats_pretrain_{found[0].encoder}.h5")
    for slide in slides:
        files = write_features(slide, out, layout)
    return files[0].parent if layout != "clam" else out


def _ready(slide: Features, table: Labels | None, mpp: float | None) -> Features:
    return replace(in_pixels(slide, mpp), encoder=slide.encoder or "unknown", label=label_of(slide, table))


def _table(data: Path, labels: Path | None, out: Path) -> dict:
    bags = read_data(data, labels)
    path = output_folder(out) / "bags.csv"
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for number, bag in enumerate(bags.bags):
            for row in bag.features.tolist():
                # repr of a float32 taken to double reads back as the same float32.
                file.write(f"{bag.label},{number},{','.join(map(repr, row))}\n")
    write_json(out / "bags.json", {"classes": bags.classes, "bags": [bag.name for bag in bags.bags]})
    return {"written": str(path), "slides": len(bags.bags), "classes": list(bags.classes)}
