"""What the tests of the app share: a table of small bags, features in files, a trained model, a small slide."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from apps.wsi.practice import write_slide
from tests.command_line import Manyheads

SVS = Path(__file__).resolve().parents[3] / "data" / "CMU-1-Small-Region.svs"


@pytest.fixture(scope="session")
def wsi(manyheads: Manyheads) -> Callable[..., tuple[int, Any]]:
    """Runs `manyheads wsi ...`: the exit code, and the JSON document or the error line."""

    def call(*words: object) -> tuple[int, Any]:
        done = manyheads("wsi", *words)
        return done.code, done.json() if done.code == 0 and "--json" in words else done.err.strip()

    return call


def write_features(path: Path, features: np.ndarray, side: float = 128.0, mpp: float | None = 0.5) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features)
        columns = max(1, int(len(features) ** 0.5))
        places = np.arange(len(features))
        coords = np.stack([places % columns, places // columns], 1) * int(side)
        made = file.create_dataset("coords", data=coords)
        made.attrs["patch_size_level0"] = side
        if mpp:
            made.attrs["mpp"] = mpp


@pytest.fixture(scope="session")
def bags_folder(tmp_path_factory) -> Path:
    """40 slides of 3 to 30 tiles with 12 features; a positive one has some tiles that stand out. With labels.csv."""
    folder = tmp_path_factory.mktemp("bags")
    rng = np.random.default_rng(0)
    lines = ["slide,label,patient,split"]
    (folder / "features").mkdir()
    for index in range(40):
        size = int(rng.integers(3, 31))
        features = rng.normal(size=(size, 12)).astype(np.float32)
        positive = index % 2
        if positive:
            features[: max(1, size // 5), :3] += 3
        write_features(folder / "features" / f"slide-{index:02d}.h5", features)
        label = "tumour" if positive else "normal"
        lines.append(f"slide-{index:02d},{label},patient-{index // 2:02d},{'test' if index >= 30 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def trained(bags_folder, tmp_path_factory) -> Path:
    """A run folder of a small ACMIL, trained on the train split."""
    from apps.wsi.config import WsiConfig
    from apps.wsi.train import train
    from shared.config import load_config
    from shared.training.trainer import Hardware

    sets = [
        "model.width=16", "model.hidden=8", "model.branches=3", "model.fraction=0.3",
        "train.epochs=15", "train.batch=4", "train.learning_rate=0.01",
    ]  # fmt: skip
    out = tmp_path_factory.mktemp("run") / "acmil"
    train(
        load_config(WsiConfig, None, sets),
        bags_folder / "features",
        bags_folder / "labels.csv",
        out,
        seed=0,
        resume=False,
        hardware=Hardware("cpu"),
    )
    return out


@pytest.fixture(scope="session")
def small_slide(tmp_path_factory) -> Path:
    """A slide file of 700 x 600 pixels: a piece of the real one."""
    from apps.wsi.slide import open_slide

    slide = open_slide(SVS)
    path = tmp_path_factory.mktemp("slide") / "piece.tif"
    write_slide(path, np.asarray(slide.handle.read_region((900, 1900), 0, (700, 600)).convert("RGB")), slide.mpp)
    slide.close()
    return path
