"""Attention as GeoJSON that QuPath (0.4 and later) opens by dragging it onto the slide."""

import uuid
from pathlib import Path

import numpy as np

from shared.io.files import to_json, write_text

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
