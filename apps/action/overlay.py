"""A video with its detections in it: a bar of time with all of them, a cursor, and the class of the moment."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from apps.action.proposals import Detection
from apps.action.timeline import colour_of

SIZE = 360  # pixels of the shorter side
MOST_FPS = 30.0


def annotated_video(video: Path, out: Path, shown: Sequence[Detection], labels: Sequence[str], timeout: float) -> Path:
    """Writes `out` (mp4), a chunk of frames in memory at a time. Raises InputError as the reader does."""
    from shared.io.video import Video, write_video

    with Video(video, size=SIZE, timeout=timeout) as source:
        stride = max(1, round(source.info.fps / MOST_FPS))
        frames = _frames(source, stride, shown, labels)
        return write_video(out, frames, source.info.fps / stride)


def _frames(source, stride: int, shown: Sequence[Detection], labels: Sequence[str]) -> Iterator[np.ndarray]:
    for chunk in source.chunks(16, stride=stride):
        for time, frame in zip(chunk.times, chunk.frames, strict=True):
            yield drawn(frame, float(time), source.info.duration, shown, labels)


def drawn(
    frame: np.ndarray, time: float, duration: float, shown: Sequence[Detection], labels: Sequence[str]
) -> np.ndarray:
    """The frame (H, W, 3) uint8 with a bar beneath it, (H + bar, W, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = frame.shape[:2]
    bar = max(24, height // 10)
    image = Image.new("RGB", (width, height + bar), "#15181c")
    image.paste(Image.fromarray(frame), (0, 0))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(11, height // 18))
    for d in shown:
        left, right = (width * d.start / duration, width * d.end / duration)
        draw.rectangle((left, height + 4, max(left + 1, right - 1), height + bar - 4), fill=colour_of(labels, d.label))
    now = [d for d in shown if d.start <= time < d.end]
    for number, d in enumerate(now):
        text = f"{d.label}  {100 * d.score:.0f} %"
        top = 8 + number * (height // 11)
        box = draw.textbbox((12, top), text, font=font)
        draw.rectangle((box[0] - 6, box[1] - 4, box[2] + 6, box[3] + 4), fill=colour_of(labels, d.label))
        draw.text((12, top), text, font=font, fill="white")
    x = width * min(1.0, time / max(duration, 1e-9))
    draw.line((x, height, x, height + bar), fill="white", width=2)
    return np.asarray(image)
