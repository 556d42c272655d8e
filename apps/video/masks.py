"""Label masks: palette PNGs as DAVIS has them, and COCO's run lengths. A label is 0 (background) to 255."""

from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import InputError
from shared.io.files import input_file, replacing

MOST = 255  # objects that a palette PNG has room for


def palette() -> np.ndarray:
    """(256, 3) uint8: the colours of PASCAL VOC and DAVIS; the bits of a label are dealt out to red, green and blue."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * place + channel)) & 1) << (7 - place)).astype(np.uint8)
    return colours


PALETTE = palette()


def read_mask(path: Path) -> np.ndarray:
    """The labels (H, W) uint8 of a mask file.

    A palette PNG holds labels. In a grey one, 0 and 255 alone mean background and object (DAVIS-2016), also where a
    program has smoothed the outline; else the grey values are labels. In a coloured one black is background and every
    other colour an object. What is transparent is background.
    Raises InputError for what is no image, and for more than 255 objects.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(input_file(path)) as image:
            values, by_palette = _values(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is damaged or no image; give a PNG mask") from None
    if values.ndim == 3:
        packed = values.astype(np.int64) @ np.array([1, 256, 65536])
        found, values = np.unique(packed, return_inverse=True)
        values = values.reshape(packed.shape) + (found[0] != 0)  # black, where there is any, becomes 0
    elif not by_palette and _black_and_white(values):
        values = values >= 128
    count = len(np.unique(values[values > 0]))
    if count > MOST:
        raise InputError(
            f"{path}: holds {count} labels; a mask has room for {MOST}, so keep fewer objects (and no JPEG)"
        )
    if values.max(initial=0) > MOST or values.min(initial=0) < 0:
        raise InputError(f"{path}: has labels from {values.min()} to {values.max()}; number the objects 1 to {MOST}")
    return values.astype(np.uint8)


def _values(image: Any) -> tuple[np.ndarray, bool]:
    """Labels or grey (H, W), or colours (H, W, 3), of a Pillow image; and whether they are places in its palette."""
    if image.mode == "PA":
        image = image.convert("P")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode in ("P", "L", "I", "I;16", "F"):
        return np.asarray(image), image.mode == "P"
    pixels = np.asarray(image.convert("RGBA"))
    colours = pixels[..., :3] * (pixels[..., 3:] > 0)
    grey = (colours == colours[..., :1]).all()  # as most programs save black and white
    return (colours[..., 0] if grey else colours), False


def _black_and_white(values: np.ndarray) -> bool:
    """Whether grey values are 0 and 255, or these with an outline between them that is smooth: many levels on few
    pixels."""
    between = values[(values > 32) & (values < 224)]
    if not len(between):
        return set(np.unique(values)) <= {0, 255}
    return (
        values.max() <= 255
        and bool((values >= 224).any())
        and len(between) < 0.05 * values.size
        and (len(np.unique(between)) > 8)
    )


def write_mask(path: Path, labels: np.ndarray) -> None:
    """Labels (H, W) uint8 as a palette PNG."""
    from PIL import Image

    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette(PALETTE.tobytes())
    with replacing(path) as partial:
        image.save(partial, optimize=False)


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest neighbour: (H, W) -> (height, width)."""
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(int)
    return labels[rows[:, None], columns]


def overlay(frame: np.ndarray, labels: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """A frame (H, W, 3) with its objects tinted in their colours and outlined."""
    inside = labels > 0
    edge = np.zeros_like(inside)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    out = frame.astype(np.float32)
    out[inside] = (1 - strength) * out[inside] + strength * PALETTE[labels[inside]]
    out[edge] = 255
    return out.astype(np.uint8)


def encode_rle(mask: np.ndarray) -> dict:
    """A binary mask (H, W) as COCO's compressed run lengths: {"size": [H, W], "counts": text}."""
    flat = np.concatenate([[0], mask.astype(np.uint8).ravel(order="F"), [2]])  # column by column, zeros first
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes])).tolist()
    if not mask.size or not mask.ravel(order="F")[0]:
        counts = counts if counts else [0]
    text = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:  # five bits at a time, as differences to the run before the last
            part = value & 0x1F
            value >>= 5
            more = value != -1 if part & 0x10 else value != 0
            text.append(chr((part | 0x20 if more else part) + 48))
    return {"size": list(mask.shape), "counts": "".join(text)}


def decode_rle(rle: dict) -> np.ndarray:
    """The binary mask (H, W) of `encode_rle`."""
    counts: list[int] = []
    place = 0
    text = rle["counts"]
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            part = ord(text[place]) - 48
            value |= (part & 0x1F) << shift
            more, place, shift = bool(part & 0x20), place + 1, shift + 5
            if not more and part & 0x10:
                value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    flat = np.repeat(np.arange(len(counts)) % 2, counts)
    return flat.astype(bool).reshape(rle["size"], order="F")
