"""What goes wrong: every kind of wrong input gets one line, and nothing is written."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.video.masks import write_mask
from shared.io.video import write_video
from tests.command_line import Manyheads, Refused


def frame(height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


def sound(path: Path) -> None:
    """A file with an audio stream alone."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())


def encode(path: Path, codec: str, pixels: str, times: list[int]) -> Path:
    """A square that moves over noise, at times in tenths of a second. Skips where FFmpeg lacks the encoder."""
    import av
    import av.codec

    try:
        av.codec.Codec(codec, "w")
    except Exception:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        for i, time in enumerate(times):
            image = frame() // 4
            image[20:44, 10 + 3 * i : 34 + 3 * i] = (220, 60, 40)
            picture = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixels)
            picture.time_base, picture.pts = Fraction(1, 10), time
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def mask(clips: Path) -> Path:
    return clips / "Annotations" / "clip-000" / "00000.png"


@pytest.mark.parametrize("verb", ["discover", "propagate", "explain"])
def test_no_video(refused: Refused, tmp_path: Path, mask: Path, verb: str) -> None:
    more = {"propagate": ["--mask", mask], "explain": ["--point", "3,3"]}.get(verb, [])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 50)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    (tmp_path / "folder").mkdir()
    sound(tmp_path / "sound.mp4")
    for name, says in {
        "missing.mp4": "no such file",
        "empty.mp4": "is empty",
        "text.mp4": "is text",
        "noise.mp4": "truncated or no video",
        "folder": "holds no images",
        "sound.mp4": "no video stream",
    }.items():
        line = refused("video", verb, tmp_path / name, *more, "--out", "made")
        assert says in line
        assert name in line


def test_masks_that_do_not_fit(refused: Refused, tmp_path: Path, clips: Path) -> None:
    source = clips / "JPEGImages" / "clip-000"
    write_mask(tmp_path / "nothing.png", np.zeros((96, 170), np.uint8))
    write_mask(tmp_path / "square.png", np.ones((50, 50), np.uint8))
    Image.fromarray(np.arange(300, dtype=np.uint16).reshape(15, 20)).save(tmp_path / "many.png")
    for name, says in {
        "nothing.png": "marks no object",
        "square.png": "is 50x50, the video 170x96",
        "many.png": "holds 299 labels; a mask has room for 255",
        "missing.png": "no such file",
    }.items():
        assert says in refused("video", "propagate", source, "--mask", tmp_path / name, "--out", "made")
    write_mask(tmp_path / "good.png", np.ones((96, 170), np.uint8))
    assert "has 8 frames" in refused("video", "propagate", source, "--mask", "good.png", "--frame", 8, "--out", "made")


def test_what_is_the_users_own_is_not_overwritten(refused: Refused, tmp_path: Path, clips: Path) -> None:
    """The overlay is called like the video, and masks lie like annotations."""
    import shutil

    video = write_video(tmp_path / "clip.mp4", (frame() for _ in range(3)), 5)
    write_mask(tmp_path / "mask.png", np.ones((64, 96), np.uint8))
    assert "clip.mp4: would be overwritten" in refused(
        "video", "propagate", video, "--mask", "mask.png", "--out", tmp_path
    )
    assert "clip.mp4: would be overwritten" in refused("video", "discover", "clip.mp4", "--out", ".")
    data = tmp_path / "data"
    shutil.copytree(clips, data)
    assert "whose annotations would be overwritten" in refused("video", "evaluate", "--data", data, "--out", data)
    source, mask = data / "JPEGImages" / "clip-000", data / "Annotations" / "clip-000" / "00000.png"
    assert "whose annotations would be overwritten" in refused(
        "video", "propagate", source, "--mask", mask, "--out", data
    )


def test_options_that_do_not_fit(refused: Refused, clips: Path, trained: dict[str, Path]) -> None:
    source = clips / "JPEGImages" / "clip-000"
    assert "needs a model that train made" in refused("video", "discover", source, "--method", "slots")
    attention = trained["attention"]
    assert "is a model of the method attention" in refused(
        "video", "discover", source, "--method", "slots", "--checkpoint", attention
    )
    assert "give it as --checkpoint" in refused("video", "discover", source, "--weights", attention)
    assert "is not of the form X,Y" in refused("video", "explain", source, "--point", "here")
    assert "lies outside the frame" in refused("video", "explain", source, "--point", "500,3")
    assert "unknown field" in refused("video", "discover", source, "--set", "cluster.mots=3")
    assert "--data: is required" in refused("video", "train")
    assert "--data: is required" in refused("video", "evaluate")
    assert "training needs two or more" in refused("video", "train", "--data", clips, "--sequence", "clip-000")
    assert "has no sequence clip-9" in refused("video", "evaluate", "--data", clips, "--sequence", "clip-9")
    assert "has no ImageSets" in refused("video", "evaluate", "--data", clips, "--split", "val")
    assert "does not divide" in refused("video", "train", "--data", clips, "--set", "model.heads=9")
    assert "multiples of pretrain.patch" in refused("video", "pretrain", "--data", clips, "--set", "pretrain.crop=50")


def test_results_that_cannot_be_scored(refused: Refused, tmp_path: Path, clips: Path) -> None:
    one = ["evaluate", "--data", clips, "--masks", tmp_path / "m", "--method", "slots", "--sequence", "clip-000"]
    folder = tmp_path / "m" / "clip-000"
    folder.mkdir(parents=True)
    assert "every annotated frame needs a mask" in refused("video", *one, "--out", tmp_path)
    for number in range(8):
        write_mask(folder / f"{number:05d}.png", np.zeros((20, 20), np.uint8))
    assert "is 20x20, the annotation 170x96" in refused("video", *one, "--out", tmp_path)
    labels = (np.arange(96 * 170) % 22).reshape(96, 170)
    for number in range(8):
        write_mask(folder / f"{number:05d}.png", labels)
    assert "has 21 proposals; DAVIS takes 20" in refused("video", *one, "--out", tmp_path)


def test_sequences_that_cannot_be_scored(refused: Refused, tmp_path: Path, clips: Path) -> None:
    """Too few frames scored 0 in silence; without an object there was an internal error."""
    from apps.video.synthetic import synthesise

    synthesise(tmp_path / "short", clips=1, frames=2, objects=1, size=96, seed=1)
    line = refused("video", "evaluate", "--data", tmp_path / "short", "--out", "made")
    assert "clip-000 has 2 annotated frames, of which the first and the last do not count" in line
    synthesise(tmp_path / "void", clips=1, frames=4, objects=0, size=96, seed=1)
    assert "00000.png: marks no object" in refused("video", "evaluate", "--data", tmp_path / "void", "--out", "made")
    masks = ["--masks", tmp_path / "void", "--method", "slots", "--out", tmp_path]
    assert "marks no object in any frame" in refused("video", "evaluate", "--data", tmp_path / "void", *masks)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("method", ["salient", "tokencut", "attention", "slots"])
def test_short_clips_are_no_fault(
    manyheads: Manyheads, tmp_path: Path, trained: dict[str, Path], method: str, count: int
) -> None:
    rng = np.random.default_rng(0)
    clip = write_video(
        tmp_path / "short.mp4", (rng.integers(0, 255, (64, 96, 3)).astype(np.uint8) for _ in range(count)), 5
    )
    given = ["--checkpoint", trained[method]] if method in trained else ["--method", method]
    result = manyheads("video", "discover", clip, *given, "--out", tmp_path / "d", "--json").json()
    assert result["frames"] == count
    assert len(list(Path(result["masks"]).glob("*.png"))) == count


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "times"),
    [
        ("a.gif", "gif", "rgb8", [0, 1, 2, 3, 4, 5]),
        ("a.mkv", "libsvtav1", "yuv420p", [0, 1, 2, 3, 4, 5]),
        ("varying.mkv", "mpeg4", "yuv420p", [0, 1, 2, 9, 10, 30]),
    ],
)
def test_odd_files_are_carried_through(
    manyheads: Manyheads, tmp_path: Path, name: str, codec: str, pixels: str, times: list[int]
) -> None:
    """GIF, AV1, and a frame rate that varies: every frame gets its mask, and the run lengths have its time."""
    clip = encode(tmp_path / name, codec, pixels, times)
    first = np.zeros((64, 96), np.uint8)
    first[20:44, 10:34] = 1
    write_mask(tmp_path / "first.png", first)
    result = manyheads(
        "video", "propagate", clip, "--mask", tmp_path / "first.png", "--out", tmp_path / "p", "--json"
    ).json()
    assert result["frames"] == 6
    found = {row["frame"]: row for row in json.loads(Path(result["rle"]).read_text())["annotations"]}
    assert [found[i]["time"] for i in range(6)] == pytest.approx(np.array(times) / 10, abs=0.02)
    x, y, w, h = found[5]["bbox"]
    assert np.allclose([x, y, w, h], [25, 20, 24, 24], atol=6)


def test_a_file_on_which_the_reader_hangs_is_ended(
    manyheads: Manyheads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that never answers is killed after the time limit: one line, nothing written."""
    from shared.io import video as module

    write_video(tmp_path / "clip.mp4", (frame() for _ in range(3)), 5)
    (tmp_path / "worker.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(module, "WORKER", tmp_path / "worker.py")
    monkeypatch.setattr(module.Video.__init__, "__kwdefaults__", {"timeout": 0.5})
    done = manyheads("video", "discover", tmp_path / "clip.mp4", "--out", tmp_path / "d")
    assert done.code == 2
    assert "clip.mp4" in done.err
    assert "no answer within 0.5 s" in done.err
    assert not (tmp_path / "d").exists()


def test_a_video_without_an_object_scores_low(manyheads: Manyheads, tmp_path: Path) -> None:
    grey = [np.full((64, 96, 3), 128, np.uint8)] * 5
    clip = write_video(tmp_path / "grey.mp4", grey, 5)
    assert manyheads("video", "discover", clip, "--out", tmp_path / "d", "--json").json()["object_score"] < 0.3


def test_a_large_frame_passes_through(manyheads: Manyheads, tmp_path: Path) -> None:
    """4K, with a mask at a quarter of its size."""
    clip = write_video(tmp_path / "large.mp4", (np.full((2160, 3840, 3), 40 * i, np.uint8) for i in (1, 2)), 5)
    labels = np.zeros((540, 960), np.uint8)
    labels[100:300, 200:500] = 1
    write_mask(tmp_path / "mask.png", labels)
    done = manyheads(
        "video", "propagate", clip, "--mask", tmp_path / "mask.png", "--out", tmp_path / "p", "--json"
    ).json()
    assert "was resized from 960x540 to 3840x2160" in done["note"]
    with Image.open(Path(done["masks"]) / "00001.png") as image:
        assert image.size == (3840, 2160)


def test_a_truncated_video_is_done_as_far_as_it_goes(manyheads: Manyheads, tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "whole.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(), "rgb24").reformat(format="yuvj420p")))
        container.mux(stream.encode())
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    result = manyheads("video", "discover", tmp_path / "cut.mkv", "--out", tmp_path / "d", "--json").json()
    assert 2 < result["frames"] < 12


def test_older_masks_stay_when_new_ones_cannot_be_made(
    manyheads: Manyheads, tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.video import discover

    source = clips / "JPEGImages" / "clip-000"
    first = manyheads("video", "discover", source, "--out", tmp_path, "--set", "features.size=96", "--json").json()
    before = {path.name: path.read_bytes() for path in Path(first["masks"]).iterdir()}

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(discover, "confidence_of", fail)
    assert manyheads("video", "discover", source, "--out", tmp_path, "--set", "features.size=96").code == 130
    assert {path.name: path.read_bytes() for path in Path(first["masks"]).iterdir()} == before
    assert not [path for path in (tmp_path / "Annotations").iterdir() if "partial" in path.name]
