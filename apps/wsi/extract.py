"""`extract`: features of all tiles, a file a slide; what is done is not done again."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from apps.wsi.convert import write_layout
from apps.wsi.encoders import Encoder, load_encoder
from apps.wsi.layouts import Features, Layout, read_features, write_features
from apps.wsi.slide import CorruptTileError, Slide, find_slides, open_slide
from apps.wsi.tiles import Tiles, Tiling, draw_tiles, find_tiles
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
    own = load_encoder(encoder, weights, where)
    settings = {"encoder": own.name, "sha256": own.sha256, "tiling": asdict(tiling), "mpp": mpp}
    _check_folder(out, settings, resume)
    store = output_folder(out / f"features_{own.name}")
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
                with closing(open_slide(path, mpp)) as slide:
                    tiles = find_tiles(slide, tiling)
                    draw_tiles(out / "thumbnails" / f"{slide.name}.png", tiles, slide.size)
                    inner = bar.add_task(f"  {slide.name}", total=len(tiles.coords))
                    try:
                        found, corrupt = encode_tiles(slide, tiles, tiling, own, batch, partial(bar.advance, inner))
                    finally:
                        bar.remove_task(inner)
            except InputError as error:
                if len(files) == 1:
                    raise
                failed.append(str(error))
            else:
                write_json(out / SETTINGS, settings)  # not before features are there to which it applies
                write_features(found, out, "trident")
                rows.append({"slide": found.name, "tiles": len(found.features), "corrupt_tiles": corrupt})
                total += len(found.features)
            bar.advance(task)
    if not rows:
        raise ManyheadsError(f"{slides}: no slide could be read; the first: {failed[0]}")
    written = store
    if layout != "trident":
        made = (one for path in sorted(store.glob("*.h5")) for one in read_features(path))
        written = write_layout(made, out if layout == "acmil" else out / layout, layout)
    return {"written": str(written), "encoder": own.name, "slides": rows, "failed": failed, "new_tiles": total}


def encode_tiles(
    slide: Slide,
    tiles: Tiles,
    tiling: Tiling,
    encoder: Encoder,
    batch: int = 32,
    tell: Callable[[int], None] = lambda count: None,
) -> tuple[Features, int]:
    """The features of a slide's tiles, and how many tiles the file does not yield, which are left out.

    Raises InputError when it yields none.
    """
    device = next((p.device for p in encoder.net.parameters()), torch.device("cpu"))
    parts, keep, first = [], np.ones(len(tiles.coords), dtype=bool), None
    for start in range(0, len(keep), batch):
        images = []
        for index in range(start, min(start + batch, len(keep))):
            try:
                images.append(slide.region(*tiles.coords[index], tiles.side, tiling.pixels))
            except CorruptTileError as error:
                keep[index], first = False, first or error
        if images:
            with torch.inference_mode():
                parts.append(encoder.net(torch.from_numpy(np.stack(images)).to(device)).float().cpu().numpy())
        tell(min(batch, len(keep) - start))
    if not parts:
        raise InputError(f"{first}; no tile of it can be read, copy the file again")
    features = np.concatenate(parts)
    coords = tiles.coords[keep]
    found = Features(slide.name, features, coords, tiles.side, "px", slide.mpp, encoder.name, source=slide.path)
    return found, int((~keep).sum())


def _check_folder(out: Path, settings: dict, resume: bool) -> None:
    path = output_folder(out) / SETTINGS
    if path.exists():
        before = read_json(path)
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            what = "the file of the encoder" if changed[0] == "sha256" else changed[0]
            raise InputError(f"{path}: {what} was another there; use the same settings, or name another --out")
        if not resume:
            raise InputError(f"{out}: holds an extraction; go on with it by --resume, or name another --out")


def _count(path: Path) -> int:
    return len(next(read_features(path)).features)
