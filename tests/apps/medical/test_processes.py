"""Two processes train the same model as one."""

from pathlib import Path

import pytest

from apps.medical.config import DataConfig, MedicalConfig
from apps.medical.data import SegmentationData
from apps.medical.train import load
from tests.command_line import sets, train_in_processes


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_every_process_has_slices_to_validate_on(processes: int, balls: Path) -> None:
    config = MedicalConfig(data=DataConfig(patch=(16, 16)))
    dataset = load(config, balls)
    assert len(dataset.splits["valid"]) == 1
    data = SegmentationData(dataset, config.data, batch=20, steps=1, seed=0, processes=processes)
    batches = list(data.val_dataloader())
    assert len(batches) >= processes
    assert sum(len(batch["y"]) for batch in batches) == 12


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tolerance"), [("unet", 1e-3), ("guided", 0.1)])
def test_two_processes_have_the_loss_curve_of_one(kind: str, tolerance: float, balls: Path, tmp_path: Path) -> None:
    """The same but for rounding where a sample does not depend on its batch (MONAI's UNet: instance normalisation).
    The guided model's backbone normalises over the batch, of which each process has a half: within a tenth.
    """
    words = sets(f"model.kind={kind}", "model.base=8", "model.width=8", "model.stride=2", "data.patch=[16,16]")
    words += sets("data.plane=axial", "train.epochs=2", "train.steps=10", "train.batch=16", "train.warmup=5")
    one, two = (
        train_in_processes(count, tmp_path / f"run{count}", "medical", "--data", balls, *words) for count in (1, 2)
    )
    assert len(one) == len(two) == 2
    assert [row["train/loss"] for row in two] == pytest.approx([row["train/loss"] for row in one], rel=tolerance)
    assert [row["valid/dice"] for row in two] == pytest.approx([row["valid/dice"] for row in one], abs=tolerance)
