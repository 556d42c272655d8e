"""GeoJSON of QuPath (0.4 and later): attention, to drag onto the slide, and regions that someone has drawn there."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shared.errors import InputError
from shared.io.files import read_json, to_json, write_text

# By how many times the mean weight a tile has; the first bound that it does not reach.
STEPS = ((1.0, "attention below mean", [70, 70, 90]), (4.0, "attention 1-4 x", [188, 55, 84]))
HIGHEST = ("attention 4 x and more", [252, 165, 10])


def write_geojson(
    path: Path, coords: np.ndarray, side: float, weights: np.ndarray, name: str, chance: dict[str, float]
) -> None:
    """A tile object for each tile in pixels of level 0, with its attention of each branch as measurements.

    QuPath's fields: `objectType` "tile", `classification` (name, color), `measurements` (name to number), `isLocked`.
    The identities are made of the slide's name and the place, so that the same map gives the same file.
    """
    count = weights.shape[1]
    mean = weights.mean(0)
    features = []
    for index, (x, y) in enumerate(coords.tolist()):
        ratio = float(mean[index]) * count
        label, colour = next(((text, rgb) for bound, text, rgb in STEPS if ratio < bound), HIGHEST)
        measurements = {"attention": float(mean[index]), "attention x mean": ratio}
        if len(weights) > 1:
            measurements |= {f"attention branch {m + 1}": float(one[index]) for m, one in enumerate(weights)}
        x1, y1 = x + side, y + side
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {x} {y}")),
                "geometry": {"type": "Polygon", "coordinates": [[[x, y], [x1, y], [x1, y1], [x, y1], [x, y]]]},
                "properties": {
                    "objectType": "tile",
                    "classification": {"name": label, "color": colour},
                    "measurements": measurements,
                    "isLocked": False,
                },
            }
        )
    properties = {"slide": name, "probabilities": chance}
    write_text(path, to_json({"type": "FeatureCollection", "properties": properties, "features": features}))


def read_regions(path: Path, size: tuple[int, int], longest: int = 2048) -> np.ndarray:
    """The regions that are annotated, in all, as a mask (H, W) bool of the slide, its longer side `longest`.

    Raises InputError for a file without polygons in pixels of level 0, or with none on a slide of this size.
    """
    from PIL import Image, ImageChops, ImageDraw

    scale = longest / max(size)
    mask = Image.new("1", (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
    try:
        for rings in _polygons(read_json(path)):
            # By itself where it has holes: in one of them another region may lie.
            drawn = Image.new("1", mask.size) if len(rings) > 1 else mask
            for number, ring in enumerate(rings):
                corners = [(float(x) * scale, float(y) * scale) for x, y, *_ in ring]
                ImageDraw.Draw(drawn).polygon(corners, fill=int(number == 0))
            if drawn is not mask:
                mask = ImageChops.logical_or(mask, drawn)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: is no GeoJSON of polygons; export the annotations from QuPath as GeoJSON") from None
    found = np.asarray(mask)
    if not found.any():
        raise InputError(f"{path}: holds no polygon on this slide; export its annotations from QuPath as GeoJSON")
    return found


def _polygons(value: dict | list) -> Iterator[list]:
    """The rings of each polygon: its outline, then its holes."""
    for feature in value if isinstance(value, list) else value.get("features", [value]):
        geometry = feature["geometry"]
        if geometry["type"] == "Polygon":
            yield geometry["coordinates"]
        elif geometry["type"] == "MultiPolygon":
            yield from geometry["coordinates"]
