"""`inspect`: what slides, features, tables and splits hold, before anything is run on them."""

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from apps.wsi.classic import NAMES
from apps.wsi.layouts import find_features, read_features
from apps.wsi.read import Labels, read_data, read_labels, stem_of
from apps.wsi.slide import SUFFIXES, find_slides, open_slide, stated_mpp
from apps.wsi.splits import leakage
from apps.wsi.tissue import tissue_mask
from shared.errors import InputError


def inspect(paths: list[Path], labels: Path | None) -> dict:
    """Facts of slides (size, um/px, tissue), features (shape, coords, faults) and labels (classes, patients that leak).

    A file that cannot be read is a row with its fault, so that a folder is seen whole.
    """
    slides, features = [], []
    for path in paths:
        if str(path) in NAMES and not path.exists():
            return {"data": read_data(path).summary()}
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; check the path")
        if path.suffix.lower() == ".csv":
            return {"data": read_data(path).summary()}
        if _has_slides(path):
            slides += [_slide(file) for file in find_slides(path)]
        else:
            features += [row for file in find_features(path) for row in _features(file)]
    result: dict[str, Any] = {}
    if slides:
        result["slides"] = slides
    if features:
        widths = Counter(row["width"] for row in features if "width" in row)
        result["features"] = features
        if len(widths) > 1:
            result["warning"] = f"features of different widths: {dict(widths)}; train on those of one encoder"
    if labels is not None:
        names = {stem_of(row["slide"]) for row in [*slides, *features]}
        result |= _labels(read_labels(labels), names)
    return result


def _has_slides(path: Path) -> bool:
    files = path.iterdir() if path.is_dir() else [path]
    return any(file.suffix.lower() in SUFFIXES for file in files)


def _slide(path: Path) -> dict:
    try:
        with closing(open_slide(path, mpp=1.0)) as slide:
            properties = slide.handle.properties
            mpp = stated_mpp(properties)
            row = {
                "slide": path.stem,
                "width": slide.size[0],
                "height": slide.size[1],
                "um_per_pixel": mpp,
                "objective": properties.get("openslide.objective-power"),
                "vendor": properties.get("openslide.vendor"),
                "levels": slide.handle.level_count,
                "tissue": round(float(tissue_mask(slide.thumbnail(512)).mean()), 4),
            }
    except InputError as error:
        return {"slide": path.stem, "fault": str(error)}
    return row if mpp else {**row, "fault": "states no um/px: use --mpp"}


def _features(path: Path) -> list[dict]:
    try:
        return [
            {
                "slide": one.name,
                "instances": len(one.features),
                "width": one.features.shape[1],
                "coords": one.coords is not None,
                "side": one.tile,
                "unit": one.unit,
                "um_per_pixel": one.mpp,
                "encoder": one.encoder,
                "norm": round(float(np.linalg.norm(one.features, axis=1).mean()), 3),
            }
            for one in read_features(path)
        ]
    except InputError as error:
        return [{"slide": path.stem, "fault": str(error)}]


def _labels(table: Labels, names: set[str]) -> dict:
    classes = Counter(table.label.values())
    found: dict[str, Any] = {
        "labels": {"slides": len(table.label), "patients": len(set(table.patient.values())), **classes},
        "without_label": sorted(names - set(table.label)),
        "without_file": sorted(set(table.label) - names) if names else [],
    }
    if any(table.split.values()):
        found["splits"] = [
            {"split": part, **Counter(table.label[name] for name, one in table.split.items() if one == part)}
            for part in sorted(set(table.split.values()))
        ]
        found["leaks"] = leakage(list(table.label), list(table.patient.values()), list(table.split.values()))
    return found
