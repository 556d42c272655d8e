"""`heatmap`: where a model looks on a slide, as pictures, for QuPath, and as a page to zoom in."""

from contextlib import closing
from pathlib import Path

import numpy as np

from apps.wsi.classifier import Classifier, bag_of, features_of
from apps.wsi.layouts import Features, in_pixels
from apps.wsi.metrics import attention_measures
from apps.wsi.overlay import draw_branches, draw_heatmap, draw_sheet
from apps.wsi.qupath import read_regions, write_geojson
from apps.wsi.slide import CorruptTileError, Slide, open_slide
from apps.wsi.tiles import tissue_share
from apps.wsi.viewer import write_viewer
from shared.errors import InputError
from shared.io.files import output_folder, write_json


def heatmap(
    classifier: Classifier,
    path: Path,
    features: Path | None,
    out: Path,
    *,
    mpp: float | None,
    longest: int,
    top: int,
    annotations: Path | None = None,
) -> dict:
    """A slide's class and heat maps into `out/<slide>`; features are made from the slide where none are given.

    heatmap.png (mean of the branches), branches.png (each), attention.geojson (QuPath), top_tiles.png (the `top`
    strongest), viewer.html (zoom, branches, opacity), heatmap.json (the figures). With `annotations`, regions in
    QuPath's GeoJSON, also how well attention finds the tiles of which half or more lies in them.
    Raises InputError when the features have no coords, or coords that do not lie on the slide.
    """
    found = features_of(classifier, features or path, mpp)
    with closing(open_slide(path, mpp or found.mpp)) as slide:
        found = in_pixels(found, slide.mpp)
        coords, side = place(found, slide)
        truth = None
        if annotations is not None:
            truth = tissue_share(read_regions(annotations, slide.size), coords, side, slide.size) >= 0.5
        logits, (weight,) = classifier.predict([bag_of(found)])
        chance = classifier.probabilities(logits)[0]
        prediction = classifier.classes[int(chance.argmax())]
        chances = {name: float(p) for name, p in zip(classifier.classes, chance, strict=True)}
        folder = output_folder(out / slide.name)
        image = slide.thumbnail(longest)
        scale = image.shape[1] / slide.size[0]
        title = f"{prediction}: {100 * chances[prediction]:.1f} %, mean of {len(weight)} branches"
        draw_heatmap(folder / "heatmap.png", image, coords, side, weight, scale, title)
        draw_branches(folder / "branches.png", image, coords, side, weight, scale)
        write_geojson(folder / "attention.geojson", coords, side, weight, slide.name, chances)
        _sheet(folder / "top_tiles.png", slide, coords, side, weight, top)
        write_viewer(folder / "viewer.html", slide, coords, side, weight, title)
    result = {
        "slide": slide.name,
        "model": str(classifier.path),
        "prediction": prediction,
        "probabilities": chances,
        "tiles": len(coords),
        "um_per_pixel": slide.mpp,
        **attention_measures(weight, truth),
    }
    if truth is not None:
        result["annotated_tiles"] = int(truth.sum())
    write_json(folder / "heatmap.json", {**result, "coords": coords, "side": side, "attention": weight})
    return {**result, "written": str(folder), "page": str(folder / "viewer.html")}


def place(found: Features, slide: Slide) -> tuple[np.ndarray, float]:
    """The tiles' corners and their side in pixels of level 0. Raises InputError when they are not on the slide."""
    where = found.source or found.name
    if found.coords is None:
        raise InputError(f"{where}: has no coords; a heat map needs them, extract the features with their places")
    coords = np.asarray(found.coords, dtype=np.float64)
    side = found.tile or _spacing(coords)
    if (coords < -side).any() or (coords > np.array(slide.size)).any():
        raise InputError(
            f"{where}: its coords reach {coords.max(0).astype(int).tolist()}, the slide is {slide.size}; "
            "they belong to another slide, or are not of level 0"
        )
    return coords, side


def _spacing(coords: np.ndarray) -> float:
    """The side of tiles that a file does not state: the least distance between columns or rows."""
    steps: np.ndarray = np.concatenate([np.diff(np.unique(axis)) for axis in coords.T])
    steps = steps[steps > 0.5]
    return float(steps.min()) if len(steps) else 256.0


def _sheet(path: Path, slide: Slide, coords: np.ndarray, side: float, weights: np.ndarray, top: int) -> None:
    mean = weights.mean(0)
    tiles, captions = [], []
    for index in np.argsort(-mean, kind="stable")[:top]:
        try:
            x, y = coords[index].astype(int)
            tiles.append(slide.region(x, y, side, 160))
        except CorruptTileError:
            tiles.append(np.full((160, 160, 3), 220, np.uint8))
        captions.append(f"{mean[index] * len(mean):.1f} x mean, branch {weights[:, index].argmax() + 1}")
    draw_sheet(path, tiles, captions)
