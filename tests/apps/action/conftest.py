"""Small recordings that tests train on, all of our own making, and the command line as tests use it."""

import json
from pathlib import Path

import numpy as np
import pytest

LABELS = ("jump", "turn", "wave")
CHANNELS = 6


def recording(seed: int, snippets: int = 60) -> tuple[np.ndarray, list[dict]]:
    """Features (T, 6) in which each class raises two channels, and its annotations, a snippet of half a second."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(snippets, CHANNELS)) * 0.4
    annotations, at = [], int(rng.integers(2, 6))
    while at < snippets - 12:
        length, label = int(rng.integers(5, 11)), int(rng.integers(len(LABELS)))
        features[at : at + length, 2 * label : 2 * label + 2] += 2
        annotations.append({"segment": [at / 2, (at + length) / 2], "label": LABELS[label]})
        at += length + int(rng.integers(3, 9))
    return features.astype(np.float32), annotations


def write_folder(folder: Path, seeds: range, snippets: int = 60) -> Path:
    """A folder of data as users have it: annotations.json and features/NAME.npy."""
    (folder / "features").mkdir(parents=True)
    database = {}
    for seed in seeds:
        features, annotations = recording(seed, snippets)
        np.save(folder / "features" / f"clip-{seed:02d}.npy", features)
        database[f"clip-{seed:02d}"] = {"duration": snippets / 2, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "clips", range(20))


TINY = [
    "data.window=32",
    "model.dim=16",
    "model.layers=2",
    "model.longest=14",
    "model.bins=8",
    "model.matching=8",
    "model.proposal=8",
    "model.semantics=8",
    "model.dropout=0",
    "train.learning_rate=0.01",
    "train.ema=0.9",
]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Settings of a model that trains in seconds."""
    return TINY


@pytest.fixture(scope="session")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a detector trained for some seconds."""
    from apps.action.config import ActionConfig
    from apps.action.train import train
    from shared.config import load_config
    from shared.training.trainer import Hardware

    out = tmp_path_factory.mktemp("runs") / "tiny"
    config = load_config(ActionConfig, None, [*TINY, "train.epochs=8"])
    train(config, clips, out, seed=0, resume=False, hardware=Hardware(device="cpu"))
    return out
