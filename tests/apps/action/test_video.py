"""From a raw video to labelled segments: features, a tiny model, detection, and files that cannot be read."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from apps.action.features import VIDEOS
from apps.action.overlay import drawn
from apps.action.proposals import Detection
from shared.io.video import Video, write_video
from tests.command_line import Manyheads, Refused, sets


def film(path: Path, seed: int) -> list[dict]:
    """A grey film of 8 s in which a red and a blue square come and go; its annotations."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(90, 110, (64, 64, 96, 3)).astype(np.uint8)
    rows = []
    for start, label in zip((8, 36), rng.permutation(["red", "blue"]), strict=True):
        frames[start : start + 16, 10:54, 20:76] = (220, 20, 20) if label == "red" else (20, 20, 220)
        rows.append({"segment": [start / 8, (start + 16) / 8], "label": str(label)})
    write_video(path, iter(frames), 8)
    return rows


@pytest.fixture(scope="module")
def films(manyheads: Manyheads, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, their features and a trained model in `run`."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "videos").mkdir()
    rows = {f"film-{seed}": {"annotations": film(folder / "videos" / f"film-{seed}.mp4", seed)} for seed in range(6)}
    (folder / "annotations.json").write_text(json.dumps({"database": rows}))
    features = folder / "features"
    words = ("extract", folder / "videos", "--out", features, "--snippet-seconds", 0.25)
    done = manyheads("action", *words, "--json").json()
    assert [row["snippets"] for row in done["videos"]] == [32] * 6
    before = (features / "film-0.npy").stat().st_mtime_ns
    manyheads("action", *words)
    assert (features / "film-0.npy").stat().st_mtime_ns == before
    settings = sets(*tiny, "train.epochs=30", "train.select=last")
    assert manyheads("action", "train", "--data", folder, "--out", folder / "run", *settings).code == 0
    return folder


def test_a_raw_video_becomes_labelled_segments(manyheads: Manyheads, films: Path, tmp_path: Path) -> None:
    truth = film(tmp_path / "new.mp4", 50)
    words = ("detect", tmp_path / "new.mp4", "--checkpoint", films / "run", "--out", tmp_path / "out", "--json")
    shown = manyheads("action", *words).json()["shown"]
    for row in truth:
        start, end = row["segment"]
        assert any(
            found["label"] == row["label"] and abs(found["start"] - start) < 0.8 and abs(found["end"] - end) < 0.8
            for found in shown
        ), (row, shown)
    with Video(tmp_path / "out" / "new.mp4") as video:
        assert video.info.frames == 64
        assert video.info.height > 64
    assert (tmp_path / "out" / "new.png").exists()


def test_a_video_as_a_stream(manyheads: Manyheads, films: Path, tmp_path: Path) -> None:
    truth = film(tmp_path / "new.mp4", 51)
    done = manyheads(
        "action", "stream", tmp_path / "new.mp4", "--checkpoint", films / "run", "--hop", 2, "--margin", 4, "--json"
    )
    rows = [json.loads(line) for line in done.out.splitlines()]
    for row in truth:
        assert any(
            found["label"] == row["label"] and abs(found["start"] - row["segment"][0]) < 0.8 for found in rows
        ), (row, rows)
    assert all(row["at"] >= row["end"] - 1e-6 for row in rows)


def test_extract_with_a_model_writes_class_scores(
    manyheads: Manyheads, refused: Refused, films: Path, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "videos").mkdir()
    truth = film(tmp_path / "videos" / "new.mp4", 52)
    words = ("extract", tmp_path / "videos", "--out", tmp_path / "features", "--snippet-seconds", 0.25)
    assert "reads features, not video features" in refused("action", *words, "--checkpoint", run)
    assert not (tmp_path / "features").exists()
    manyheads("action", *words, "--checkpoint", films / "run", "--json").json()
    scores = np.load(tmp_path / "scores" / "new.npy")
    assert scores.shape == (32, 3)  # blue, red and background
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    for row in truth:
        middle = int(sum(row["segment"]) / 2 / 0.25)
        assert scores[middle].argmax() == ["blue", "red"].index(row["label"])


def test_videos_that_cannot_be_read(refused: Refused, films: Path, tmp_path: Path) -> None:
    word = ("--checkpoint", films / "run", "--out", tmp_path / "out")
    whole = (films / "videos" / "film-0.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    assert "cut.mp4" in refused("action", "detect", tmp_path / "cut.mp4", *word)
    (tmp_path / "text.mp4").write_text("no video")
    assert "is text" in refused("action", "detect", tmp_path / "text.mp4", *word)
    assert "holds no video" in refused(
        "action", "extract", tmp_path / "out" if (tmp_path / "out").exists() else films / "features"
    )
    assert not (tmp_path / "out").exists()
    line = refused("action", "extract", films / "videos", "--out", films / "features", "--snippet-seconds", 1)
    assert "snippets of 0.25 s" in line
    assert ".mp4" in VIDEOS


def test_decoding_that_hangs_ends_with_the_time_limit(
    refused: Refused, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is a child that never answers."""
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr("shared.io.video.WORKER", sleeper)
    video = films / "videos" / "film-0.mp4"
    for words in (
        ("extract", video, "--out", tmp_path / "out"),
        ("detect", video, "--checkpoint", films / "run", "--out", tmp_path / "out"),
        ("explain", video, "--checkpoint", films / "run", "--out", tmp_path / "out"),
        ("stream", video, "--checkpoint", films / "run"),
    ):
        assert "no answer within 0.5 s" in refused("action", *words, "--timeout", 0.5)


def test_a_damaged_file_is_read_as_far_as_it_goes_and_says_so(
    manyheads: Manyheads, shared_data: Path, films: Path, tmp_path: Path
) -> None:
    file = shared_data / "action" / "v_corrupted.mp4"
    done = manyheads("action", "detect", file, "--checkpoint", films / "run", "--out", tmp_path, "--no-video")
    assert done.code == 0, done.err
    assert "could not be read beyond frame" in done.err


def test_the_overlay_shows_the_class_while_it_lasts() -> None:
    frame = np.zeros((100, 160, 3), np.uint8)
    shown = [Detection(2, 4, "jump", 0.9)]
    inside, outside = (drawn(frame, time, 10, shown, ["jump"]) for time in (3.0, 6.0))
    assert inside.shape == (124, 160, 3)
    assert inside[:100].any()
    assert not outside[:100].any()
    assert outside[100:].any()


def test_samples_by_standard_input(manyheads: Manyheads, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped model on a composed stream that comes line by line."""
    from apps.action.readers.watch import compose_streams

    signal = compose_streams()[0][2][:3000]
    lines = "".join(",".join(f"{value:.5f}" for value in row) + "\n" for row in signal)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    rows = [json.loads(line) for line in manyheads("action", "stream", "-", "--json").out.splitlines()]
    assert rows
    assert all(row["at"] <= 60 for row in rows)
    monkeypatch.setattr("sys.stdin", io.StringIO("1,2,3\n"))
    done = manyheads("action", "stream", "-")
    assert done.code == 2
    assert "line 1: has 3 channels, the model reads 6" in done.err
