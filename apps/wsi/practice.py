"""`practice`: slides to learn the ropes on, cut from a real one, some with ink or out of focus in a known place.

A toy by its label: whether a slide is marred is no diagnosis. But the slides are real tissue in real files, every step
from file to heat map is what it is for a diagnosis, and where the heat map ought to be bright is known.
"""

import csv
import io
import json
from contextlib import closing
from pathlib import Path

import numpy as np

from apps.wsi.slide import open_slide
from apps.wsi.tissue import tissue_mask
from shared.command import progress
from shared.errors import InputError
from shared.io.files import output_folder, replacing, write_text

BANDS = 6  # parts of the slide from top to bottom; a practice slide lies in one, which stands for its patient
TEST = (4, 5)
LEAST = 1300  # pixels; the test bands of less have no room for marks
INKS = ((28, 60, 140), (20, 110, 70), (30, 30, 40))  # marker pens: blue, green, black


def practice(source: Path, out: Path, count: int, seed: int, mpp: float | None) -> dict:
    """Writes `slides/*.tif`, `labels.csv` (slide, label, patient, split), `whole.tif` and `truth.geojson` into `out`.

    Half of the `count` slides are marred: ink of a marker pen, or a part out of focus. All differ in brightness and
    stain. The bands 5 and 6 of the slide are for testing, so that no pixel is in training and in test. `whole.tif` is
    the whole slide with both in the test bands; the truth says where.
    Raises InputError for a slide that is too small or shows too little tissue.
    """
    with closing(open_slide(source, mpp)) as slide:
        width, height = slide.size
        if width * height > 100_000_000:
            raise InputError(f"{source}: is {width} x {height} pixels; give a region of at most 100 million")
        if min(width, height) < LEAST:
            raise InputError(f"{source}: is {width} x {height} pixels; give a region of at least {LEAST} x {LEAST}")
        image = slide.whole()
        mask = tissue_mask(slide.thumbnail(1024))
    folder = output_folder(out / "slides")
    rng = np.random.default_rng(seed)
    rows = []
    with progress() as bar:
        task = bar.add_task("practice slides", total=count)
        for index in range(count):
            band = index % BANDS
            window = _window(rng, mask, image.shape, band)
            marred = (index // BANDS) % 2 == 1
            part = _vary(image[window], rng)
            if marred:
                part, _ = (ink if (index // BANDS) % 4 == 1 else defocus)(part, rng, _tissue_point(part, rng))
            name = f"practice-{index:03d}"
            write_slide(folder / f"{name}.tif", part, slide.mpp)
            split = "test" if band in TEST else "train"
            rows.append([name, "marred" if marred else "clean", f"band-{band + 1}", split])
            bar.advance(task)
    table = io.StringIO()
    csv.writer(table).writerows([["slide", "label", "patient", "split"], *rows])
    write_text(out / "labels.csv", table.getvalue())
    whole, truth = write_whole(image, slide.mpp, rng, out)
    return {
        "written": str(out),
        "slides": count,
        "marred": sum(row[1] == "marred" for row in rows),
        "whole": str(whole),
        "truth": str(truth),
        "note": "a toy: clean against marred slides, cut from one slide; it shows the way, and diagnoses nothing",
    }


def _window(rng: np.random.Generator, mask: np.ndarray, shape: tuple, band: int) -> tuple[slice, slice]:
    high = shape[0] // BANDS
    wide = min(shape[1], max(high, 900))
    for _ in range(200):
        left = int(rng.integers(0, shape[1] - wide + 1))
        rows = slice(band * mask.shape[0] // BANDS, (band + 1) * mask.shape[0] // BANDS)
        columns = slice(left * mask.shape[1] // shape[1], (left + wide) * mask.shape[1] // shape[1])
        if mask[rows, columns].mean() > 0.25:
            return slice(band * high, (band + 1) * high), slice(left, left + wide)
    raise InputError(f"the slide shows too little tissue in its part {band + 1} of {BANDS}; give one with more")


def _vary(part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another scanner and another stain: mirrored, and each colour a little denser or paler."""
    if rng.random() < 0.5:
        part = part[:, ::-1]
    if rng.random() < 0.5:
        part = part[::-1]
    density = -np.log(np.maximum(part, 1) / 255.0)
    return np.clip(255 * np.exp(-density * rng.uniform(0.85, 1.15, 3)), 0, 255).astype(np.uint8)


def _tissue_point(part: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """A place (x, y) on tissue, not at the very edge."""
    mask = tissue_mask(part)
    inner = np.zeros_like(mask)
    inner[mask.shape[0] // 5 : -mask.shape[0] // 5, mask.shape[1] // 8 : -mask.shape[1] // 8] = True
    ys, xs = np.nonzero(mask & inner)
    if not len(xs):
        return part.shape[1] / 2, part.shape[0] / 2
    at = rng.integers(len(xs))
    return float(xs[at]), float(ys[at])


def ink(image: np.ndarray, rng: np.random.Generator, at: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A stroke of a marker pen through (x, y): the image with it, and the mask of it."""
    from PIL import Image, ImageDraw, ImageFilter

    angle, length = rng.uniform(0, np.pi), rng.uniform(200, 380)
    bend = rng.uniform(-60, 60)
    t = np.linspace(-0.5, 0.5, 24)
    along, across = t * length, bend * (1 - 4 * t**2)
    xs = at[0] + along * np.cos(angle) - across * np.sin(angle)
    ys = at[1] + along * np.sin(angle) + across * np.cos(angle)
    stroke = Image.new("L", image.shape[1::-1], 0)
    pen = ImageDraw.Draw(stroke)
    thick = int(rng.integers(34, 60))
    pen.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=255, width=thick, joint="curve")
    for x, y in ((xs[0], ys[0]), (xs[-1], ys[-1])):
        pen.ellipse([x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2], fill=255)
    cover = np.asarray(stroke.filter(ImageFilter.GaussianBlur(2)))[..., None] / 255 * rng.uniform(0.75, 0.95)
    colour = np.array(INKS[rng.integers(len(INKS))])
    # Ink lets some of the tissue through, as light passes both.
    inked = cover * (colour * (0.4 + 0.6 * image / 255)) + (1 - cover) * image
    return inked.astype(np.uint8), np.asarray(stroke) > 0


def defocus(image: np.ndarray, rng: np.random.Generator, at: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A round part out of focus about (x, y): the image with it, and the mask of it."""
    from scipy import ndimage

    radius, sigma = rng.uniform(130, 190), rng.uniform(3.0, 5.0)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    distance = np.hypot(x - at[0], y - at[1])
    cover = np.clip((radius - distance) / 30 + 0.5, 0, 1)[..., None]
    blurred = ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0))
    return (cover * blurred + (1 - cover) * image).astype(np.uint8), distance < radius


def write_whole(image: np.ndarray, mpp: float, rng: np.random.Generator, out: Path) -> tuple[Path, Path]:
    """`whole.tif`, the slide with ink and with a part out of focus in its test bands, and their outlines as QuPath
    reads them, `truth.geojson`. Raises InputError when too little tissue is there."""
    first = image.shape[0] * min(TEST) // BANDS
    lower = image[first:]
    columns = lower.shape[1]
    features = []
    for name, draw, share in (("ink", ink, (0.0, 0.5)), ("out of focus", defocus, (0.5, 1.0))):
        # One on the left half of the tissue, one on the right.
        mask = tissue_mask(lower)
        mask[:200], mask[-200:] = False, False
        xs = np.nonzero(mask)[1]
        if not len(xs):
            raise InputError("the slide shows too little tissue in its lowest third; give one with more")
        low, high = np.quantile(xs, share)
        ys, xs = np.nonzero(mask & (np.arange(columns) >= low) & (np.arange(columns) <= high))
        at = rng.integers(len(xs))
        lower, where = draw(lower, rng, (float(xs[at]), float(ys[at])))
        features.append(_outline(where, first, name))
    whole = image.copy()
    whole[first:] = lower
    write_slide(out / "whole.tif", whole, mpp)
    write_text(out / "truth.geojson", json.dumps({"type": "FeatureCollection", "features": features}, indent=1))
    return out / "whole.tif", out / "truth.geojson"


def _outline(mask: np.ndarray, first: int, name: str) -> dict:
    """The mask as one polygon a row run: enough for a truth that is only asked whether a tile meets it."""
    step = 8
    polygons = []
    for y in range(0, mask.shape[0] - step, step):
        xs = np.flatnonzero(mask[y : y + step].any(0))
        if len(xs):
            x0, x1, y0, y1 = int(xs[0]), int(xs[-1]) + 1, y + first, y + first + step
            polygons.append([[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]])
    return {
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": polygons},
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": [0, 114, 178]}},
    }


def write_slide(path: Path, image: np.ndarray, mpp: float) -> None:
    """RGB (H, W, 3) uint8 as a tiled TIFF that states its resolution, which OpenSlide and QuPath open."""
    import tifffile

    with replacing(path) as partial:
        tifffile.imwrite(
            partial,
            image,
            tile=(256, 256),
            photometric="rgb",
            compression="zlib",
            resolution=(1e4 / mpp, 1e4 / mpp),
            resolutionunit="CENTIMETER",
        )
