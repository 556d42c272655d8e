"""Two processes train the same model as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import cli

ROOT = Path(cli.__file__).parent


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(clips: Path, tiny: list[str], tmp_path: Path) -> None:
    """Their losses share counts (see `losses`), so what is left is the order of float32 sums: 1e-4 of the losses and
    2e-3 of the weights, which Adam's division by small gradients widens. Without dropout, whose masks belong to a
    process.
    """
    settings = [*tiny, "train.epochs=2", "train.select=last"]
    curves, weights = {}, {}
    for count in (1, 2):
        out = tmp_path / f"run{count}"
        command = [
            *(sys.executable, ROOT / "cli.py", "action", "train", "--data", clips, "--out", out, "--json"),
            *("--device", "cpu", "--devices", str(count), *(["--strategy", "ddp"] if count > 1 else [])),
            *(part for setting in settings for part in ("--set", setting)),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert json.loads(done.stdout)["epochs"] == 2
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        curves[count] = [row["train/loss"] for row in rows]
        weights[count] = safetensors.torch.load_file(out / "model.safetensors")
    assert len(curves[1]) == 2
    assert curves[2] == pytest.approx(curves[1], rel=1e-4)
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[2][name], value, atol=2e-3, rtol=2e-3)
