"""Small scans of our own making, and the command line as tests use it."""

from pathlib import Path

import numpy as np
import pytest

from tests.command_line import sets


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
TINY += ["train.steps=80", "train.epochs=2", "train.learning_rate=0.01", "train.warmup=5", "train.ema=0.8"]
TINY += ["train.dice_weight=1.0", "data.rotate=5", "data.plane=axial", 'data.flip=["columns"]']


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of a model that trains in seconds."""
    return sets(*TINY)


@pytest.fixture(scope="session")
def tiny_run(manyheads, balls: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a segmenter that was trained for some seconds."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    manyheads("medical", "train", "--data", balls, "--out", out, "--device", "cpu", "--json", *tiny).json()
    return out


@pytest.fixture(scope="session")
def medusa_run(manyheads, balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a MEDUSA that was trained for some seconds."""
    options = sets("model.kind=medusa", "model.base=4", "model.body=16", "model.stride=2", "data.patch=[16,16]")
    options += sets("data.plane=sagittal", "train.steps=25", "train.epochs=2", "train.learning_rate=0.02")
    options += sets("train.warmup=3", "train.ema=0.8")
    out = tmp_path_factory.mktemp("runs") / "medusa"
    manyheads("medical", "train", "--data", balls, "--out", out, "--device", "cpu", "--json", *options).json()
    return out
