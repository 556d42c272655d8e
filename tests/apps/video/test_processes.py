"""Two processes train the same model as one, and a run that is killed goes on."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.command_line import ONE_THREAD, in_another_process, sets, train_in_processes


def command(clips: Path, out: Path, tiny: list[str], *more: object) -> list[str]:
    arguments = ["video", "train", "--data", clips, "--out", out, "--device", "cpu", "--json", *tiny, *more]
    return in_another_process(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attention", "slots"])
def test_two_processes_have_the_losses_and_weights_of_one(
    tiny: list[str], clips: Path, tmp_path: Path, method: str
) -> None:
    """The same global batch and the same draws; what is left is the order in which floats are added up."""
    words = ("--data", clips, *tiny, *sets(f"model.method={method}", "train.batch=2"))
    one, two = (
        [
            value
            for row in train_in_processes(count, tmp_path / f"run{count}", "video", *words)
            for name, value in sorted(row.items())
            if "/" in name
        ]
        for count in (1, 2)
    )
    assert len(one) >= 6
    assert two == pytest.approx(one, rel=1e-3, abs=1e-5)
    first, second = (load_file(tmp_path / f"run{count}" / "model.safetensors") for count in (1, 2))
    for name, value in first.items():
        assert (second[name] - value).abs().max() < 1e-3, name


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_model(tiny: list[str], clips: Path, tmp_path: Path) -> None:
    """SIGKILL after the first epoch; nothing that looks whole is half written."""
    more = ["--set", "train.epochs=3", "--set", "train.steps=20"]
    started = subprocess.Popen(command(clips, tmp_path / "killed", tiny, *more), cwd=tmp_path, env=ONE_THREAD)
    end = time.monotonic() + 120
    while not (tmp_path / "killed" / "last.ckpt").exists() and time.monotonic() < end:
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    for out, resume in (("killed", ["--resume"]), ("whole", [])):
        done = subprocess.run(
            command(clips, tmp_path / out, tiny, *more, *resume), cwd=tmp_path, capture_output=True, env=ONE_THREAD
        )
        assert done.returncode == 0, done.stderr
    killed, whole = (tmp_path / out / "model.safetensors" for out in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()
