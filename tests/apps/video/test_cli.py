"""The app as a user meets it: every verb through the real entry, on clips made here and on a real video."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from apps.video.masks import decode_rle, read_mask
from apps.video.measures import jaccard
from shared.io.video import Video
from tests.command_line import Manyheads

ROOT = Path(__file__).resolve().parents[3]
VERBS = ("discover", "propagate", "train", "pretrain", "evaluate", "explain", "synthesise", "info")


def test_help_names_every_verb(manyheads: Manyheads) -> None:
    done = manyheads("video", "--help")
    assert done.code == 0
    for verb in VERBS:
        assert f" {verb} " in done.out


def check_outputs(result: dict, frames: int, size: tuple[int, int]) -> None:
    """Masks open in Pillow as palette PNGs of the video's size; video, run lengths and sheet agree with them."""
    masks = sorted(Path(result["masks"]).glob("*.png"))
    assert len(masks) == frames
    with Image.open(masks[-1]) as image:
        assert image.mode == "P"
        assert image.size == (size[1], size[0])
    with Video(result["overlay"]) as video:
        assert sum(len(chunk.frames) for chunk in video.chunks()) == frames
    with Video(result["matte"]) as video:
        (last,) = video.read([frames - 1])
    labels = read_mask(masks[-1])
    assert ((last[: size[0], : size[1]].mean(-1) > 127) != (labels > 0)).mean() < 0.02
    runs = json.loads(Path(result["rle"]).read_text())
    for entry in runs["annotations"][:3]:
        mask = decode_rle(entry["segmentation"])
        assert np.array_equal(mask, read_mask(masks[entry["frame"]]) == entry["object"])
        x, y, w, h = entry["bbox"]
        assert mask[y : y + h, x : x + w].sum() == entry["area"] == mask.sum()
    with Image.open(result["sheet"]) as image:
        assert image.size[0] > 300
    written = json.loads(Path(result["written"]).read_text())
    assert len(written["confidence"]) == frames
    assert all(0 <= c <= 1 for c in written["confidence"])


def test_propagate_from_a_middle_frame_in_both_directions(
    manyheads: Manyheads, clips: Path, tmp_path: Path, tiny: list[str]
) -> None:
    source, mask = clips / "JPEGImages" / "clip-001", clips / "Annotations" / "clip-001" / "00004.png"
    result = manyheads("video", "propagate", source, "--mask", mask, "--out", tmp_path, *tiny, "--json").json()
    assert result["given_frame"] == 4  # told by its name
    assert result["objects"] == [1, 2]
    check_outputs(result, 8, (96, 170))
    masks = Path(result["masks"])
    assert np.array_equal(read_mask(masks / "00004.png"), read_mask(mask))
    for stem in ("00000", "00002", "00007"):
        found, truth = read_mask(masks / f"{stem}.png"), read_mask(mask.with_stem(stem))
        for label in (1, 2):
            assert jaccard(found == label, truth == label) > 0.6, (stem, label)


def test_a_mask_that_propagate_wrote_is_told_by_its_name_also_for_a_file(
    manyheads: Manyheads, clips: Path, tmp_path: Path, tiny: list[str]
) -> None:
    """It is marked anew and given again: 00005.png belongs to frame 5 of a video file as of a folder."""
    from shared.io.video import write_video

    with Video(clips / "JPEGImages" / "clip-001") as video:
        file = write_video(tmp_path / "clip.mp4", iter(video.read(range(8))), 5)
    mask = clips / "Annotations" / "clip-001" / "00005.png"
    result = manyheads("video", "propagate", file, "--mask", mask, "--out", tmp_path / "p", *tiny, "--json").json()
    assert result["given_frame"] == 5


@pytest.mark.parametrize("method", ["salient", "tokencut", "attention", "slots"])
def test_discover_by_each_method(
    manyheads: Manyheads, clips: Path, trained: dict[str, Path], tmp_path: Path, tiny: list[str], method: str
) -> None:
    given = ["--checkpoint", trained[method]] if method in trained else ["--method", method]
    source = clips / "JPEGImages" / "clip-000"
    result = manyheads("video", "discover", source, *given, "--out", tmp_path, *tiny, "--json").json()
    assert result["method"] == method
    assert 0 <= result["object_score"] <= 1
    check_outputs(result, 8, (96, 170))
    again = manyheads("video", "discover", source, *given, "--out", tmp_path / "again", *tiny, "--json").json()
    for mask in Path(result["masks"]).glob("*.png"):
        assert mask.read_bytes() == (Path(again["masks"]) / mask.name).read_bytes()


def test_slots_that_are_left_out_do_not_become_background() -> None:
    from apps.video.config import VideoConfig
    from apps.video.discover import Discoverer
    from apps.video.encoders import LiteEncoder
    from apps.video.model import SlotModel

    torch.manual_seed(0)
    config = VideoConfig.model_validate({"cluster": {"most": 3, "least": 2}})
    discoverer = Discoverer(config, None, None, LiteEncoder(), seed=0, device="cpu")
    keys = torch.randn(6, 7, 112)
    with torch.no_grad():
        soft, facts = discoverer.by_slots(SlotModel(112, 16, 8, 4), [(keys, keys)])
        labels = soft(np.zeros((96, 112, 3), np.uint8), keys, keys)
    assert facts["clusters"] == len(labels) == 3
    torch.testing.assert_close(labels.sum(0), torch.ones(6, 7))


def test_evaluate_makes_masks_and_scores_them_beside_a_baseline(
    manyheads: Manyheads, clips: Path, tmp_path: Path, tiny: list[str]
) -> None:
    result = manyheads("video", "evaluate", "--data", clips, "--out", tmp_path, *tiny, "--json").json()
    assert result["J"] > 0.7
    (held,) = result["baselines"]
    assert held["what"] == "holding the first mask"
    assert result["J"] > held["J"] + 0.1
    assert len(result["sequences"]) == 6
    low, high = result["interval_95"]
    assert low <= result["J&F"] <= high
    same = manyheads(
        "video", "evaluate", "--data", clips, "--masks", tmp_path, "--out", tmp_path / "b", *tiny, "--json"
    ).json()
    assert same["J"] == pytest.approx(result["J"])


def test_truth_scores_one_and_proposals_are_assigned(manyheads: Manyheads, clips: Path, tmp_path: Path) -> None:
    arguments = ["--data", clips, "--masks", clips, "--method", "slots", "--out", tmp_path, "--json"]
    result = manyheads("video", "evaluate", *arguments).json()
    assert result["kind"] == "discovery"
    assert result["J"] == result["F"] == 1
    assert result["assigned_anew_in_every_frame"]["J"] == 1
    whole, middle = result["baselines"]
    assert 0 < whole["J"] < 0.2
    assert 0 < middle["J"] < 0.2
    one = manyheads("video", "evaluate", *arguments, "--sequence", "clip-002").json()
    assert {row["sequence"] for row in one["sequences"]} == {"clip-002"}


@pytest.mark.parametrize("method", [None, "attention", "slots"])
def test_explain_draws_where_a_point_looks(
    manyheads: Manyheads, clips: Path, trained: dict[str, Path], tmp_path: Path, tiny: list[str], method: str | None
) -> None:
    given = ["--checkpoint", trained[method]] if method else []
    source = clips / "JPEGImages" / "clip-000"
    result = manyheads(
        "video", "explain", source, "--point", "80,40", *given, "--out", tmp_path, *tiny, "--json"
    ).json()
    assert sum(row["share"] for row in result["frames"]) == pytest.approx(1, abs=1e-4)
    with Image.open(result["figure"]) as image:
        assert image.size[0] > 300


def test_info_says_what_a_model_is(manyheads: Manyheads, trained: dict[str, Path]) -> None:
    card = manyheads("video", "info", "--checkpoint", trained["attention"], "--json").json()
    assert card["kind"] == "attention"
    assert card["encoder"] == "efficientnet-lite0"
    assert card["parameters"] > 100_000
    assert "tokencut" in manyheads("video", "info", "--json").json()["methods"]


def test_a_real_video_of_the_package(manyheads: Manyheads, tmp_path: Path) -> None:
    """The first frames of bikes.mp4, cut out and made small, so that it takes seconds."""
    from shared.io.video import write_video

    with Video(ROOT / "data" / "bikes.mp4", 120) as video:
        frames = video.read(range(0, 30, 5))
    short = write_video(tmp_path / "bikes.mp4", iter(frames), 5)
    found = manyheads("video", "discover", short, "--out", tmp_path / "d", "--set", "features.size=96", "--json").json()
    check_outputs(found, 6, frames.shape[1:3] if frames.shape[2] % 2 == 0 else (frames.shape[1], frames.shape[2] + 1))
