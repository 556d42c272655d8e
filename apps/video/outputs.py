"""What `discover` and `propagate` write: masks in DAVIS's layout, and from them an overlay, a matte and more.

OUT/Annotations/NAME/00000.png ...   palette PNGs, one a frame
OUT/NAME.mp4                         the video with its objects tinted
OUT/NAME.matte.mp4                   white where an object is, black elsewhere: a luma matte
OUT/NAME.json                        COCO run lengths
OUT/NAME.png                         a contact sheet
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from apps.video.masks import encode_rle, overlay, read_mask, write_mask
from shared.errors import InputError
from shared.io.files import output_folder, replacing, write_bytes
from shared.io.video import Video, image_files, write_video

SHEET = (4, 3)  # columns and rows of frames in a contact sheet
SHEET_WIDTH = 320  # pixels of one of them


def video_name(path: Path) -> str:
    """The name of a video in what is written: of the folder, or of the file without its suffix."""
    return path.resolve().name if path.is_dir() else path.stem


def frame_stems(path: Path, count: int) -> list[str]:
    """What the masks of a video's frames are called: as its images, or by number in five digits."""
    if path.is_dir():
        return [file.stem for file in image_files(path)]
    return [f"{i:05d}" for i in range(count)]


class MaskFolder:
    """Masks of one video that come in any order; they take the place of older ones when all are there."""

    def __init__(self, out: Path, video: Path, frames: int) -> None:
        self.stems = frame_stems(video, frames)
        self.final = out / "Annotations" / video_name(video)
        self.partial = self.final.with_name(f".{self.final.name}.partial-masks")
        self.confidence: dict[int, float] = {}

    def add(self, index: int, labels: np.ndarray, confidence: float) -> None:
        write_mask(self.partial / f"{self.stems[index]}.png", labels)
        self.confidence[index] = round(float(confidence), 4)


@contextmanager
def mask_folder(out: Path, video: Path, frames: int) -> Iterator[MaskFolder]:
    """A `MaskFolder` to add to. When the block raises, the masks that were there before stay.

    Raises InputError when `out` is where the video, or annotations that are the user's own, would be overwritten.
    """
    if (out / "JPEGImages").is_dir():
        raise InputError(f"{out}: is a data set, whose annotations would be overwritten; name another folder as --out")
    overlay = out / f"{video_name(video)}.mp4"
    if overlay.exists() and overlay.samefile(video):
        raise InputError(f"{video}: would be overwritten by the overlay; name another folder as --out")
    output_folder(out)
    folder = MaskFolder(out, video, frames)
    shutil.rmtree(folder.partial, ignore_errors=True)  # of a killed run
    output_folder(folder.partial)
    try:
        yield folder
        if folder.final.exists():
            shutil.rmtree(folder.final)
        folder.partial.rename(folder.final)
    finally:
        shutil.rmtree(folder.partial, ignore_errors=True)


def present(out: Path, source: Path, folder: MaskFolder, timeout: float = 60.0) -> dict[str, str]:
    """From the masks of a video its overlay, run lengths, sheet and matte, frame by frame; returns their paths."""
    name = folder.final.name
    files = {"masks": folder.final, "overlay": out / f"{name}.mp4", "rle": out / f"{name}.json"}
    files |= {"matte": out / f"{name}.matte.mp4", "sheet": out / f"{name}.png"}
    indices = sorted(folder.confidence)
    shown = set(np.array(indices)[np.linspace(0, len(indices) - 1, SHEET[0] * SHEET[1]).round().astype(int)].tolist())
    tiles: list[np.ndarray] = []
    with Video(source, timeout=timeout) as video, replacing(files["rle"]) as rle, rle.open("w") as text:
        info = video.info
        text.write(json.dumps({"video": name, "fps": info.fps, "height": info.height, "width": info.width})[:-1])
        text.write(', "annotations": [')

        def frames() -> Iterator[np.ndarray]:
            first = True
            for chunk in video.chunks(8):
                for index, frame in zip(chunk.indices.tolist(), chunk.frames, strict=True):
                    if index not in folder.confidence:
                        continue
                    labels = read_mask(folder.final / f"{folder.stems[index]}.png")
                    for label in np.unique(labels[labels > 0]).tolist():
                        entry = _entry(index, label, labels == label, float(chunk.times[index - chunk.indices[0]]))
                        text.write(("\n" if first else ",\n") + json.dumps(entry))
                        first = False
                    tinted = overlay(frame, labels)
                    if index in shown:
                        tiles.append(_shrunk(tinted))
                    yield tinted

        write_video(files["overlay"], frames(), info.fps)
        text.write("]}\n")
    masks = (read_mask(folder.final / f"{folder.stems[index]}.png") for index in indices)
    write_video(files["matte"], (np.repeat(np.uint8(255) * (mask > 0)[..., None], 3, 2) for mask in masks), info.fps)
    contact_sheet(files["sheet"], tiles)
    return {kind: str(path) for kind, path in files.items()}


def _entry(index: int, label: int, mask: np.ndarray, time: float) -> dict:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "frame": index,
        "time": round(time, 4),
        "object": label,
        "bbox": [int(side) for side in box],  # x, y, width, height
        "area": int(mask.sum()),
        "segmentation": encode_rle(mask),
    }


def _shrunk(frame: np.ndarray) -> np.ndarray:
    from PIL import Image

    height = max(1, round(frame.shape[0] * SHEET_WIDTH / frame.shape[1]))
    return np.asarray(Image.fromarray(frame).resize((SHEET_WIDTH, height), Image.Resampling.BILINEAR))


def contact_sheet(path: Path, tiles: list[np.ndarray], columns: int = SHEET[0], gap: int = 4) -> None:
    """Frames of one size (H, W, 3) side by side on white, as a PNG."""
    import io

    from PIL import Image

    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape[:2]
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        sheet[y : y + height, x : x + width] = tile
    data = io.BytesIO()
    Image.fromarray(sheet).save(data, "PNG")
    write_bytes(path, data.getvalue())
