"""Small clips of our own making, one tiny model of each kind, and the command line as tests use it."""

from pathlib import Path

import pytest

from tests.command_line import sets

TINY = ["features.size=96", "train.steps=4", "train.epochs=2", "train.batch=1", "train.gap=1", "cluster.keys=3"]
TINY += ["model.width=16", "model.semantics=4", "model.instances=2", "model.reach=2"]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Settings that take seconds, as arguments."""
    return sets(*TINY)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of two moving objects, 8 frames of 96 x 170, in DAVIS's layout."""
    from apps.video.synthetic import synthesise

    out = tmp_path_factory.mktemp("clips") / "moving"
    synthesise(out, clips=3, frames=8, objects=2, size=96, seed=1)
    return out


@pytest.fixture(scope="session")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run folder of each method, trained for some steps."""
    from apps.video.config import VideoConfig
    from apps.video.train import train
    from shared.config import load_config
    from shared.training.trainer import Hardware

    runs = {}
    for method in ("attention", "slots"):
        runs[method] = tmp_path_factory.mktemp("runs") / method
        config = load_config(VideoConfig, None, [*TINY, f"model.method={method}"])
        train(
            config,
            clips,
            runs[method],
            weights=None,
            split=None,
            names=None,
            seed=0,
            resume=False,
            hardware=Hardware(device="cpu"),
        )
    return runs
