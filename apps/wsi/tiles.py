"""`tile`: where the tiles of a slide lie, and a thumbnail to check them on."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.wsi.slide import Slide, find_slides, open_slide
from apps.wsi.tissue import tissue_mask
from shared.command import progress
from shared.errors import InputError, ManyheadsError
from shared.io.files import output_folder, replacing


@dataclass(frozen=True)
class Tiling:
    """How a slide is cut: tiles of `pixels` at `mpp` micrometres a pixel, of which at least the share `tissue` is
    tissue, with an `overlap` in pixels."""

    pixels: int = 224
    mpp: float = 0.5
    tissue: float = 0.5
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.overlap >= self.pixels:
            raise InputError(f"--overlap {self.overlap}: is not smaller than the tile of {self.pixels} pixels")


@dataclass(frozen=True)
class Tiles:
    """Upper left corners (N, 2) int64 at level 0, x first; `side` of a tile there; `tissue` the share of the slide."""

    coords: np.ndarray
    side: float
    tissue: float
    thumbnail: np.ndarray
    mask: np.ndarray


def find_tiles(slide: Slide, tiling: Tiling, longest: int = 1024) -> Tiles:
    """The tiles of a regular grid that lie on tissue and whole within the slide.

    Raises InputError when the slide is smaller than a tile, scanned too coarsely, or shows no tissue.
    """
    side = tiling.pixels * tiling.mpp / slide.mpp
    if tiling.mpp < slide.mpp * 0.75:
        raise InputError(
            f"{slide.path}: is scanned at {slide.mpp:.3g} um/px, coarser than the {tiling.mpp:g} asked for; "
            f"give --tile-mpp {slide.mpp:.3g}"
        )
    width, height = slide.size
    if side > min(width, height):
        raise InputError(f"{slide.path}: is {width} x {height} pixels, smaller than a tile of {side:.0f}; use --tile")
    step = side * (tiling.pixels - tiling.overlap) / tiling.pixels
    xs, ys = (np.floor(np.arange(0, size - side + 1e-6, step)).astype(np.int64) for size in (width, height))
    thumbnail = slide.thumbnail(longest)
    mask = tissue_mask(thumbnail)
    coords = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
    coords = coords[tissue_share(mask, coords, side, slide.size) >= tiling.tissue]
    if not len(coords):
        raise InputError(
            f"{slide.path}: shows no tissue ({100 * mask.mean():.1f} % is stained); lower --tissue, or leave it out"
        )
    return Tiles(coords, side, float(mask.mean()), thumbnail, mask)


def tissue_share(mask: np.ndarray, coords: np.ndarray, side: float, size: tuple[int, int]) -> np.ndarray:
    """The share of each tile that is tissue, by a table of sums over the mask: (N,)."""
    scale = np.array([mask.shape[1] / size[0], mask.shape[0] / size[1]])
    sums = np.pad(mask.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    low = np.clip(np.round(coords * scale).astype(int), 0, [mask.shape[1] - 1, mask.shape[0] - 1])
    high = np.clip(np.round((coords + side) * scale).astype(int), low + 1, [mask.shape[1], mask.shape[0]])
    (x0, y0), (x1, y1) = low.T, high.T
    return (sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / ((x1 - x0) * (y1 - y0))


def write_tiles(path: Path, slide: Slide, tiles: Tiles, tiling: Tiling) -> None:
    """`coords` with the attributes that CLAM and TRIDENT read."""
    import h5py

    with replacing(path) as partial, h5py.File(partial, "w") as file:
        coords = file.create_dataset("coords", data=tiles.coords)
        coords.attrs.update(
            {
                "patch_size": tiling.pixels,
                "patch_size_level0": tiles.side,
                "patch_level": 0,
                "overlap": tiling.overlap,
                "target_mpp": tiling.mpp,
                "mpp": slide.mpp,
                "level0_width": slide.size[0],
                "level0_height": slide.size[1],
                "name": slide.name,
            }
        )


def draw_tiles(path: Path, tiles: Tiles, size: tuple[int, int]) -> None:
    """The thumbnail with the tissue's outline and the tiles, to see at a glance what goes in."""
    from PIL import Image, ImageDraw
    from scipy import ndimage

    image = tiles.thumbnail.copy()
    image[tiles.mask & ~ndimage.binary_erosion(tiles.mask, iterations=2)] = (0, 114, 178)
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    scale = image.shape[1] / size[0]
    for x, y in tiles.coords:
        pen.rectangle([x * scale, y * scale, (x + tiles.side) * scale, (y + tiles.side) * scale], outline=(213, 94, 0))
    with replacing(path) as partial:
        picture.save(partial)


def tile(slides: Path, out: Path, tiling: Tiling, mpp: float | None) -> dict:
    """Tiles of a slide or a folder of them into `out/tiles`, each with a thumbnail; a slide that fails is told of.

    Raises InputError when there is one slide and it fails, ManyheadsError when all of several do.
    """
    files = find_slides(slides)
    folder = output_folder(out / "tiles")
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    with progress() as bar:
        task = bar.add_task("tile", total=len(files))
        for path in files:
            try:
                with closing(open_slide(path, mpp)) as slide:
                    tiles = find_tiles(slide, tiling)
                    write_tiles(folder / f"{slide.name}.h5", slide, tiles, tiling)
                    draw_tiles(folder / f"{slide.name}.png", tiles, slide.size)
            except InputError as error:
                if len(files) == 1:
                    raise
                failed.append(str(error))
            else:
                rows.append(
                    {
                        "slide": slide.name,
                        "tiles": len(tiles.coords),
                        "tissue": round(tiles.tissue, 4),
                        "um_per_pixel": round(slide.mpp, 5),
                        "side_at_level_0": round(tiles.side, 1),
                    }
                )
            bar.advance(task)
    if not rows:
        raise ManyheadsError(f"{slides}: no slide could be tiled; the first: {failed[0]}")
    return {"written": str(folder), "slides": rows, "failed": failed}
