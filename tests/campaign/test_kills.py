"""kill -9 at any moment of training, extraction and prediction: what is started again ends as if nothing had been."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.conftest import words_to_train
from tests.command_line import Done, manyheads, state_of

APPS = ("music", "medical", "wsi", "video", "action", "recommendation")


def killed(work: Callable[[], Any], delay: float) -> bool:
    """Runs `work` in a forked process (what it imports is there already) and kills it; False when it ended before."""
    child = os.fork()
    if child == 0:
        done = work()
        os._exit(0 if done.code == 0 else 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)  # to a process that has ended, it does nothing
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), "the work failed before it was killed"
    return code != 0


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".partial-" in path.name]


def check_training(
    app: str, first: float, kills: int, train: Callable[[str, Path, bool], Any], whole: Path, run: Path
) -> int:
    """Kills a training `kills` times, each time later, and resumes it; how many kills met it at work."""
    met, delay = 0, first
    for _ in range(kills):
        met += killed(lambda: train(app, run, run.exists()), delay)
        for file in run.glob("*.json"):  # whatever has its name is whole
            json.loads(file.read_text())
        delay *= 1.7
    done = train(app, run, True)
    assert done.code == 0, done.err
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not half_written(run)
    return met


@pytest.fixture
def train(world: dict[str, Path]) -> Callable[[str, Path, bool], Done]:
    def run(app: str, out: Path, resume: bool) -> Done:
        return manyheads(*words_to_train(app, world, out), *(["--resume"] if resume else []), "--json")

    return run


@pytest.mark.parametrize("app", APPS)
def test_a_killed_training_ends_as_an_unbroken_one(
    app: str, train: Callable, models: dict[str, Path], tmp_path: Path
) -> None:
    check_training(app, 0.3, 2, train, models[app], tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("first", [0.02, 0.05, 0.11, 0.23, 0.4])
@pytest.mark.parametrize("app", APPS)
def test_a_training_killed_many_times(
    app: str, first: float, train: Callable, models: dict[str, Path], tmp_path: Path
) -> None:
    assert check_training(app, first, 7, train, models[app], tmp_path / "run") > 0


# Work on files that goes on where it was, or is done again; each writes the same whichever way it came there.
WORK = {
    "wsi extract": ("wsi extract {slides} --tile 1024 --out {out}", "--resume"),
    "wsi predict": ("wsi predict {wsi-data} --checkpoint {model} --out {out}", ""),
    "action extract": ("action extract {video} --snippet-seconds 3 --out {out}", ""),
    "action detect": ("action detect {npy} --checkpoint {model} --out {out}", ""),
    "medical segment": ("medical segment {scan} --checkpoint {model} --out {out}", ""),
    "music generate": ("music generate --checkpoint {model} --length 2bars --seed 3 --out {out}", ""),
    "recommendation recommend": ("recommendation recommend --checkpoint {model} --data {events} --all --out {out}", ""),
    "video propagate": ("video propagate {video-data}/JPEGImages/clip-000 --mask {mask} --out {out}", ""),
}


@pytest.mark.parametrize("name", WORK)
def test_killed_work_is_done_again(
    name: str,
    world: dict[str, Path],
    models: dict[str, Path],
    tmp_path: Path,
) -> None:
    line, resume = WORK[name]
    names = {**world, "model": models[name.split()[0]], "slides": tmp_path / "slides"}
    (tmp_path / "slides").mkdir()
    for number in range(2):
        (tmp_path / "slides" / f"slide-{number}.svs").symlink_to(world["slide"])

    def work(out: Path, *more: str) -> Done:
        return manyheads(*(word.format_map({**names, "out": out}) for word in line.split()), *more, "--json")

    began = time.monotonic()
    assert work(tmp_path / "whole").code == 0
    took = time.monotonic() - began
    out = tmp_path / "out"
    for share in (0.3, 0.7):
        more = [resume] if resume and out.exists() else []
        killed(lambda more=more: work(out, *more), share * took)
    done = work(out, *([resume] if resume else []))
    assert done.code == 0, done.err
    assert not half_written(out)
    # Pages and JSON name the folder and the time, and an encoder of video with threads has no fixed bytes; what else is
    # written is the same to the byte.
    loose = (".html", ".json", ".mp4")
    whole, again = ({name: "" if name.endswith(loose) else what for name, what in state_of(tmp_path / one).items()}
                    for one in ("whole", "out"))  # fmt: skip
    assert again == whole
