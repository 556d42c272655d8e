"""A small shop that tests train on, of our own making, and the command line as tests use it."""

from pathlib import Path

import numpy as np
import pytest

from tests.command_line import Done, Manyheads, sets

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
