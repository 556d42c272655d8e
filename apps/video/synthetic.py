"""Clips of moving objects with their true masks, from a seed: textures that move, cover each other, and pan.

House notation: T frames, O objects, H and W pixels.
"""

import io
from pathlib import Path

import numpy as np

from apps.video.masks import write_mask
from shared.io.files import output_folder, write_bytes


def make_clip(
    seed: int, frames: int = 24, objects: int = 3, height: int = 144, width: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) uint8 and labels (T, H, W) uint8; the same seed gives the same clip.

    A smooth texture pans slowly as the background. Each object is a blob with a texture and a colour of its own, that
    moves on a straight line with a slight swing, turns, is reflected by the frame, and covers those before it.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    background = _texture(rng, height + 64, width + 64, grain=24) * 0.5 + rng.uniform(60, 120, 3)
    pan = rng.uniform(-1, 1, 2)
    shapes = [_shape(rng, height, width, hue) for hue in rng.permutation(max(1, objects))[:objects] / max(1, objects)]
    clip = np.empty((frames, height, width, 3), np.uint8)
    labels = np.zeros((frames, height, width), np.uint8)
    for t in range(frames):
        top, left = (32 + np.clip(pan * t, -31, 31)).astype(int)
        image = background[top : top + height, left : left + width].copy()
        for label, shape in enumerate(shapes, 1):
            inside, texture = _draw(shape, t, y, x)
            image[inside] = texture[inside]
            labels[t][inside] = label
        noise = rng.normal(0, 3, image.shape)
        clip[t] = np.clip(image + noise, 0, 255)
    return clip, labels


def _texture(rng: np.random.Generator, height: int, width: int, grain: int) -> np.ndarray:
    """(H, W, 3) smooth noise of standard deviation about 50: a coarse grid of numbers, drawn large."""
    from PIL import Image

    small = rng.normal(0, 60, (height // grain + 2, width // grain + 2, 3)).astype(np.float32)
    planes = [Image.fromarray(small[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
    return np.stack([np.asarray(plane) for plane in planes], -1)


def _shape(rng: np.random.Generator, height: int, width: int, hue: float) -> dict:
    import colorsys

    colour = np.array(colorsys.hsv_to_rgb((hue + rng.uniform(0, 0.08)) % 1, rng.uniform(0.7, 1), 0.9)) * 255
    radius = rng.uniform(0.14, 0.24) * height
    size = int(4 * radius) + 2
    angle = rng.uniform(0, 2 * np.pi)
    return {
        "centre": rng.uniform(radius, [height - radius, width - radius]),
        "speed": rng.uniform(1.5, 4) * height / 144 * np.array([np.sin(angle), np.cos(angle)]),
        "swing": rng.uniform(0, 3),
        "turn": rng.uniform(-0.06, 0.06),
        "radius": radius,
        "waves": [(k, rng.uniform(0, 0.12), rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5)],
        "stretch": rng.uniform(0.7, 1.0),
        "texture": np.clip(_texture(rng, size, size, grain=8) * 0.5 + colour, 0, 255),
    }


def _draw(shape: dict, t: int, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the object is at time t (H, W), and its texture on the whole frame (H, W, 3)."""
    low, high = shape["radius"] * 0.5, np.array(y.shape) - shape["radius"] * 0.5
    place = shape["centre"] + shape["speed"] * t + shape["swing"] * np.sin(t / 4)
    span = high - low
    place = low + np.abs((place - low + span) % (2 * span) - span)  # there and back
    angle = shape["turn"] * t
    dy, dx = y - place[0], x - place[1]
    u, v = dy * np.cos(angle) - dx * np.sin(angle), (dy * np.sin(angle) + dx * np.cos(angle)) * shape["stretch"]
    phase = np.arctan2(u, v)
    outline = 1 + sum(size * np.sin(k * phase + shift) for k, size, shift in shape["waves"])
    inside = np.hypot(u, v) < shape["radius"] * outline
    texture = shape["texture"]
    rows = np.clip(u + len(texture) / 2, 0, len(texture) - 1).astype(int)
    columns = np.clip(v + len(texture) / 2, 0, len(texture) - 1).astype(int)
    return inside, texture[rows, columns]


def synthesise(out: Path, *, clips: int, frames: int, objects: int, size: int, seed: int) -> dict:
    """Write `clips` clips in DAVIS's layout: JPEGImages/clip-000/00000.jpg, Annotations/clip-000/00000.png."""
    from PIL import Image

    width = size * 16 // 9 // 2 * 2
    for number in range(clips):
        name = f"clip-{number:03d}"
        clip, labels = make_clip(seed * 100_003 + number, frames, objects, size, width)
        images = output_folder(out / "JPEGImages" / name)
        for t in range(frames):
            picture = io.BytesIO()  # Pillow writes half a JPEG to a full disk and says nothing
            Image.fromarray(clip[t]).save(picture, "JPEG", quality=92)
            write_bytes(images / f"{t:05d}.jpg", picture.getvalue())
            write_mask(out / "Annotations" / name / f"{t:05d}.png", labels[t])
    return {"written": str(out), "clips": clips, "frames": frames, "objects": objects, "size": [size, width]}
