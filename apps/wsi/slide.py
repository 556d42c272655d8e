"""Slide files: opening, micrometres a pixel, thumbnails, and regions at a wanted resolution."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import InputError, ManyheadsError
from shared.io.files import input_file

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm")
CELL = 64  # pixels; the overview of a damaged slide is read in squares of so many
UNITS = {"centimeter": 10_000.0, "inch": 25_400.0}  # micrometres in TIFF's ResolutionUnit


class CorruptTileError(ManyheadsError):
    """A region that the slide file does not yield."""


@dataclass
class Slide:
    """An open slide: `size` (width, height) at level 0, `mpp` micrometres a pixel there."""

    path: Path
    handle: Any
    mpp: float

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def size(self) -> tuple[int, int]:
        return self.handle.dimensions

    def close(self) -> None:
        self.handle.close()

    def thumbnail(self, longest: int) -> np.ndarray:
        """The whole slide as RGB (H, W, 3) uint8, its longer side at most `longest`; what is damaged is white."""
        try:
            return np.asarray(self.handle.get_thumbnail((longest, longest)).convert("RGB"))
        except Exception as error:
            reason = _line(error)
        self._reopen()
        down = max(1.0, max(self.size) / longest)
        width, height = (max(1, int(size / down)) for size in self.size)
        image, read = np.full((height, width, 3), 255, np.uint8), False
        for y in range(0, height, CELL):
            for x in range(0, width, CELL):
                with contextlib.suppress(CorruptTileError):
                    cell = self.region(int(x * down), int(y * down), CELL * down, CELL)
                    image[y : y + CELL, x : x + CELL] = cell[: height - y, : width - x]
                    read = True
        if not read:
            raise InputError(f"{self.path}: its overview cannot be read ({reason}); the file is damaged")
        return image

    def whole(self) -> np.ndarray:
        """All of level 0 as RGB (H, W, 3) uint8: for slides that fit into memory. InputError: it is damaged."""
        try:
            return np.asarray(self.handle.read_region((0, 0), 0, self.size).convert("RGB"))
        except Exception as error:
            raise InputError(f"{self.path}: cannot be read whole ({_line(error)}); copy it again") from None

    def region(self, x: int, y: int, side: float, pixels: int) -> np.ndarray:
        """A square of `side` level-0 pixels at (x, y) as RGB (pixels, pixels, 3) uint8.

        Read at the coarsest level that is no coarser than wanted, then reduced; what lies outside the scan is white.
        Raises CorruptTileError when the file does not yield it; the slide can be read on.
        """
        from PIL import Image

        level = self.handle.get_best_level_for_downsample(side / pixels + 1e-3)
        down = self.handle.level_downsamples[level]
        wanted = max(1, round(side / down))
        try:
            image = self.handle.read_region((int(x), int(y)), level, (wanted, wanted)).convert("RGBA")
        except Exception as error:
            self._reopen()  # after an error OpenSlide refuses everything
            raise CorruptTileError(f"{self.path}: tile at {x}, {y}: {_line(error)}") from None
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
        return np.asarray(image if wanted == pixels else image.resize((pixels, pixels), Image.Resampling.BOX))

    def _reopen(self) -> None:
        self.handle.close()
        self.handle = _open(self.path)


def open_slide(path: Path, mpp: float | None = None) -> Slide:
    """A slide by OpenSlide, or by tiffslide where that is installed and OpenSlide does not know the file.

    Raises InputError when it is no slide or damaged, and when it states no resolution and `mpp` is not given.
    """
    handle = _open(input_file(path))
    found = mpp or stated_mpp(handle.properties)
    if found is None:
        handle.close()
        raise InputError(f"{path}: states no micrometres per pixel; give them with --mpp, such as --mpp 0.25")
    return Slide(path, handle, found)


def _open(path: Path) -> Any:
    import openslide

    try:
        return openslide.OpenSlide(str(path))
    except openslide.OpenSlideError as error:
        reason = _line(error)
    try:
        import tiffslide  # pyright: ignore[reportMissingImports]
    except ImportError:
        pass
    else:
        try:
            return tiffslide.TiffSlide(str(path))
        except Exception as error:
            reason = _line(error)
    raise InputError(
        f"{path}: is no slide that can be read, or damaged ({reason}); copy it again or convert it to TIFF"
    )


def stated_mpp(properties: Any) -> float | None:
    """Micrometres a pixel at level 0 as the file states them; None where it does not, or states nonsense."""
    for key in ("openslide.mpp-x", "tiffslide.mpp-x", "aperio.MPP"):
        value = _number(properties.get(key))
        if value and _of_a_microscope(value):
            return value
    resolution, unit = _number(properties.get("tiff.XResolution")), UNITS.get(properties.get("tiff.ResolutionUnit", ""))
    if resolution and unit and _of_a_microscope(unit / resolution):
        return unit / resolution
    return None


def _of_a_microscope(mpp: float) -> bool:
    """Not 72 or 96 dots an inch, which image programs write and OpenSlide passes on."""
    return 0.02 < mpp < 20


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None


def find_slides(path: Path) -> list[Path]:
    """The slides in a folder (not below it), or the file itself. Raises InputError when there are none."""
    if not path.is_dir():
        return [input_file(path)]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    if not files:
        raise InputError(f"{path}: holds no slide; known endings: {' '.join(SUFFIXES)}")
    stems: dict[str, Path] = {}
    for file in files:
        if file.stem in stems:
            raise InputError(f"{path}: {stems[file.stem].name} and {file.name} have one name; rename one")
        stems[file.stem] = file
    return files


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
