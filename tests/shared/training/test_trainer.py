import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.errors import InputError, ManyheadsError
from shared.training.seeds import seed_everything
from shared.training.trainer import FitResult, Hardware, fit

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE))  # the scripts beside this file import it by the same name

from tiny import TinyData, TinyTask  # noqa: E402


def train(
    run: Path, make: Callable[[], TinyTask] = TinyTask, data: TinyData | None = None, **changes: Any
) -> FitResult:
    seed_everything(0)  # before the model is made
    options: dict[str, Any] = {
        "seed": 0,
        "max_epochs": 4,
        "monitor": "valid/loss",
        "patience": 3,
        "gradient_clip": 1.0,
        "ema_decay": 0.9,
        "hardware": Hardware("cpu"),
    }
    return fit(make(), data or TinyData(), run, **(options | changes))


def rows(run: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read]


def same_tree(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_tree(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same_tree(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def same_run(a: Path, b: Path) -> None:
    assert rows(a) == rows(b)
    assert (a / "best.safetensors").read_bytes() == (b / "best.safetensors").read_bytes()
    first, second = (torch.load(run / "last.ckpt", weights_only=True) for run in (a, b))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        assert same_tree(first[key], second[key]), key
    assert same_tree(first["callbacks"]["WeightAverage"], second["callbacks"]["WeightAverage"])


def test_fit_keeps_its_folder_and_returns_the_best(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    result = train(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["best.safetensors", "last.ckpt", "metrics.jsonl"]
    kept = rows(tmp_path)
    assert [row["epoch"] for row in kept] == [1, 2, 3, 4]
    assert [row["step"] for row in kept] == [8, 16, 24, 32]
    assert result.best == min(row["valid/loss"] for row in kept)
    assert result.best == kept[result.best_epoch - 1]["valid/loss"]
    assert (result.epochs, result.finished) == (4, True)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert not [warning for warning in recwarn if "lightning" in warning.filename]
    # The weights that are returned are those that were validated: the averaged ones of the best epoch.
    task, data = TinyTask(), TinyData()
    task.model.load_state_dict(result.best_state)
    task.eval()
    losses = [(task.model(x) - y).square().mean().item() for x, y in data.val_dataloader()]
    assert sum(losses) / len(losses) == pytest.approx(result.best, rel=1e-6)


def test_a_terminal_sees_the_epoch_the_metric_and_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()

    def terminal() -> Progress:
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=Console(file=screen, force_terminal=True, width=120))

    monkeypatch.setattr("shared.training.trainer.progress", terminal)
    result = train(tmp_path, max_epochs=2)
    assert "epoch 2 of at most 2, valid/loss" in screen.getvalue()
    assert "16/16" in screen.getvalue()
    assert result.epochs == 2


def test_a_time_limit_ends_cleanly_and_a_resume_goes_on_as_if_unbroken(tmp_path: Path) -> None:
    train(tmp_path / "unbroken")
    run = tmp_path / "limited"
    for epochs in (1, 1):  # the second has had its minutes already
        result = train(run, max_minutes=1e-9, resume=run.exists())
        assert (result.epochs, result.finished) == (epochs, False)
    result = train(run, resume=True, max_minutes=60)
    assert (result.epochs, result.finished) == (4, True)
    same_run(tmp_path / "unbroken", run)


def test_resuming_a_finished_run_returns_its_result_and_mends_its_files(tmp_path: Path) -> None:
    result = train(tmp_path)
    best = (tmp_path / "best.safetensors").read_bytes()
    assert result.best_epoch == result.epochs  # so that the last checkpoint can make it again
    (tmp_path / "best.safetensors").unlink()
    (tmp_path / "metrics.jsonl").unlink()
    again = train(tmp_path, resume=True)
    assert same_tree(again.best_state, result.best_state)
    assert (again.best, again.best_epoch, again.epochs) == (result.best, result.best_epoch, result.epochs)
    assert (tmp_path / "best.safetensors").read_bytes() == best
    assert len(rows(tmp_path)) == 4


def test_early_stopping_and_its_patience_survive_a_resume(tmp_path: Path) -> None:
    def make() -> TinyTask:
        return TinyTask(rate=0.0)  # nothing is learned: the first epoch stays the best

    whole = train(tmp_path / "a", make, max_epochs=50)
    assert (whole.best_epoch, whole.epochs, whole.finished) == (1, 4, True)
    train(tmp_path / "b", make, max_epochs=50, max_minutes=1e-9)
    resumed = train(tmp_path / "b", make, max_epochs=50, resume=True)
    assert (resumed.best_epoch, resumed.epochs) == (1, 4)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_mode_max_and_no_average(tmp_path: Path) -> None:
    result = train(tmp_path, mode="max", ema_decay=None)
    assert result.best == max(row["valid/loss"] for row in rows(tmp_path))


def test_a_run_is_not_overwritten_nor_resumed_as_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, max_epochs=1, resume=True)
    assert "starts anew" in capsys.readouterr().err
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="--resume"):
        train(tmp_path)
    with pytest.raises(InputError, match="max_epochs is 1 there, not 4"):
        train(tmp_path, resume=True)

    def other() -> TinyTask:
        task = TinyTask()
        task.model = torch.nn.Linear(4, 2)  # pyright: ignore
        return task

    with pytest.raises(InputError, match="belongs to another model"):
        train(tmp_path, other, max_epochs=1, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    (tmp_path / "last.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes()[:-200])
    with pytest.raises(InputError, match="damaged"):
        train(tmp_path, max_epochs=1, resume=True)


def test_a_run_without_a_finite_value_fails(tmp_path: Path) -> None:
    data = TinyData()
    data.y += math.nan
    with pytest.raises(ManyheadsError, match="learning rate"):
        train(tmp_path, data=data, max_epochs=1)


def test_a_metric_that_is_not_logged_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"valid/nll .* logged: train/loss, valid/loss"):
        train(tmp_path, monitor="valid/nll")


def test_a_plateau_schedule_is_refused(tmp_path: Path) -> None:
    class Plateau(TinyTask):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "valid/loss"}}

    with pytest.raises(ValueError, match="ReduceLROnPlateau"):
        train(tmp_path, Plateau)


def test_accumulated_batches_equal_a_larger_batch(tmp_path: Path) -> None:
    def make() -> TinyTask:
        return TinyTask(dropout=0.0)

    large = train(tmp_path / "large", make, TinyData(batch=16))
    small = train(tmp_path / "small", make, TinyData(batch=8), accumulate=2)
    assert rows(tmp_path / "small")[-1]["step"] == rows(tmp_path / "large")[-1]["step"] == 16
    assert small.best == pytest.approx(large.best, rel=1e-5)


def test_ctrl_c_is_an_interruption_and_leaves_ctrl_c_working(tmp_path: Path) -> None:
    class Interrupted(TinyTask):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            raise KeyboardInterrupt

    import signal

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Interrupted)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"device": "tpu"}, "--device tpu"),
        ({"devices": "many"}, "--devices many"),
        ({"devices": 0}, "--devices 0"),
        ({"strategy": "telepathy"}, "telepathy"),
        ({"precision": "3-bit"}, "3-bit"),
    ],
)
def test_hardware_that_is_not_there(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        train(tmp_path, hardware=Hardware(**options))


def run_script(name: str, *args: object) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / name), str(ROOT), *map(str, args)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_and_resumed_is_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    told = run_script("killed.py", tmp_path).split()
    moments = told[::2]
    assert len(moments) == 12
    assert int(told[-1]) > 1
    for moment in moments:
        same_run(tmp_path / "unbroken", tmp_path / moment)
        assert sorted(os.listdir(tmp_path / moment)) == ["best.safetensors", "last.ckpt", "metrics.jsonl"]


def test_two_processes_have_the_loss_curve_of_one(tmp_path: Path) -> None:
    out = run_script("together.py", tmp_path / "two", 2)
    assert out.split() == ["finished", "3"]  # said once: the other process has left
    import together

    together.train(tmp_path / "one", 1)
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            # Gradients are averaged over processes instead of summed over one batch: float32 rounding, no more.
            assert b[key] == pytest.approx(a[key], rel=2e-6), key
    weights = [safetensors.torch.load_file(tmp_path / run / "best.safetensors") for run in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-5, atol=1e-6)
