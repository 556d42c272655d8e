"""A page that shows a slide with its attention: zoom, branches, opacity. It needs no other file and no network."""

import base64
import io
import math
from pathlib import Path

import numpy as np

from apps.wsi.overlay import colours, strength
from apps.wsi.slide import CorruptTileError, Slide
from shared.io.files import to_json, write_text

CELL = 512  # pixels of a picture in the page
LONGEST = 4096  # the slide in the page is reduced to this; beyond it a page would not open
SHARP = 12  # strongest tiles that are in the page at full resolution


def write_viewer(path: Path, slide: Slide, coords: np.ndarray, side: float, weights: np.ndarray, title: str) -> None:
    """Pictures of the slide in cells, the strongest tiles sharp, and the weights of all branches, in one HTML file."""
    width, height = slide.size
    down = max(1.0, max(width, height) / LONGEST)
    cells = []
    for row in range(math.ceil(height / (CELL * down))):
        for column in range(math.ceil(width / (CELL * down))):
            x, y = column * CELL * down, row * CELL * down
            cells.append({"x": x, "y": y, "s": CELL * down, "d": _picture(slide, x, y, CELL * down, CELL)})
    mean = weights.mean(0)
    for index in np.argsort(-mean)[:SHARP] if down > 1 else ():
        x, y = coords[index]
        cells.append({"x": x, "y": y, "s": side, "d": _picture(slide, x, y, side, 256)})
    ramp = colours(np.linspace(0, 1, 64)).tolist()
    maps = [mean, *(weights if len(weights) > 1 else ())]
    data = {
        "title": f"{slide.name}: {title}",
        "size": [width, height],
        "mpp": slide.mpp,
        "side": side,
        "coords": coords.round(1),
        "cells": cells,
        "ramp": ramp,
        "names": ["mean of branches", *(f"branch {m + 1}" for m in range(len(weights)))][: len(maps)],
        "strength": [[round(float(v), 3) for v in strength(one)] for one in maps],
        "ratio": [[round(float(v), 2) for v in one * len(one)] for one in maps],
    }
    template = (Path(__file__).parent / "viewer.html").read_text(encoding="utf-8")
    # In a script element "</" would end it, whatever a slide is called.
    write_text(path, template.replace("/*DATA*/null", to_json(data).replace("</", "<\\/")))


def _picture(slide: Slide, x: float, y: float, side: float, pixels: int) -> str:
    from PIL import Image

    try:
        image = slide.region(int(x), int(y), side, pixels)
    except CorruptTileError:
        image = np.full((pixels, pixels, 3), 220, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
