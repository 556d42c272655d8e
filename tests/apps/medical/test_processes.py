"""Two processes train the same model as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cli
from apps.medical.config import DataConfig, MedicalConfig
from apps.medical.data import SegmentationData
from apps.medical.train import load

ROOT = Path(cli.__file__).parent


def curve(data: Path, out: Path, count: int, settings: list[str]) -> list[tuple[float, float]]:
    """Loss and validation Dice of each epoch of a run of so many processes."""
    command = [
        *(sys.executable, ROOT / "cli.py", "medical", "train", "--data", data, "--out", out, "--json"),
        *("--device", "cpu", "--devices", str(count), *(["--strategy", "ddp"] if count > 1 else [])),
        *(part for setting in settings for part in ("--set", setting)),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 2
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["train/loss"], row["valid/dice"]) for row in rows]


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
    settings = [f"model.kind={kind}", "model.base=8", "model.width=8", "model.stride=2", "data.patch=[16,16]"]
    settings += ["data.plane=axial", "train.epochs=2", "train.steps=10", "train.batch=16", "train.warmup=5"]
    runs = [curve(balls, tmp_path / f"run{count}", count, settings) for count in (1, 2)]
    for one, two in zip(*runs, strict=True):
        assert two[0] == pytest.approx(one[0], rel=tolerance)
        assert two[1] == pytest.approx(one[1], abs=tolerance)
