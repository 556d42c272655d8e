"""A small shop that tests train on, of our own making, and the command line as tests use it."""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

ITEMS = [f"sku-{chr(97 + i // 10)}{i % 10}" for i in range(40)]


def walks(users: int = 120, seed: int = 0) -> list[list[int]]:
    """Users who mostly go to the next item but one on a ring of 40: easy to learn, hard for popularity."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        at, row = int(rng.integers(40)), []
        for _ in range(int(rng.integers(5, 14))):
            row.append(at)
            at = (at + 2) % 40 if rng.random() < 0.85 else int(rng.integers(40))
        rows.append(row)
    return rows


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV with string ids, titles, ratings and times, in no order."""
    lines = []
    for user, row in enumerate(walks()):
        for step, item in enumerate(row):
            lines.append(f'"user {user}",{ITEMS[item]},{1_600_000_000 + 86_400 * step + user},"Thing, no. {item}",4')
    order = np.random.default_rng(1).permutation(len(lines))
    path = tmp_path_factory.mktemp("shop") / "events.csv"
    path.write_text("\n".join(["customer,product,time,title,stars", *(lines[i] for i in order)]) + "\n")
    return path


TINY = ["model.dim=16", "model.length=12", "model.dropout=0.1", "train.batch=16", "train.learning_rate=0.01"]


@pytest.fixture(scope="session")
def rows() -> list[list[int]]:
    """What the users of the shop did, in order, by the index of the item."""
    return walks()


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of `train` for a model that trains in seconds."""
    return sets(*TINY)


def sets(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


class Done(NamedTuple):
    """How a command ended."""

    code: int | str | None
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Manyheads = Callable[..., Done]


@pytest.fixture(scope="session")
def manyheads() -> Manyheads:
    """Runs a command line through the real entry, in this process: manyheads("recommendation", "info", "--json")."""
    import cli
    from shared import command

    def run(*arguments: object) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as caught,
        ):
            command.run(cli.root, [str(argument) for argument in arguments])
        return Done(caught.value.code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def training(manyheads: Manyheads, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """`train` on the shop; its result names the run folder's model."""
    out = tmp_path_factory.mktemp("runs") / "shop"
    settings = sets(*TINY, "train.epochs=12")
    return manyheads("recommendation", "train", "--data", shop, "--out", out, *settings, "--device", "cpu", "--json")


@pytest.fixture(scope="session")
def run(training: Done) -> Path:
    """The run folder of a model that has learned the shop."""
    return Path(training.json()["model"]).parent


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
    """Runs a command in `tmp_path` that must be refused; returns the line that says why."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, code: int = 2) -> str:
        before = state_of(tmp_path)
        done = manyheads("recommendation", *arguments)
        assert done.code == code, done
        assert done.out == ""
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert "Traceback" not in done.err
        assert "internal error" not in done.err
        assert state_of(tmp_path) == before
        return done.err

    return call
