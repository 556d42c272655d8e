"""On the real hippocampus scans, where they are at hand."""

import tarfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def some_hippocampi(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with every sixth case."""
    folder = tmp_path_factory.mktemp("hippocampus")
    with tarfile.open(shared_data / "medical" / "hippocampus.tar") as archive:
        names = sorted(one.name for one in archive.getmembers() if one.name.endswith(".nii.gz"))
        cases = sorted({Path(name).name for name in names})[::6]
        for name in names:
            if Path(name).name in cases:
                archive.extract(name, folder, filter="data")
    return folder


@pytest.mark.slow
def test_medusa_tells_parts_of_the_hippocampus_in_cases_it_has_not_seen(
    manyheads, some_hippocampi: Path, tmp_path: Path
) -> None:
    """Which part a coronal slice shows, or none: three classes, so chance is a third."""
    short = ("--set", "train.epochs=2", "--device", "cpu", "--json")
    result = manyheads(
        "medical", "train", "--config", "medusa", "--data", some_hippocampi, "--out", tmp_path / "run", *short
    ).json()
    assert result["test_slices"] > 200
    assert result["test_balanced_accuracy"] > 0.5
    image = next((some_hippocampi).rglob("images/*.nii.gz"))
    said = manyheads(
        "medical", "classify", image, "--checkpoint", tmp_path / "run", "--out", tmp_path / "out", "--json"
    ).json()
    assert said["scans"][0]["class"] in ("anterior", "posterior")


@pytest.mark.slow
def test_the_shipped_model_segments_real_scans(manyheads, some_hippocampi: Path, tmp_path: Path) -> None:
    result = manyheads(
        "medical", "evaluate", "--data", some_hippocampi, "--out", tmp_path, "--device", "cpu", "--json"
    ).json()
    assert "note" not in result
    assert result["mean_dice"] > 0.75
