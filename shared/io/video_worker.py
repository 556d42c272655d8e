"""Decodes one video in a process of its own: run as a script by `shared.io.video`, which can kill it when it hangs.

It imports nothing of Manyheads, so that it starts in a moment. Arguments: reader (decord, pyav), file, size as JSON,
seconds that one request may take. On the standard output: one JSON line on the file, its frame times as float64; then,
for each line of frame numbers on the standard input, every frame as b"F" and its bytes, or b"E" and a line with the
reason why there are no more.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator

import numpy as np

BATCH_BYTES = 64_000_000  # of decoded frames that are held at a time, so that 4K does not fill the memory


def target_size(height: int, width: int, size: int | list[int] | tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) to read in: None leaves it, an int is the most that the short side may have, a pair is taken."""
    if size is None:
        return height, width
    if isinstance(size, int):
        scale = min(1.0, size / min(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))
    return size[0], size[1]


def resized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3), bilinear with antialiasing; the same for every reader."""
    if frame.shape[:2] == (height, width):
        return frame
    from PIL import Image

    image = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


class DecordReader:
    """H.264, HEVC, VP9, MJPEG and the like, with quick access to any frame."""

    def __init__(self, path: str) -> None:
        import decord

        self.video = decord.VideoReader(path, ctx=decord.cpu(0))
        if not len(self.video):
            raise ValueError("it holds no frames")
        self.height, self.width = self.video[0].shape[:2]
        self.fps = float(self.video.get_avg_fps())
        self.times = np.asarray(self.video.get_frame_timestamp(range(len(self.video))), np.float64)[:, 0]

    def read(self, indices: list[int]) -> Iterator[np.ndarray]:
        batch = max(1, BATCH_BYTES // (self.height * self.width * 3))
        for first in range(0, len(indices), batch):
            yield from self.video.get_batch(indices[first : first + batch]).asnumpy()


class PyAvReader:
    """Whatever FFmpeg reads, AV1 and GIF too; frame by frame from the start, so jumps back cost a new pass."""

    def __init__(self, path: str) -> None:
        self.path = path
        with self._open() as container:
            if not container.streams.video:
                raise ValueError("it holds no video stream")
            stream = container.streams.video[0]
            rate, self.base = stream.average_rate, stream.time_base
            packets = [packet for packet in container.demux(stream) if packet.size]
        if not packets:
            raise ValueError("it holds no frames")
        self._restart()
        first = next(self.frames, None)
        if first is None:
            raise ValueError("none of its frames can be decoded")
        self.height, self.width = first.shape[:2]
        stamps = [packet.pts if packet.pts is not None else packet.dts for packet in packets]
        self.times = np.sort(np.array([np.nan if s is None else float(s * self.base) for s in stamps], np.float64))
        self.times -= np.nanmin(self.times) if np.isfinite(self.times).any() else 0
        span = float(self.times[-1]) if len(self.times) > 1 else 0.0
        self.fps = float(rate) if rate else (len(self.times) - 1) / span if span > 0 else 25.0
        self._restart()

    def _open(self):
        import av

        return av.open(self.path, options={"protocol_whitelist": "file"})

    def _restart(self) -> None:
        self.frames, self.place = self._decode(), 0

    def _decode(self) -> Iterator[np.ndarray]:
        with self._open() as container:
            for frame in container.decode(container.streams.video[0]):
                # Turned as the file says, which decord does by itself: telephones film on their side.
                yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))

    def read(self, indices: list[int]) -> Iterator[np.ndarray]:
        frame, at = None, -1
        for index in indices:
            if index != at:
                if index < self.place:
                    self._restart()
                while self.place <= index:
                    frame = next(self.frames, None)
                    self.place += 1
                    if frame is None:
                        raise ValueError(f"it ends after {self.place - 1} frames")
                at = index
            assert frame is not None
            yield frame


def main() -> None:
    kind, path, size, limit = sys.argv[1:]
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the libraries print must not come between the frames
    alarm = getattr(signal, "alarm", lambda seconds: None)  # ends this process even where a library never returns
    seconds = int(float(limit)) + 5
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "256")
    try:
        alarm(seconds)
        reader = {"decord": DecordReader, "pyav": PyAvReader}[kind](path)
    except Exception as error:
        _line(out, {"error": _reason(error)})
        return
    height, width = target_size(reader.height, reader.width, json.loads(size))
    facts = {"frames": len(reader.times), "fps": reader.fps, "height": height, "width": width}
    _line(out, {**facts, "source": [reader.height, reader.width]})
    out.write(reader.times.astype("<f8").tobytes())
    out.flush()
    alarm(0)
    for line in sys.stdin:
        alarm(seconds)
        try:
            for frame in reader.read(json.loads(line)):
                out.write(b"F")
                out.write(np.ascontiguousarray(resized(frame, height, width)).data)
                out.flush()
                alarm(seconds)
        except Exception as error:
            out.write(b"E")
            _line(out, {"error": _reason(error)})
        alarm(0)


def _line(out, value: dict) -> None:
    out.write(json.dumps(value).encode() + b"\n")
    out.flush()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[-160:] or type(error).__name__


if __name__ == "__main__":
    main()
