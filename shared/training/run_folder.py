"""The folder of one training run: started once, gone on with only by the configuration that it was started with."""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pydantic

from shared.command import is_main_process
from shared.config import config_text, write_config
from shared.errors import InputError
from shared.io.cache import cache_folder
from shared.io.files import output_folder, read_json, to_json, write_json

CONFIG, DATA = "config.toml", "data.json"
RESULTS = ("last.ckpt", "best.safetensors", "metrics.jsonl", "model.safetensors")


def start_run(
    run_dir: Path,
    config: pydantic.BaseModel,
    resume: bool,
    data: dict[str, Any] | None = None,
    same: Sequence[str] = ("sha256",),
) -> None:
    """Makes `run_dir` ready for `train` and writes `config.toml` there. Call it before the first slow step.

    With `data`, what is known of the data (`name`, `sha256` and more), that goes to `data.json`.
    Raises `InputError` when the folder holds a run and `resume` is not given, when it is to be resumed with another
    configuration (but for `train.minutes`, which a run is gone on with to have more of) or with data that differ in
    one of the fields `same`, and while another process of this machine trains there.
    """
    output_folder(run_dir)
    if is_main_process():
        _claim(run_dir)
    path = run_dir / CONFIG
    if not resume:
        refuse_to_overwrite(run_dir)
    elif path.exists() and _results(run_dir):
        difference = _difference(tomllib.loads(path.read_text(encoding="utf-8")), tomllib.loads(config_text(config)))
        if difference:
            raise InputError(f"{path}: {difference}; resume with the same settings, or name another folder with --out")
        _same_data(run_dir / DATA, data or {}, same)
    if is_main_process():
        write_config(config, path)
        if data is not None:
            write_json(run_dir / DATA, data)


def _same_data(path: Path, data: dict[str, Any], same: Sequence[str]) -> None:
    before = read_json(path) if path.exists() else {}
    now = json.loads(to_json(data))
    for name in same:
        if name in before and name in now and before[name] != now[name]:
            what = f"other data ({before.get('name')})" if name == "sha256" else f"{name} another than now"
            raise InputError(f"{path}: the run began with {what}; resume it with the same, or name another folder")


def refuse_to_overwrite(run_dir: Path) -> None:
    """Raises `InputError` when `run_dir` holds (a part of) a run."""
    # A process that trains beside the first starts later, when the first may have written already.
    if is_main_process() and _results(run_dir):
        raise InputError(
            f"{run_dir}: holds a run already; go on with it by --resume, or name another folder with --out"
        )


_claimed: dict[Path, IO[bytes]] = {}


def _claim(run_dir: Path) -> None:
    """Keeps `run_dir` to this process for as long as it lives; a killed one keeps nothing.

    A lock of the process (which workers that it forks do not inherit, and may outlive it) on a file outside of the
    folder, so that nothing is left in there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    place = run_dir.resolve()
    if place in _claimed:
        return
    try:
        locks = output_folder(cache_folder() / "locks")
        file = open(locks / hashlib.sha256(str(place).encode()).hexdigest()[:32], "wb")  # noqa: SIM115
    except (OSError, InputError):  # a home that cannot be written to is no reason not to train
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        raise InputError(
            f"{run_dir}: another process trains in it now; wait for its end, or name another folder with --out"
        ) from None
    _claimed[place] = file


def _results(run_dir: Path) -> list[str]:
    return [name for name in RESULTS if (run_dir / name).exists()]


def _difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    for key in dict.fromkeys([*old, *new]):
        if f"{prefix}{key}" == "train.minutes":
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            inner = _difference(before, after, f"{prefix}{key}.")
            if inner:
                return inner
        elif before != after:
            return (
                f"{prefix}{key} is {before if key in old else 'not set'} there, not {after if key in new else 'unset'}"
            )
    return ""
