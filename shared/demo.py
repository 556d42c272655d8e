"""`manyheads demo`: each app shows itself on what it brings, and one page shows them all."""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.command import is_main_process
from shared.errors import InputError, ManyheadsError
from shared.io.files import output_folder, read_json, write_json
from shared.report.page import Section, write_page

MADE = "demo.json"  # lists what a demo made in its folder, which is what the next one may remove
PAGE = "report.html"

Progress = Callable[[str], None]  # told in a few words what is being done now
Demo = Callable[[Path, Progress], Section]


def run_demos(demos: dict[str, Demo], wanted: list[str], out: Path) -> dict[str, Any]:
    """Runs the demos named in `wanted` (none: all) each in a folder of its own below `out`, and writes the page.

    Returns the page, the seconds that each took, and every file that was made. What an earlier demo made in `out` is
    removed first. A demo that fails is told of on the page and does not keep the others from running.
    Raises `InputError` for an unknown name or a folder in which something else lies in the way, and `ManyheadsError`
    at the end when a demo failed.
    """
    unknown = [name for name in wanted if name not in demos]
    if unknown:
        raise InputError(f"demo {unknown[0]}: no such domain; known: {', '.join(demos) or 'none yet'}")
    chosen = list(dict.fromkeys(wanted or demos))
    _make_room(out, [*chosen, PAGE])
    sections, seconds, failures = [], {}, []
    started = time.monotonic()
    for number, name in enumerate(chosen, 1):
        tell = _teller(name, number, len(chosen), started)
        tell("starts")
        began = time.monotonic()
        try:
            sections.append(demos[name](output_folder(out / name), tell))
        except ManyheadsError as error:
            failures.append(f"{name}: {error}")
            sections.append(Section(name, text=f"This demo failed: {error}"))
        seconds[name] = round(time.monotonic() - began, 1)
        tell(f"done in {seconds[name]:.0f} s")
    commands = "manyheads demo" + "".join(f" {name}" for name in wanted)
    write_page(out / PAGE, "Manyheads demo", sections, subtitle=f"Everything here was made by: {commands}")
    if failures:
        raise ManyheadsError(f"{'; '.join(failures)} (the page of the others: {out / PAGE})")
    return {"page": out / PAGE, "seconds": seconds, "written": _written(out, chosen)}


def _teller(name: str, number: int, of: int, started: float) -> Progress:
    """A line for each step on the standard error, where that is a terminal; it does not disturb a progress bar.

    It begins with how many demos are done and the time so far: `[##---- 2:05] music: trains a small model`.
    """

    def tell(text: str) -> None:
        if sys.stderr.isatty() and is_main_process():
            minutes, seconds = divmod(int(time.monotonic() - started), 60)
            done = "#" * (number - 1) + "-" * (of - number + 1)
            print(f"[{done} {minutes}:{seconds:02d}] {name}: {text}", file=sys.stderr, flush=True)

    return tell


def _make_room(out: Path, making: list[str]) -> None:
    output_folder(out)
    made = out / MADE
    earlier = read_json(made) if made.exists() else []
    if not isinstance(earlier, list):
        raise InputError(f"{made}: is not the list that a demo leaves; name another folder with --out")
    for name in making:
        if (out / name).exists() and name not in earlier:
            raise InputError(f"{out / name}: was not made by a demo; move it, or name another folder with --out")
    for name in earlier:
        # The list is a file that anyone may have written: only what lies directly in the folder is ever removed.
        old = out / str(name)
        if old.parent != out or old.name in ("", ".", ".."):
            raise InputError(f"{made}: names {name}, which no demo makes; name another folder with --out")
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    write_json(made, making)


def _written(out: Path, names: list[str]) -> list[dict[str, Any]]:
    files = [file for name in names for file in sorted((out / name).rglob("*")) if file.is_file()]
    return [{"file": str(file), "bytes": file.stat().st_size} for file in [out / PAGE, *files]]
