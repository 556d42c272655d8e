"""Two processes train the same model as one, and a run that is killed goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

import cli

ROOT = Path(cli.__file__).parent


def command(clips: Path, out: Path, tiny: list[str], *more: object) -> list[str]:
    arguments = ["video", "train", "--data", clips, "--out", out, "--device", "cpu", "--json", *tiny, *more]
    return [sys.executable, str(ROOT / "cli.py"), *(str(argument) for argument in arguments)]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attention", "slots"])
def test_two_processes_have_the_losses_and_weights_of_one(
    tiny: list[str], clips: Path, tmp_path: Path, method: str
) -> None:
    """The same global batch and the same draws; what is left is the order in which floats are added up."""
    losses, weights = {}, {}
    for count in (1, 2):
        out = tmp_path / f"run{count}"
        more = ["--set", f"model.method={method}", "--set", "train.batch=2", "--devices", count]
        more += ["--strategy", "ddp"] if count > 1 else []
        done = subprocess.run(
            command(clips, out, tiny, *more), cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert json.loads(done.stdout)["finished"]
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses[count] = [value for row in rows for name, value in sorted(row.items()) if "/" in name]
        weights[count] = load_file(out / "model.safetensors")
    assert len(losses[1]) >= 6
    assert losses[2] == pytest.approx(losses[1], rel=1e-3, abs=1e-5)
    for name, one in weights[1].items():
        assert (weights[2][name] - one).abs().max() < 1e-3, name


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_model(tiny: list[str], clips: Path, tmp_path: Path) -> None:
    """SIGKILL after the first epoch; nothing that looks whole is half written."""
    more = ["--set", "train.epochs=3", "--set", "train.steps=20"]
    started = subprocess.Popen(command(clips, tmp_path / "killed", tiny, *more), cwd=tmp_path, env=ENVIRONMENT)
    end = time.monotonic() + 120
    while not (tmp_path / "killed" / "last.ckpt").exists() and time.monotonic() < end:
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    for out, resume in (("killed", ["--resume"]), ("whole", [])):
        done = subprocess.run(
            command(clips, tmp_path / out, tiny, *more, *resume), cwd=tmp_path, capture_output=True, env=ENVIRONMENT
        )
        assert done.returncode == 0, done.stderr
    killed, whole = (tmp_path / out / "model.safetensors" for out in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()
