"""Small scans of our own making, and the command line as tests use it."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest


def scan(seed: int, shape: tuple[int, int, int] = (20, 24, 12)) -> tuple[np.ndarray, np.ndarray]:
    """Noise with two bright balls, one brighter: easy enough to be learned in seconds."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.indices(shape), -1)
    labels = np.zeros(shape, np.uint8)
    for label, share in ((1, 0.3), (2, 0.7)):
        middle = np.array([shape[0] * share, shape[1] / 2, shape[2] / 2]) + rng.uniform(-1, 1, 3)
        labels[np.linalg.norm(places - middle, axis=-1) < 4] = label
    return (rng.normal(0, 10, shape) + 60 * labels).astype(np.float32), labels


def write(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def make_folder(folder: Path, count: int = 10) -> Path:
    for seed in range(count):
        image, labels = scan(seed)
        write(folder / "images" / f"case{seed:02}.nii.gz", image)
        write(folder / "labels" / f"case{seed:02}.nii.gz", labels)
    return folder


@pytest.fixture(scope="session")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of ten scans."""
    return make_folder(tmp_path_factory.mktemp("balls"))


@pytest.fixture
def own_balls(tmp_path: Path) -> Path:
    """A data folder of six scans that a test may spoil."""
    return make_folder(tmp_path / "data", 6)


TINY = ["data.patch=[16,16]", "data.place=true", "model.base=4", "model.width=8", "model.head=subpixel"]
TINY += ["train.steps=50", "train.epochs=2", "train.learning_rate=0.01", "train.warmup=5", "train.ema=0.8"]
TINY += ["train.dice_weight=1.0", "data.rotate=5", "data.plane=axial", 'data.flip=["columns"]']


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of a model that trains in seconds."""
    return [part for one in TINY for part in ("--set", one)]


class Done(NamedTuple):
    """How a command ended."""

    code: int | str | None
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYHEADS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def medical() -> Callable[..., Done]:
    """Runs a command of the app through the real entry, in this process."""
    import cli
    from shared import command

    def run(*arguments: object) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
            command.run(cli.root, ["medical", *(str(argument) for argument in arguments)])
        return Done(caught.value.code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def tiny_run(medical, balls: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a segmenter that was trained for some seconds."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    medical("train", "--data", balls, "--out", out, "--device", "cpu", "--json", *tiny).json()
    return out


@pytest.fixture(scope="session")
def medusa_run(medical, balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a MEDUSA that was trained for some seconds."""
    sets = ["model.kind=medusa", "model.base=4", "model.body=16", "model.stride=2", "data.patch=[16,16]"]
    sets += ["data.plane=sagittal", "train.steps=25", "train.epochs=2", "train.learning_rate=0.02", "train.warmup=3"]
    options = [part for one in [*sets, "train.ema=0.8"] for part in ("--set", one)]
    out = tmp_path_factory.mktemp("runs") / "medusa"
    medical("train", "--data", balls, "--out", out, "--device", "cpu", "--json", *options).json()
    return out
