"""The DAVIS layout: JPEGImages/<sequence>/*.jpg, Annotations/<sequence>/*.png, ImageSets/*/<split>.txt."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.video.masks import read_mask
from shared.errors import InputError
from shared.io.video import IMAGES, by_number

RESOLUTIONS = ("480p", "Full-Resolution", "240p")
ANNOTATIONS = ("Annotations", "Annotations_unsupervised")
VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".gif")


@dataclass(frozen=True)
class Sequence:
    """A sequence: its frames (a folder or a video file), and its masks, in order, by the stem of their frame."""

    name: str
    frames: Path
    masks: dict[str, Path]


def find_sequences(root: Path, split: str | None = None, names: list[str] | None = None) -> list[Sequence]:
    """The sequences under `root`: a DAVIS layout, a folder of such sequences' frames, or a folder of video files.

    `split` is the name of a list in ImageSets; `names` chooses some. Raises InputError that says what is missing.
    """
    if not root.is_dir():
        raise InputError(f"{root}: is no folder; give a DAVIS layout (JPEGImages, Annotations) or a folder of videos")
    frames = _inside(root / "JPEGImages") if (root / "JPEGImages").is_dir() else root
    found: dict[str, Path] = {}
    for path in sorted(frames.iterdir()):
        if path.name.startswith(".") or not (path.suffix.lower() in VIDEOS if path.is_file() else _has_images(path)):
            continue
        name = path.name if path.is_dir() else path.stem
        if name in found:
            raise InputError(f"{frames}: {found[name].name} and {path.name} have one name; rename one")
        found[name] = path
    if not found:
        raise InputError(f"{root}: holds no sequences; give JPEGImages/<sequence>/*.jpg or video files")
    wanted = list(found) if names is None else names
    if split is not None:
        wanted = [name for name in _split(root, split) if names is None or name in names]
    missing = [name for name in wanted if name not in found]
    if missing:
        known = ", ".join(list(found)[:8]) + (" ..." if len(found) > 8 else "")
        raise InputError(f"{root}: has no sequence {missing[0]}; known: {known}")
    masks = next((_inside(root / name) for name in ANNOTATIONS if (root / name).is_dir()), None)
    return [Sequence(name, found[name], find_masks(masks / name) if masks else {}) for name in wanted]


def find_masks(folder: Path) -> dict[str, Path]:
    """The PNGs of a folder by stem, in the order of the frames; {} where there is none."""
    return {path.stem: path for path in sorted(folder.glob("*.png"), key=by_number) if not path.name.startswith(".")}


def truth(sequence: Sequence, stem: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The labels (H, W) of a frame's annotation, and where it is void (255 beside other labels), or None."""
    labels = read_mask(sequence.masks[stem])
    void = labels == 255
    if void.any():
        labels = np.where(void, 0, labels).astype(np.uint8)
        return labels, void
    return labels, None


def _inside(folder: Path) -> Path:
    return next((folder / name for name in RESOLUTIONS if (folder / name).is_dir()), folder)


def _has_images(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGES for file in folder.iterdir())


def _split(root: Path, split: str) -> list[str]:
    for path in sorted((root / "ImageSets").rglob(f"{split}.txt")) if (root / "ImageSets").is_dir() else []:
        lines = path.read_text(encoding="utf-8").split("\n")
        # DAVIS-2016 lists pairs of files, DAVIS-2017 names.
        first = [line.split()[0].strip("/") for line in lines if line.strip()]
        return list(dict.fromkeys(entry.split("/")[-2] if "/" in entry else entry for entry in first))
    raise InputError(f"{root}: has no ImageSets/*/{split}.txt; leave --split out, or add the list")
