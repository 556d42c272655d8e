"""`extract`: features of all tiles, a file a slide; what is done is not done again."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apps.wsi.convert import write_layout
from apps.wsi.encoders import load_encoder
from apps.wsi.layouts import Features, Layout, read_features, write_features
from apps.wsi.slide import CorruptTileError, Slide, find_slides, open_slide
from apps.wsi.tiles import Tiling, draw_tiles, find_tiles
from shared.command import progress
from shared.errors import InputError, ManyheadsError
from shared.io.files import output_folder, read_json, write_json
from shared.training.device import pick_device

SETTINGS = "extraction.json"


def extract(
    slides: Path,
    out: Path,
    tiling: Tiling,
    *,
    encoder: str,
    weights: Path | None,
    layout: Layout,
    mpp: float | None,
    batch: int,
    device: str,
    resume: bool,
) -> dict:
    """Features of a slide or a folder of them into `out`, in a layout of `apps.wsi.layouts`.

    A slide whose file is there is not done again, if it was made with the same settings. A slide that cannot be read is
    told of, as are tiles that the file does not yield; the others go on.
    Raises InputError for one slide that fails, ManyheadsError when all do.
    """
    files = find_slides(slides)
    where = pick_device(device)
    net, name = load_encoder(encoder, weights, where)
    settings = {"encoder": name, "tiling": asdict(tiling), "mpp": mpp}
    _check_folder(out, settings, resume)
    store = output_folder(out / f"features_{name}")
    output_folder(out / "thumbnails")
    rows, failed, total = [], [], 0
    with progress() as bar:
        task = bar.add_task("extract", total=len(files))
        for path in files:
            done = store / f"{path.stem}.h5"
            if done.exists():
                rows.append({"slide": path.stem, "tiles": _count(done), "done_before": True})
                bar.advance(task)
                continue
            try:
                slide = open_slide(path, mpp)
                tiles = find_tiles(slide, tiling)
                write_json(out / SETTINGS, settings)  # not before a slide is there to which it applies
                draw_tiles(out / "thumbnails" / f"{slide.name}.png", tiles, slide.size)
                inner = bar.add_task(f"  {path.stem}", total=len(tiles.coords))
                features, keep, corrupt = encode_tiles(
                    slide, tiles.coords, tiles.side, tiling.pixels, net, batch, where, partial(bar.advance, inner)
                )
                bar.remove_task(inner)
            except InputError as error:
                if len(files) == 1:
                    raise
                failed.append(str(error))
            else:
                found = Features(path.stem, features, tiles.coords[keep], tiles.side, "px", slide.mpp, name)
                write_features(found, out, "trident")
                rows.append({"slide": slide.name, "tiles": len(features), "corrupt_tiles": corrupt})
                total += len(features)
                slide.close()
            bar.advance(task)
    if not rows:
        raise ManyheadsError(f"{slides}: no slide could be read; the first: {failed[0]}")
    written = store
    if layout != "trident":
        made = (one for path in sorted(store.glob("*.h5")) for one in read_features(path))
        written = write_layout(made, out if layout == "acmil" else out / layout, layout)
    return {"written": str(written), "encoder": name, "slides": rows, "failed": failed, "new_tiles": total}


def encode_tiles(
    slide: Slide,
    coords: np.ndarray,
    side: float,
    pixels: int,
    net: torch.nn.Module,
    batch: int,
    device: torch.device,
    tell: Any = lambda count: None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Features (n, D), which tiles they are of (N,) bool, and how many tiles the file does not yield.

    Raises InputError when it yields none.
    """
    parts, keep, first = [], np.ones(len(coords), dtype=bool), None
    for start in range(0, len(coords), batch):
        images = []
        for index in range(start, min(start + batch, len(coords))):
            try:
                images.append(slide.region(*coords[index], side, pixels))
            except CorruptTileError as error:
                keep[index], first = False, first or error
        if images:
            with torch.inference_mode():
                parts.append(net(torch.from_numpy(np.stack(images)).to(device)).float().cpu().numpy())
        tell(min(batch, len(coords) - start))
    if not parts:
        raise InputError(f"{first}; no tile of it can be read, copy the file again")
    return np.concatenate(parts), keep, int((~keep).sum())


def _check_folder(out: Path, settings: dict, resume: bool) -> None:
    path = output_folder(out) / SETTINGS
    if path.exists():
        before = read_json(path)
        if before != settings:
            changed = next(key for key in settings if before.get(key) != settings[key])
            raise InputError(f"{path}: {changed} was another there; use the same settings, or name another --out")
        if not resume:
            raise InputError(f"{out}: holds an extraction; go on with it by --resume, or name another --out")


def _count(path: Path) -> int:
    return len(next(read_features(path)).features)
