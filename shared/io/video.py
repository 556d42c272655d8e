"""Videos and folders of images as frames, in bounded memory; and frames as an MP4.

Files are decoded in a child process with a time limit (`shared/io/video_worker.py`), because a damaged file can make
decord loop forever. PyAV takes over where decord is missing, refuses a file (AV1, GIF) or breaks off.

>>> with Video(path, size=240) as video:
...     print(video.info.frames, video.info.fps)
...     for chunk in video.chunks(16, stride=2):
...         chunk.frames  # (16, 240, W, 3) uint8; chunk.indices and chunk.times (seconds) go with it
"""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from shared.errors import InputError
from shared.io.files import input_file, replacing
from shared.io.video_worker import resized, target_size

WORKER = Path(__file__).with_name("video_worker.py")
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
FOLDER_FPS = 24.0  # of a folder of images, which does not say; it is DAVIS's


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are read."""

    frames: int  # that it says it has; a damaged file may end earlier
    fps: float  # frames a second, on average
    height: int  # of the frames that are read
    width: int
    source_size: tuple[int, int]  # (height, width) in the file
    times: np.ndarray  # (frames,) seconds from the start
    reader: str  # decord, pyav, or images for a folder

    @property
    def duration(self) -> float:
        """Seconds, with the last frame's."""
        return float(self.times[-1]) + 1 / self.fps


@dataclass(frozen=True)
class Chunk:
    """Some frames of a video, in order: indices (N,), times (N,) in seconds, frames (N, H, W, 3) uint8 RGB."""

    indices: np.ndarray
    times: np.ndarray
    frames: np.ndarray


class Video:
    """A video file or a folder of images, open for reading; close it, or use it in a `with` block.

    `size` is None, the most that the short side may have, or (height, width). `timeout` is how many seconds may pass
    until the file is open or the next frame arrives. Memory holds one chunk, whatever the length of the video.
    Raises InputError, in one line, for a file that is missing, empty, text, without video, truncated or hanging.
    `note` says what was wrong with a file that could be read in part.
    """

    def __init__(self, path: Path | str, size: int | tuple[int, int] | None = None, *, timeout: float = 60.0) -> None:
        self.path, self.size, self.timeout, self.note = Path(path), size, timeout, ""
        self._child: subprocess.Popen | None = None
        self._files: list[Path] = []
        if self.path.is_dir():
            self.info = self._open_folder()
            return
        _refuse_text(input_file(self.path))
        kinds = ["decord"] if find_spec("decord") is not None else []
        reasons = []
        for kind in [*kinds, "pyav"]:
            try:
                self.info = self._open(kind)
                return
            except _ReaderError as error:
                reasons.append(str(error))
        raise InputError(
            f"{self.path}: is truncated or no video that can be read ({reasons[-1]}); copy it again or convert it"
        )

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_child", None) is not None:
            self.close()

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()  # closes the pipes and waits
            self._child = None

    def chunks(self, count: int = 16, *, start: int = 0, stop: int | None = None, stride: int = 1) -> Iterator[Chunk]:
        """Every `stride`-th frame from `start` to before `stop`, `count` at a time. Ends where the file really ends.

        Raises InputError when not even the first frame can be read.
        """
        wanted = range(start, min(self.info.frames, stop if stop is not None else self.info.frames), stride)
        for first in range(0, len(wanted), count):
            indices = list(wanted[first : first + count])
            frames = self._read(indices)
            if len(frames):
                taken = np.array(indices[: len(frames)])
                yield Chunk(taken, self.info.times[taken], frames)
            if len(frames) < len(indices):
                if first == 0 and not len(frames):
                    raise InputError(f"{self.path}: frame {indices[0]} cannot be read; {self.note or 'copy it again'}")
                return

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The frames (N, H, W, 3) at `indices`. Raises InputError for one that is not there."""
        for index in indices:
            if not 0 <= index < self.info.frames:
                raise InputError(f"{self.path}: has no frame {index}; it has {self.info.frames}, counted from 0")
        frames = self._read([int(index) for index in indices])
        if len(frames) < len(indices):
            raise InputError(f"{self.path}: frame {indices[len(frames)]} cannot be read; {self.note}")
        return frames

    def _read(self, indices: list[int]) -> np.ndarray:
        """As many of the frames as can be read; sets `note` when that is not all."""
        frames = np.empty((len(indices), self.info.height, self.info.width, 3), np.uint8)
        done = 0
        if self.info.reader == "images":
            for done, index in enumerate(indices, 1):
                frames[done - 1] = self._frame_of_folder(index)
            return frames
        while done < len(indices):
            try:
                for _ in self._frames(indices[done:], frames[done:]):
                    done += 1
            except _ReaderError as error:
                if self.info.reader == "pyav":
                    self.note = f"it could not be read beyond frame {indices[done] - 1} of {self.info.frames} ({error})"
                    break
                self._change_reader()
        return frames[:done]

    def _change_reader(self) -> None:
        """From decord to PyAV, which reads up to the place where a file is damaged. Size and times stay."""
        known = self.info
        self.close()
        try:
            found = self._open("pyav")
        except _ReaderError as error:
            raise InputError(f"{self.path}: is damaged ({error}); copy it again or convert it") from None
        if (found.height, found.width) != (known.height, known.width):  # frames would be cut in the wrong places
            raise InputError(f"{self.path}: is damaged (two readers see two sizes); copy it again or convert it")
        self.info = replace(known, reader="pyav")

    def _open(self, kind: str) -> VideoInfo:
        size, limit = json.dumps(self.size), str(self.timeout)
        self._child = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), kind, str(self.path), size, limit],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            with self._limited():
                facts = self._line()
                times = np.frombuffer(self._bytes(8 * facts["frames"]), "<f8")
        except _ReaderError:
            self.close()
            raise
        fps = facts["fps"] if np.isfinite(facts["fps"]) and facts["fps"] > 0 else 25.0
        height, width, source = facts["height"], facts["width"], tuple(facts["source"])
        return VideoInfo(facts["frames"], fps, height, width, source, mended_times(times, fps), kind)

    def _frames(self, indices: list[int], out: np.ndarray) -> Iterator[None]:
        """Fills `out` frame by frame."""
        if self._child is None:
            raise ValueError(f"{self.path} is closed")
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(indices).encode() + b"\n")
            self._child.stdin.flush()
        except OSError:
            raise _ReaderError("the reader has ended") from None
        for frame in out:
            with self._limited():
                if self._bytes(1) == b"E":
                    self._line()
                self._fill(memoryview(frame).cast("B"))
            yield

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Kills the child when the block takes longer than the time limit, which ends every read from it."""
        child, late = self._child, threading.Event()
        assert child is not None

        def end() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(self.timeout, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except _ReaderError:
            if late.is_set():
                raise _ReaderError(f"no answer within {self.timeout:g} s") from None
            raise
        finally:
            timer.cancel()

    def _line(self) -> dict:
        assert self._child is not None
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line.endswith(b"\n"):
            raise _ReaderError("the reader has ended")
        facts = json.loads(line)
        if "error" in facts:
            raise _ReaderError(facts["error"])
        return facts

    def _bytes(self, count: int) -> bytes:
        data = bytearray(count)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, view: memoryview) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        while len(view):
            got = self._child.stdout.readinto(view)  # pyright: ignore[reportAttributeAccessIssue]
            if not got:
                raise _ReaderError("the reader has ended")
            view = view[got:]

    def _open_folder(self) -> VideoInfo:
        self._files = image_files(self.path)
        source = _image(self._files[0]).shape[:2]
        height, width = target_size(*source, self.size)
        times = np.arange(len(self._files)) / FOLDER_FPS
        return VideoInfo(len(self._files), FOLDER_FPS, height, width, source, times, "images")

    def _frame_of_folder(self, index: int) -> np.ndarray:
        file = self._files[index]
        frame = _image(file)
        if frame.shape[:2] != self.info.source_size:
            a, b = self.info.source_size, frame.shape
            raise InputError(f"{file}: is {b[1]}x{b[0]}, the first image {a[1]}x{a[0]}; frames have one size")
        return resized(frame, self.info.height, self.info.width)


class _ReaderError(Exception):
    """One reader cannot go on; another may."""


def _image(file: Path) -> np.ndarray:
    """An image file as RGB (H, W, 3) uint8, turned as its EXIF says. Raises InputError when it cannot be read."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise InputError(f"{file}: is damaged or no image; copy it again") from None


def image_files(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names, 2 before 10. Raises InputError when there are none."""
    found = (file for file in folder.iterdir() if file.suffix.lower() in IMAGES and not file.name.startswith("."))
    files = sorted(found, key=by_number)
    if not files:
        raise InputError(f"{folder}: holds no images ({', '.join(IMAGES)}); name a folder of frames or a video file")
    return files


def by_number(file: Path) -> list[str | int]:
    """A key to sort files by their names, in which numbers count as such."""
    return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"(\d+)", file.stem))]


def mended_times(times: np.ndarray, fps: float) -> np.ndarray:
    """Seconds (N,) that are finite and rise: what is not follows its predecessor by 1 / fps; if most are not, all do.

    The last frame of some files is stamped with nonsense.
    """
    count, gap = len(times), 60 + 100 / fps  # a recording of a screen may rest for long
    mended, bad = np.array(times, np.float64), 0
    for i in range(count):
        before = mended[i - 1] if i else -1 / fps
        if not np.isfinite(mended[i]) or not before < mended[i] <= before + gap:
            mended[i], bad = before + 1 / fps, bad + 1
    return np.arange(count) / fps if bad > count / 2 else mended


def _refuse_text(path: Path) -> None:
    """FFmpeg plays text files as a terminal's screen, and follows play lists."""
    with path.open("rb") as file:
        head = file.read(4096)
    try:
        head[: len(head) - 3 if len(head) == 4096 else None].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 8:
            return
    if b"\0" not in head:
        raise InputError(f"{path}: is text, no video; name a video file or a folder of images")


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> Path:
    """Writes RGB frames (H, W, 3) uint8 as an MP4: H.264 where FFmpeg has its encoder, else MPEG-4.

    An odd height or width is padded by one row or column, as the codecs want even ones. Returns `path`.
    Raises InputError when there is no frame.
    """
    import av

    rate = Fraction(fps if np.isfinite(fps) and 0 < fps <= 1000 else 25.0).limit_denominator(1001)
    with replacing(path.with_suffix(".mp4")) as partial:
        stream = None
        with av.open(str(partial), "w") as container:
            for frame in frames:
                padded = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), "edge")
                if stream is None:
                    stream = _add_stream(container, rate, padded.shape[1], padded.shape[0])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), "rgb24")))
            if stream is None:
                raise InputError(f"{path}: there is no frame to write")
            container.mux(stream.encode())
    return path.with_suffix(".mp4")


def _add_stream(container, rate: Fraction, width: int, height: int):
    import av.codec

    try:
        av.codec.Codec("libx264", "w")
        stream = container.add_stream("libx264", rate=rate, options={"crf": "23", "preset": "veryfast"})
    except Exception:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.bit_rate = max(1_000_000, width * height * 4)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    return stream
