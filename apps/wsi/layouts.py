"""Files of features as others write them: CLAM, TRIDENT, STAMP, ACMIL's single file, and the same on the way out."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from apps.wsi.bags import check_features
from shared.errors import InputError
from shared.io.files import input_file, output_folder, replacing

Layout = Literal["trident", "clam", "stamp", "acmil"]


@dataclass(frozen=True)
class Features:
    """The features of one slide and where its tiles lie.

    Fields:
        features (N, D) float32; coords (N, 2), upper left corners, x first; tile: a side. Both in pixels of level 0, or
        in micrometres where `unit` is "um" (STAMP), and None where the file does not say.
        mpp: micrometres a pixel at level 0. label: what the file itself calls the slide (ACMIL's attribute).
    """

    name: str
    features: np.ndarray
    coords: np.ndarray | None = None
    tile: float | None = None
    unit: str = "px"
    mpp: float | None = None
    encoder: str | None = None
    label: str | None = None
    source: Path | None = None


def find_features(path: Path) -> list[Path]:
    """The files of features in a folder of one of the layouts, or the file itself.

    Raises InputError when there are none, or features of two encoders.
    """
    if not path.is_dir():
        return [input_file(path)]
    for pattern in ("*.h5", "h5_files/*.h5", "features_*/*.h5", "pt_files/*.pt", "*.pt"):
        files = sorted(file for file in path.glob(pattern) if not file.name.startswith("."))
        folders = sorted({file.parent.name for file in files})
        if len(folders) > 1:
            raise InputError(
                f"{path}: holds features of {len(folders)} encoders; name one folder: {', '.join(folders)}"
            )
        if files:
            return files
    raise InputError(f"{path}: holds no features; make them with extract, or name the folder of .h5 or .pt files")


def read_features(path: Path) -> Iterator[Features]:
    """All slides in a file: one, or as many as ACMIL's single file holds.

    Raises InputError for a file that is truncated, a pickle, empty, not finite, or whose coords do not fit.
    """
    if path.suffix == ".pt":
        yield _read_pt(path)
        return
    import h5py

    try:
        with h5py.File(input_file(path), "r") as file:
            groups = [name for name, item in file.items() if isinstance(item, h5py.Group)]
            if groups:
                for name in groups:
                    yield _read_group(file[name], name, path)
            else:
                yield _read_group(file, path.stem, path)
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # all are h5py's words for damage
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: is truncated or no HDF5 file ({reason}); copy or extract it again") from None


def _read_group(group: Any, name: str, path: Path) -> Features:
    where = str(path) if path.stem == name else f"{path}: {name}"
    key = next((key for key in ("features", "feats", "feat") if key in group), None)
    if key is None:
        raise InputError(
            f"{where}: holds {', '.join(group) or 'nothing'}, no features, feats or feat; extract it again"
        )
    features = group[key][()]
    if features.ndim == 3 and features.shape[0] == 1:
        features = features[0]
    features = check_features(where, features)
    coords, attributes = None, {**dict(group.attrs), **dict(group[key].attrs)}
    if "coords" in group:
        coords = np.asarray(group["coords"][()])
        attributes |= dict(group["coords"].attrs)
        if coords.ndim == 3 and coords.shape[0] == 1:
            coords = coords[0]
        if coords.ndim != 2 or coords.shape[1] < 2 or len(coords) != len(features):
            raise InputError(
                f"{where}: coords have the shape {coords.shape} for {len(features)} features; they belong to other "
                "tiles, extract it again"
            )
    unit = "um" if str(_text(attributes.get("unit"))) == "um" else "px"
    tile = attributes.get("tile_size_um" if unit == "um" else "patch_size_level0")
    return Features(
        name,
        features,
        None if coords is None else coords[:, :2].astype(np.float64),
        None if tile is None else float(tile),
        unit,
        None if attributes.get("mpp") is None else float(attributes["mpp"]),
        _text(attributes.get("encoder", attributes.get("extractor"))),
        _text(attributes.get("label")),
        path,
    )


def _text(value: Any) -> str | None:
    return None if value is None else value.decode() if isinstance(value, bytes) else str(value)


def in_pixels(slide: Features, mpp: float | None) -> Features:
    """The slide with coords and tile in pixels of level 0; `mpp` is for one that does not state it.

    Raises InputError where they are in micrometres and nobody says what a pixel is.
    """
    slide = replace(slide, mpp=slide.mpp or mpp)
    if slide.unit == "px" or slide.coords is None:
        return slide
    if not slide.mpp:
        raise InputError(f"{slide.source}: its coords are in micrometres; say what a pixel is with --mpp")
    tile = None if slide.tile is None else slide.tile / slide.mpp
    return replace(slide, unit="px", coords=slide.coords / slide.mpp, tile=tile)


def load_pt(path: Path) -> Any:
    """What `torch.save` wrote, of tensors only: InputError for a file that is damaged or would run code."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about the pickle protocol of a file that is refused anyway
            return torch.load(input_file(path), map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{path}: is damaged, or holds more than tensors and is not loaded ({reason})") from None


def _read_pt(path: Path) -> Features:
    value = load_pt(path)
    if not isinstance(value, torch.Tensor):
        raise InputError(f"{path}: holds a {type(value).__name__}, not a tensor of features (N, D)")
    features = check_features(str(path), value.float().numpy())
    beside = path.parent.parent / "h5_files" / f"{path.stem}.h5"
    if not beside.exists():
        return Features(path.stem, features, source=path)
    more = next(read_features(beside))
    if len(more.features) != len(features):
        raise InputError(f"{path}: has {len(features)} features and {beside} {len(more.features)}; extract it again")
    return Features(path.stem, features, more.coords, more.tile, more.unit, more.mpp, more.encoder, source=path)


def write_features(slide: Features, folder: Path, layout: Layout) -> list[Path]:
    """Writes one slide in a layout below `folder`; returns the files. Each is whole or not there.

    trident: `features_<encoder>/<slide>.h5`; clam: `h5_files/` and `pt_files/`; stamp: `<slide>.h5` with coords in um
    (it needs `mpp`). ACMIL's single file holds all slides: `write_single`.
    """
    name = f"{slide.name}.h5"
    if layout == "stamp":
        return [_write_stamp(slide, output_folder(folder) / name)]
    parent = folder / (f"features_{slide.encoder}" if layout == "trident" else "h5_files")
    path = output_folder(parent) / name
    with _new(path) as file:
        file.create_dataset("features", data=slide.features.astype(np.float32)).attrs["encoder"] = slide.encoder or ""
        _write_coords(file, slide)
    if layout == "trident":
        return [path]
    tensor = output_folder(folder / "pt_files") / f"{slide.name}.pt"
    with replacing(tensor) as partial:
        torch.save(torch.from_numpy(slide.features), partial)
    return [path, tensor]


def write_single(slides: list[Features], path: Path) -> Path:
    """ACMIL's single file: a group a slide with `feat`, `coords` and, where it is known, the attribute `label`.

    `feat` is in float16, as theirs, but for a slide whose features are too large for it.
    """
    with _new(path) as file:
        for slide in slides:
            group = file.create_group(slide.name)
            fits = np.abs(slide.features).max() <= np.finfo(np.float16).max
            group.create_dataset("feat", data=slide.features.astype(np.float16 if fits else np.float32))
            _write_coords(group, slide)
            if slide.label is not None:
                group.attrs["label"] = slide.label
    return path


@contextmanager
def _new(path: Path) -> Iterator[Any]:
    import h5py

    with replacing(path) as partial, h5py.File(partial, "w") as file:
        yield file


def _write_coords(group: Any, slide: Features) -> None:
    if slide.coords is None:
        return
    coords = group.create_dataset("coords", data=slide.coords.round().astype(np.int64))
    for key, value in (("patch_size_level0", slide.tile), ("mpp", slide.mpp), ("name", slide.name)):
        if value is not None:
            coords.attrs[key] = value


def _write_stamp(slide: Features, path: Path) -> Path:
    if slide.coords is None or slide.mpp is None or slide.tile is None:
        raise InputError(f"{slide.name}: the STAMP layout needs coords and um/px; extract it from the slide")
    with _new(path) as file:
        file.create_dataset("feats", data=slide.features.astype(np.float32))
        file.create_dataset("coords", data=slide.coords * slide.mpp)
        file.attrs["unit"] = "um"
        file.attrs["tile_size_um"] = slide.tile * slide.mpp
        file.attrs["extractor"] = slide.encoder or ""
    return path
