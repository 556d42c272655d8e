"""The command line as tests use it: through its real entry, in this process or in others."""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import cli
from shared import command

ROOT = Path(cli.__file__).parent
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, of a command that worked."""
        assert self.code == 0, self.err
        return json.loads(self.out)


# What tests are given by the fixtures of these names.
Manyheads = Callable[..., Done]
Refused = Callable[..., str]


def manyheads(*words: object) -> Done:
    """Runs a command in this process: manyheads("music", "info", "--json")."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        command.run(cli.root, [str(word) for word in words])
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def sets(*settings: str) -> list[str]:
    """Settings as arguments: --set FIELD=VALUE of each."""
    return [part for setting in settings for part in ("--set", setting)]


def line_of_refusal(done: Done, *codes: int) -> str:
    """The one line with which a command refused (with exit code 2, where no other is named)."""
    assert done.code in (codes or (2,)), done
    assert done.out == ""
    assert done.err.startswith("error: "), done.err
    assert done.err.endswith("\n")
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    return done.err


def state_of(folder: Path) -> dict[str, str]:
    """Every file and folder below `folder`, with a hash of what a file holds."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def in_another_process(*words: object) -> list[str]:
    """The command for `subprocess` that is `manyheads WORDS`."""
    return [sys.executable, str(ROOT / "cli.py"), *(str(word) for word in words)]


def train_in_processes(count: int, out: Path, app: str, *words: object) -> list[dict[str, float]]:
    """Trains by so many processes of one thread, each a device of its own; the rows of the run's metrics, an epoch
    each."""
    strategy = ["--strategy", "ddp"] if count > 1 else []
    hardware = ["--device", "cpu", "--devices", count, *strategy]
    done = subprocess.run(
        in_another_process(app, "train", "--out", out, *words, *hardware, "--json"),
        cwd=out.parent, capture_output=True, text=True, env=ONE_THREAD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert json.loads(done.stdout)  # one document, though several processes ended
    return rows
