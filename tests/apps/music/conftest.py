"""Small music that tests train on: chorales of our own making, as JSON in the layout of the JSB data set."""

import json
from pathlib import Path

import numpy as np
import pytest

SCALE = np.array([0, 2, 4, 5, 7, 9, 11])


def chorale(seed: int, beats: int = 16) -> np.ndarray:
    """Triads that move by step in quarters, in one of three keys: (4 beats, 4) pitches. Easy enough to be learned in a minute."""
    rng = np.random.default_rng(seed)
    degree, key, rows = int(rng.integers(7)), int(rng.integers(3)), []
    for _ in range(beats):
        degree = (degree + int(rng.choice([-1, 1]))) % 7
        pitches = [60 + key + SCALE[(degree + step) % 7] for step in (4, 2, 0)]
        rows += [[pitches[0] + 5, pitches[1] - 3, pitches[2] - 10, pitches[2] - 20]] * 4
    return np.clip(np.array(rows), [60, 52, 46, 36], [81, 76, 72, 69])


@pytest.fixture(scope="session")
def chorales_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chorales") / "tiny.json"
    splits = {"train": range(40), "valid": range(100, 110), "test": range(200, 210)}
    path.write_text(json.dumps({name: [chorale(seed).tolist() for seed in seeds] for name, seeds in splits.items()}))
    return path


TINY = [
    "data.length=64",
    "model.dim=32",
    "model.attention_dim=32",
    "model.heads=2",
    "model.layers=2",
    "model.feed_forward=64",
    "model.max_distance=32",
    "train.steps=30",
    "train.batch=8",
    "train.warmup=5",
    "train.ema=0.9",
]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Settings of a model that trains in seconds."""
    return TINY


@pytest.fixture(scope="session")
def tiny_run(chorales_json: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a chorale model trained for some seconds."""
    from apps.music.config import MusicConfig
    from apps.music.train import train
    from shared.config import load_config
    from shared.training.trainer import Hardware

    out = tmp_path_factory.mktemp("runs") / "tiny"
    config = load_config(MusicConfig, None, [*TINY, "train.epochs=3", 'model.relations=["time", "pitch"]'])
    train(config, chorales_json, out, seed=0, resume=False, hardware=Hardware(device="cpu"))
    return out
