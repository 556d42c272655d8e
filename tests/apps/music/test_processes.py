"""Two processes train the same model as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cli

ROOT = Path(cli.__file__).parent


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(tiny: list[str], chorales_json: Path, tmp_path: Path) -> None:
    """Without dropout, whose masks belong to a process. What is left: a step's loss is the mean over each process's
    tokens, and shorter crops make these unequally many.
    """
    settings = [*tiny, "model.dropout=0", "train.epochs=2", "train.steps=10"]
    curves, cards = {}, {}
    for count in (1, 2):
        out = tmp_path / f"run{count}"
        command = [
            *(sys.executable, ROOT / "cli.py", "music", "train", "--data", chorales_json, "--out", out, "--json"),
            *("--device", "cpu", "--devices", str(count), *(["--strategy", "ddp"] if count > 1 else [])),
            *(part for setting in settings for part in ("--set", setting)),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert json.loads(done.stdout)["epochs"] == 2
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        curves[count] = [(row["train/nll"], row["valid/nll"]) for row in rows]
        cards[count] = json.loads((out / "model.json").read_text())["metrics"]["valid_nll"]
    assert len(curves[1]) == 2
    for one, two in zip(curves[1], curves[2], strict=True):
        assert two == pytest.approx(one, rel=1e-3)
    assert cards[1] == pytest.approx(cards[2], rel=1e-3)
