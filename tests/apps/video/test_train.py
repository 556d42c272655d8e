"""Training: it goes on after a kill to the same result, it learns, and it holds out what it validates with."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from apps.video.config import VideoConfig
from apps.video.data import ClipData, Clips, Features, read_videos
from apps.video.encoders import load_encoder
from apps.video.pretrain import FrameData, pretrain
from apps.video.train import train
from shared.config import load_config
from shared.errors import InputError
from shared.training.trainer import Hardware

CPU = Hardware(device="cpu")
SMALL = ["features.size=96", "train.steps=3", "train.batch=1", "train.gap=1", "model.width=16", "model.semantics=4"]
SMALL += ["model.instances=2", "model.reach=2"]


def run(clips: Path, out: Path, *settings: str, resume: bool = False) -> dict:
    config = load_config(VideoConfig, None, [*SMALL, *settings])
    return train(config, clips, out, weights=None, split=None, names=None, seed=5, resume=resume, hardware=CPU)


def test_a_run_that_was_cut_short_ends_as_an_unbroken_one(clips: Path, tmp_path: Path) -> None:
    slots = "model.method=slots"
    run(clips, tmp_path / "whole", slots, "train.epochs=2")
    cut = run(clips, tmp_path / "cut", slots, "train.epochs=2", "train.minutes=0.00001")
    assert not cut["finished"]
    done = run(clips, tmp_path / "cut", slots, "train.epochs=2", resume=True)
    assert done["finished"]
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    with pytest.raises(InputError, match="holds a run already"):
        run(clips, tmp_path / "cut", slots, "train.epochs=2")


def test_training_lowers_the_loss(trained: dict[str, Path]) -> None:
    for folder in trained.values():
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert all(np.isfinite(row["valid/loss"]) for row in rows)
        assert (folder / "learning_curve.png").stat().st_size > 1000


def features(frames: int, name: str = "a", grid: tuple[int, int] = (2, 3)) -> Features:
    return Features(name, torch.arange(frames)[:, None, None, None].expand(-1, *grid, 4).half(), torch.zeros(frames, 4))


def test_clips_hold_still_at_the_end_of_short_videos() -> None:
    clips = Clips([features(10), features(2)], frames=3, gap=2)
    assert len(clips) == 6 + 1
    assert clips[1, 0]["keys"][:, 0, 0, 0].tolist() == [1, 3, 5]
    assert clips[6, 0]["keys"][:, 0, 0, 0].tolist() == [0, 1, 1]


def test_draws_repeat_and_batches_have_one_size_of_frame() -> None:
    videos = [features(9, "a"), features(9, "b", (4, 4)), features(9, "c"), features(9, "d", (4, 4))]
    made = [ClipData(videos, frames=3, gap=1, batch=3, steps=5, valid=0.25, seed=s) for s in (0, 0, 1)]
    drawn = [list(data.train_dataloader().batch_sampler) for data in made]
    assert drawn[0] == drawn[1] != drawn[2]
    for batch in made[0].train_dataloader():
        assert batch["keys"].shape[:2] == (3, 3)
    names = {v.name for v in made[0].train_videos} & {v.name for v in made[0].valid_videos}
    assert not names


def test_a_step_is_shared_by_the_processes() -> None:
    """Two processes' batches side by side are the clips and draws of one."""
    data = [ClipData([features(9), features(9)], frames=3, gap=1, batch=4, steps=3, valid=0.5, seed=0) for _ in "ab"]
    data[1].trainer = SimpleNamespace(world_size=2, current_epoch=0)
    (alone, shared) = (list(one.train_dataloader().batch_sampler) for one in data)
    assert [len(batch) for batch in shared] == [2] * 6
    for whole, *parts in zip(alone, shared[::2], shared[1::2], strict=True):
        assert sorted(whole) == sorted(parts[0] + parts[1])


def test_a_batch_that_processes_cannot_share(clips: Path, tmp_path: Path) -> None:
    two, config = Hardware(device="cpu", devices=2), load_config(VideoConfig, None, ["train.batch=3"])
    with pytest.raises(InputError, match=r"train.batch 3: cannot be shared by 2 processes"):
        train(config, clips, tmp_path, weights=None, split=None, names=None, seed=0, resume=False, hardware=two)
    assert not list(tmp_path.iterdir())


def test_a_small_vit_is_pretrained_and_used_as_an_encoder(clips: Path, tmp_path: Path) -> None:
    settings = ["pretrain.steps=2", "pretrain.epochs=2", "pretrain.batch=4", "pretrain.dim=32", "pretrain.depth=2"]
    settings += ["pretrain.heads=2", "pretrain.crop=32", "pretrain.local=16", "pretrain.prototypes=16"]
    config = load_config(VideoConfig, None, settings)
    out = tmp_path / "encoder"
    result = pretrain(config, clips, out, split=None, names=None, seed=0, resume=False, hardware=CPU)
    assert 0 <= result["valid_retrieval"] <= 1
    encoder = load_encoder(out)
    keys, cls = encoder.keys(torch.zeros(2, 50, 70, 3, dtype=torch.uint8))
    assert keys.shape == (2, 6, 9, 32)
    assert cls.shape == (2, 32)
    assert torch.allclose(encoder.fine(torch.zeros(1, 48, 64, 3, dtype=torch.uint8)).norm(dim=-1), torch.ones(1))
    with pytest.raises(InputError, match="the run began with other data"):
        pretrain(config, clips, out, split=None, names=["clip-000", "clip-001"], seed=0, resume=True, hardware=CPU)


def test_a_video_that_cannot_be_read_leaves_no_run(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "good").mkdir(parents=True)
    (tmp_path / "data" / "bad").mkdir()
    (tmp_path / "data" / "bad" / "0.jpg").write_bytes(b"no image")
    source = clips / "JPEGImages" / "clip-000" / "00000.jpg"
    (tmp_path / "data" / "good" / "0.jpg").write_bytes(source.read_bytes())
    config = load_config(VideoConfig, None, [])
    with pytest.raises(InputError, match="is damaged or no image"):
        pretrain(
            config, tmp_path / "data", tmp_path / "run", split=None, names=None, seed=0, resume=False, hardware=CPU
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [2, 12, 3000])
def test_the_frames_that_are_asked_are_not_trained_on(count: int) -> None:
    config = load_config(VideoConfig, None, []).pretrain
    frames = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * count
    data = FrameData(frames, np.arange(count) * 2 // count, config, seed=0)
    asked = set(data.gallery[data.asked].tolist())
    assert asked
    assert not asked & set(data.train_places.tolist())
    assert len(data.gallery) == len(set(data.gallery)) <= 400
    assert 0 < data.chance < 1


def test_the_chance_of_retrieval_is_counted() -> None:
    config = load_config(VideoConfig, None, []).pretrain
    data = FrameData([torch.zeros(3, 8, 8, dtype=torch.uint8)] * 4, np.array([0, 0, 1, 1]), config, seed=0)
    assert data.chance == pytest.approx(0.5)


def test_data_that_cannot_be_trained_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is required"):
        read_videos(None, None, None)
    with pytest.raises(InputError, match="is no folder"):
        read_videos(tmp_path / "missing", None, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no sequences"):
        read_videos(tmp_path / "empty", None, None)
