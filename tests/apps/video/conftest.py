"""Small clips of our own making, one tiny model of each kind, and the command line as tests use it."""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

TINY = ["features.size=96", "train.steps=4", "train.epochs=2", "train.batch=1", "train.gap=1", "cluster.keys=3"]
TINY += ["model.width=16", "model.semantics=4", "model.instances=2", "model.reach=2"]


class Done(NamedTuple):
    """How a command ended."""

    code: int | str | None
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Manyheads = Callable[..., Done]


def sets(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Settings that take seconds, as arguments."""
    return sets(*TINY)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither find nor leave anything in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYHEADS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


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


@pytest.fixture(scope="session")
def manyheads() -> Manyheads:
    """Runs a command line through the real entry, in this process: manyheads("info", "--json")."""
    from apps.video.cli import app
    from shared import command

    def run(*arguments: object) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as caught,
        ):
            command.run(app, [str(argument) for argument in arguments])
        return Done(caught.value.code, out.getvalue(), err.getvalue())

    return run


def state_of(folder: Path) -> dict[str, str]:
    """Every file and folder below `folder`, with a hash of what it holds."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(manyheads: Manyheads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in `tmp_path` that must be refused, with nothing written; returns the line that says why."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        before = state_of(tmp_path)
        done = manyheads(*arguments)
        assert done.code == 2, done
        assert done.out == ""
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert "internal error" not in done.err
        assert state_of(tmp_path) == before
        return done.err

    return run
