"""Reading and writing of videos: what decord reads, what only PyAV reads, what nobody reads, and what never ends."""

import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from shared.errors import InputError
from shared.io import video as module
from shared.io.video import Video, mended_times, write_video


def picture(i: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame that says which it is: its brightness."""
    return np.full((height, width, 3), 20 + 5 * i, np.uint8)


def number(frame: np.ndarray) -> int:
    return round((float(frame.mean()) - 20) / 5)


def encode(path: Path, codec: str, count: int = 20, pixels: str = "yuv420p", times: list[int] | None = None) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(picture(i), "rgb24")
            frame = frame.reformat(format=pixels)
            if times:
                frame.time_base, frame.pts = Fraction(1, 10), times[i]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", (picture(i) for i in range(40)), 10)


def test_a_written_video_is_read_frame_by_frame(clip: Path) -> None:
    with Video(clip) as video:
        info = video.info
        assert (info.frames, info.fps, info.height, info.width) == (40, 10, 48, 64)
        assert info.duration == pytest.approx(4.0)
        chunks = list(video.chunks(16))
        assert [len(chunk.frames) for chunk in chunks] == [16, 16, 8]
        assert [number(frame) for chunk in chunks for frame in chunk.frames] == list(range(40))
        assert np.concatenate([chunk.times for chunk in chunks]) == pytest.approx(np.arange(40) / 10)


def test_any_frames_in_any_order_and_strides(clip: Path) -> None:
    with Video(clip) as video:
        assert [number(frame) for frame in video.read([30, 3, 3, 12])] == [30, 3, 3, 12]
        taken = [number(f) for chunk in video.chunks(4, start=5, stop=30, stride=7) for f in chunk.frames]
        assert taken == [5, 12, 19, 26]
        with pytest.raises(InputError, match=r"has no frame 40; it has 40"):
            video.read([40])


@pytest.mark.parametrize(("size", "shape"), [(24, (24, 32)), ((30, 20), (30, 20)), (500, (48, 64))])
def test_resizing(clip: Path, size, shape) -> None:
    with Video(clip, size) as video:
        assert video.info.source_size == (48, 64)
        assert video.read([7]).shape == (1, *shape, 3)
        assert number(video.read([7])[0]) == 7


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.gif", "gif", "rgb8"), ("a.mkv", "libsvtav1", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p")],
)
def test_other_codecs_are_read_by_whoever_can(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    import av.codec

    try:
        av.codec.Codec(codec, "w")
    except Exception:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    with Video(encode(tmp_path / name, codec, pixels=pixels)) as video:
        assert video.info.frames == 20
        read = [number(frame) for chunk in video.chunks(7) for frame in chunk.frames]
        assert np.abs(np.array(read) - np.arange(20)).max() <= (4 if codec == "gif" else 1)  # of a palette of 8 bits
        assert np.diff(video.info.times) == pytest.approx(0.1, abs=0.02)


def test_without_decord_pyav_gives_the_same(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with Video(clip) as video:
        assert video.info.reader == "pyav"
        assert [number(frame) for frame in video.read([30, 3, 3, 12])] == [30, 3, 3, 12]
        assert video.info.times == pytest.approx(np.arange(40) / 10)


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 1, 2, 3, 10, 11, 12, 30, 31, 32]
    path = encode(tmp_path / "vfr.mkv", "mpeg4", 10, times=times)
    with Video(path) as video:
        assert video.info.times == pytest.approx(np.array(times) / 10, abs=0.01)


def test_times_that_are_nonsense_are_mended() -> None:
    assert mended_times(np.array([0, 0.1, 0.2, 1e9]), 10) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert mended_times(np.array([np.nan, 0.1, 0.05, 0.3]), 10) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert mended_times(np.zeros(4), 20) == pytest.approx([0, 0.05, 0.1, 0.15])


def turned(path: Path) -> Path:
    """A video of a telephone on its side: the file says that it is shown turned to the right."""
    import struct

    frame = picture(0, 64, 96)
    frame[:10, :20] = 250
    data = bytearray(write_video(path, [frame] * 3, 10).read_bytes())
    at = data.index(b"tkhd") + 44  # the matrix in the header of the track
    one = 1 << 16
    assert struct.unpack_from(">9i", data, at) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, at, 0, one, 0, -one, 0, 0, 64 * one, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("reader", ["decord", "pyav"])
def test_a_video_is_turned_as_it_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
    if reader == "pyav":
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    elif not module.find_spec("decord"):
        pytest.skip("decord is not installed")
    with Video(turned(tmp_path / "turned.mp4")) as video:
        assert video.info.source_size == (96, 64)
        rows, columns = np.nonzero(video.read([1])[0].mean(-1) > 150)
        assert video.info.reader == reader
    assert (rows.min(), columns.max()) == (0, 63)
    assert (rows.max(), columns.min()) == pytest.approx((19, 54), abs=1)


def test_images_are_in_the_order_of_their_numbers_and_turned_as_they_say(tmp_path: Path) -> None:
    from PIL import Image

    for i in (1, 2, 10):
        Image.fromarray(picture(i)).save(tmp_path / f"frame_{i}.png")
    with Video(tmp_path) as video:
        assert [number(frame) for frame in video.read([0, 1, 2])] == [1, 2, 10]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned to the right
    (tmp_path / "photographs").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "photographs" / "a.jpg", exif=exif)
    with Video(tmp_path / "photographs") as video:
        assert video.info.source_size == (64, 48)


def test_a_folder_of_images_in_the_davis_layout(tmp_path: Path) -> None:
    from PIL import Image

    for i in (2, 0, 1):
        Image.fromarray(picture(i)).save(tmp_path / f"{i:05d}.png")
    (tmp_path / "._00000.png").write_bytes(b"what a Mac leaves behind")
    with Video(tmp_path, 24) as video:
        assert (video.info.reader, video.info.frames) == ("images", 3)
        assert [number(frame) for chunk in video.chunks(2) for frame in chunk.frames] == [0, 1, 2]
    Image.fromarray(picture(3, 20, 20)).save(tmp_path / "00003.png")
    with Video(tmp_path) as video, pytest.raises(InputError, match=r"00003.png: is 20x20, the first image 64x48"):
        list(video.chunks())
    (tmp_path / "00003.png").write_bytes(b"\x89PNG\r\n")
    with Video(tmp_path) as video, pytest.raises(InputError, match=r"00003.png: is damaged"):
        list(video.chunks())


def audio(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_files_that_are_no_video_get_one_line(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.txt").write_text("hello\n" * 1000)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\nhttp://example.org/a.ts\n")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:800])
    (tmp_path / "none").mkdir()
    audio(tmp_path / "audio.mp4")
    for name, says in {
        "missing.mp4": "no such file",
        "empty.mp4": "is empty",
        "text.txt": "is text",
        "list.m3u8": "is text",
        "noise.mp4": "no video that can be read",
        "cut.mp4": "truncated",
        "none": "holds no images",
        "audio.mp4": "no video stream",
    }.items():
        with pytest.raises(InputError, match=says) as caught:
            Video(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", "mjpeg", 40, "yuvj420p").read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    with Video(path) as video:
        read = [number(frame) for chunk in video.chunks(8) for frame in chunk.frames]
    assert 10 < len(read) < 40
    assert read == list(range(len(read)))


def test_a_reader_that_hangs_is_ended_and_another_takes_over(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for decord that never comes back, first on opening, then at the third frame."""
    worker = tmp_path / "worker.py"
    real = module.WORKER.read_text(encoding="utf-8")
    for place in ("self.video = decord", "batch = max(1,"):
        hanging = real.replace(place, f"__import__('time').sleep(100)\n        {place}", 1)
        worker.write_text(hanging, encoding="utf-8")
        monkeypatch.setattr(module, "WORKER", worker)
        monkeypatch.setattr(module, "find_spec", lambda name: True)
        with Video(clip, timeout=2) as video:
            assert [number(frame) for frame in video.read([0, 20])] == [0, 20]
            assert video.info.reader == "pyav"


def test_the_child_imports_no_torch_and_ends_with_its_video(clip: Path) -> None:
    with Video(clip) as video:
        process = video._child
        assert process is not None
        if sys.platform == "linux":
            assert "torch" not in Path(f"/proc/{process.pid}/maps").read_text()
    assert process.poll() is not None
    with pytest.raises(ValueError, match="closed"):
        video.read([0])


def test_without_its_encoder_h264_becomes_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av
    import av.codec

    def missing(*args: object) -> None:
        raise ValueError("no such codec")

    path = write_video(tmp_path / "a.mp4", (picture(i, 47, 63) for i in range(5)), 25)
    monkeypatch.setattr(av.codec, "Codec", missing)
    other = write_video(tmp_path / "b.mp4", (picture(i, 47, 63) for i in range(5)), 25)
    for file, codec in ((path, ("h264",)), (other, ("mpeg4",))):
        with av.open(str(file)) as container:
            assert container.streams.video[0].codec_context.name in codec
        with Video(file) as video:
            assert (video.info.height, video.info.width) == (48, 64)
            assert [number(frame) for frame in video.read(range(5))] == list(range(5))
    with pytest.raises(InputError, match="no frame"):
        write_video(tmp_path / "c.mp4", [], 25)
    assert not [name for name in os.listdir(tmp_path) if "c.mp4" in name or "partial" in name]
