"""Places that cannot be written to, disks that are full, folders in which two runs meet: nothing is lost."""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.conftest import words_to_train
from tests.command_line import Done, line_of_refusal, manyheads, state_of

# What writes where: "{out}" is the place. Each is given sound input.
WRITERS = {
    "music generate": "music generate --checkpoint {model} --length 2bars --out {out}",
    "music render": "music render {midi} --out {out}/piece.wav",
    "music export": "music export --checkpoint {model} --out {out}",
    "medical segment": "medical segment {scan} --checkpoint {model} --out {out}",
    "medical inspect": "medical inspect --data {medical-data} --out {out}",
    "medical export": "medical export --checkpoint {model} --out {out}",
    "wsi tile": "wsi tile {slide} --out {out}",
    "wsi predict": "wsi predict {bag} --checkpoint {model} --out {out}",
    "wsi export": "wsi export --checkpoint {model} --out {out}",
    "video propagate": "video propagate {video-data}/JPEGImages/clip-000 --mask {mask} --out {out}",
    "video synthesise": "video synthesise --clips 1 --frames 3 --size 96 --out {out}",
    "action detect": "action detect {npy} --checkpoint {model} --out {out}",
    "action extract": "action extract {video} --out {out}",
    "recommendation recommend": "recommendation recommend --checkpoint {model} --data {events} --all --out {out}",
    "recommendation export": "recommendation export --checkpoint {model} --out {out}",
}
APPS = ("music", "medical", "wsi", "video", "action", "recommendation")


@pytest.fixture
def write(world: dict[str, Path], models: dict[str, Path]) -> Callable[..., Done]:
    """Runs a writer of the table, or an app's `train`, with `out` as its place."""

    def run(name: str, out: Path, *more: str) -> Done:
        app, verb = name.split()
        if verb == "train":
            return manyheads(*words_to_train(app, world, out), *more, "--json")
        words = [word.format_map({**world, "model": models[app], "out": out}) for word in WRITERS[name].split()]
        return manyheads(*words, *more, "--json")

    return run


ALL = [*WRITERS, *(f"{app} train" for app in APPS)]


@pytest.mark.parametrize("name", ALL)
def test_a_place_under_a_file(name: str, write: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = write(name, tmp_path / "file" / "results")
    line_of_refusal(done)
    assert "file" in done.err
    assert list(state_of(tmp_path)) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place that not even root may write to")
@pytest.mark.parametrize("name", ALL)
def test_a_place_that_may_not_be_written(name: str, write: Callable) -> None:
    done = write(name, Path("/proc/manyheads"))
    line_of_refusal(done, 1, 2)
    assert "/proc/manyheads" in done.err


def on_a_full_disk(size: int, work: Callable[[], Any]) -> tuple[int, str, str]:
    """What `work` returns in a forked process in which no file may grow beyond `size` bytes, as under a quota.

    Forked, because the limit would hold for pytest too, and because a library may end the process.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Python itself would leave cut-off .pyc files in the environment, which every later import fails on.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            os.write(writing, json.dumps(work()[:3]).encode())
            os._exit(0)
        except BaseException as error:
            os.write(writing, json.dumps([-1, "", repr(error)]).encode())
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return tuple(json.loads(told)) if told else (code, "", f"ended with {code}")


@pytest.mark.parametrize("size", [0, 700, 20_000])
@pytest.mark.parametrize("name", ALL)
def test_a_full_disk(name: str, size: int, write: Callable, tmp_path: Path) -> None:
    """What is cut off by the disk never takes the place of a whole file, and the line names the file."""
    out = tmp_path / "out"
    done = Done(*on_a_full_disk(size, lambda: write(name, out)))
    left = [path for path in out.rglob("*") if path.is_file()]
    if done.code != 0 or size == 0:  # small results may fit
        line_of_refusal(done, 1)
        assert "too large" in done.err.lower(), done.err
    assert all(path.stat().st_size < max(size, 1) for path in left), left
    assert not [path for path in left if path.name.startswith(".")], left


@pytest.mark.parametrize("app", APPS)
def test_two_runs_in_one_folder(app: str, write: Callable, models: dict[str, Path], tmp_path: Path) -> None:
    """The second is refused before it does anything; the first is as it was."""
    run = tmp_path / "run"
    shutil.copytree(models[app], run)
    before = state_of(run)
    done = write(f"{app} train", run)
    line_of_refusal(done)
    assert "--resume" in done.err
    assert state_of(run) == before


@pytest.mark.parametrize("app", APPS)
def test_a_finished_run_resumed_is_what_it_was(
    app: str, write: Callable, models: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(models[app], run)
    before = state_of(run)
    done = write(f"{app} train", run, "--resume")
    assert done.code == 0, done.err
    assert state_of(run)["model.safetensors"] == before["model.safetensors"]
