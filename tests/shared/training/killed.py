"""Run by test_trainer in a process of its own: a run that is killed at many moments, resumed each time by fit().

Usage: killed.py REPOSITORY FOLDER. Prints one line for each moment: its name and how many kills it took.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

repository, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path[:0] = [str(repository), str(Path(__file__).parent)]

from tiny import TinyData, TinyTask  # noqa: E402

from shared.io import files  # noqa: E402
from shared.training.seeds import seed_everything  # noqa: E402
from shared.training.trainer import Hardware, fit  # noqa: E402

REPLACE = os.replace


def train(run: Path) -> None:
    seed_everything(3)
    fit(
        TinyTask(),
        TinyData(workers=1 if run.name == "workers" else 0),
        run,
        seed=3,
        max_epochs=3,
        monitor="valid/loss",
        patience=3,
        gradient_clip=1.0,
        ema_decay=0.9,
        hardware=Hardware(device="cpu"),
        resume=run.exists(),
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(wanted: int) -> Callable[[], None]:
    def arm() -> None:
        step = TinyTask.training_step

        def training_step(self: TinyTask, batch: list, batch_idx: int) -> object:
            if self.global_step == wanted:
                die()
            return step(self, batch, batch_idx)

        TinyTask.training_step = training_step  # pyright: ignore

    return arm


def in_validation(epoch: int) -> Callable[[], None]:
    def arm() -> None:
        step = TinyTask.validation_step

        def validation_step(self: TinyTask, batch: list, batch_idx: int) -> None:
            if self.current_epoch == epoch and batch_idx == 1:
                die()
            step(self, batch, batch_idx)

        TinyTask.validation_step = validation_step  # pyright: ignore

    return arm


def at_write(wanted: int) -> Callable[[], None]:
    """Before the n-th finished file takes its place: its content is all there, under the partial name."""

    def arm() -> None:
        count = 0

        def replace(source: Path, target: Path) -> None:
            nonlocal count
            count += 1
            if count == wanted:
                die()
            REPLACE(source, target)

        files.os.replace = replace  # pyright: ignore

    return arm


def forked(work: Callable[[], None], kill_after: float | None = None) -> int:
    """Runs `work` in a forked process; 0 when it ended, -9 when it was killed."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def armed(arm: Callable[[], None], run: Path) -> Callable[[], None]:
    def work() -> None:
        arm()
        train(run)

    return work


moments = {
    "before-first": at_step(3),
    "mid-epoch": at_step(13),
    "workers": at_step(13),
    "validation": in_validation(2),
    **{f"write-{n}": at_write(n) for n in range(1, 8)},
}
assert forked(lambda: train(folder / "unbroken")) == 0
for name, arm in moments.items():
    run = folder / name
    assert forked(armed(arm, run)) == -9, name
    assert forked(lambda run=run: train(run)) == 0, name
    print(name, 1)
# At no chosen moment, again and again: the delay grows, so that each try gets further than the one before.
run, kills, delay = folder / "any-time", 0, 0.05
while (code := forked(lambda: train(run), kill_after=delay)) == -9:
    kills, delay = kills + 1, delay * 1.6
assert code == 0, code
print("any-time", kills)
