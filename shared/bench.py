"""`manyheads bench`: every benchmark in `benchmarks/`, side by side in one run, as one table and one figure.

A benchmark is a module with

    FORMS: tuple[str, ...]      # what is compared; ours first
    AXIS: str                   # what grows, such as "length"
    SIZES: tuple[int, ...]
    MODES: tuple[str, ...]      # such as ("forward", "forward + backward")
    SAME: tuple[str, ...]       # the forms whose work returns the same tensor from the same inputs (tested)
    def prepare(form, size, mode) -> Callable[[], object] | None   # the work to be timed; None: too large to be tried

Its docstring says what is compared.
"""

import argparse
import importlib
import inspect
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.errors import InputError, ManyheadsError
from shared.io.files import output_folder, write_json
from shared.report.page import Section, write_page

ROOT = Path(__file__).resolve().parents[1]

Tell = Callable[[str], None]


def benchmarks() -> list[str]:
    """The names of the benchmarks."""
    return sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py") if file.stem != "__init__")


def run_benchmarks(names: list[str], out: Path, *, repeats: int, quick: bool, tell: Tell) -> dict[str, Any]:
    """Runs the named benchmarks (none: all) and writes `bench.json`, `bench.html` and a PNG each below `out`.

    Each case runs in a process of its own, so that its peak memory is its own: the highest resident size while it
    works, less that before it began. Times are the median of `repeats` (see `measure`). `quick` takes the smallest size
    only, to see that all of it works. Raises `InputError` for an unknown name, `ManyheadsError` when a case fails.
    """
    known = benchmarks()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"bench {unknown[0]}: no such benchmark; known: {', '.join(known)}")
    output_folder(out)
    page, rows, sections = out / "bench.html", [], []
    for name in names or known:
        module = importlib.import_module(f"benchmarks.{name}")
        sizes = module.SIZES[:1] if quick else module.SIZES
        mine = []
        for mode in module.MODES:
            for size in sizes:
                for form in module.FORMS:
                    row = _case(name, form, size, mode, repeats)
                    if row is not None:
                        mine.append(row)
                        tell(f"{name}: {mode}, {module.AXIS} {size}, {form}: {1000 * row['seconds']:.1f} ms")
        figure = out / f"{name}.png"
        _draw(figure, module, mine)
        title, _, text = inspect.cleandoc(module.__doc__ or name).partition("\n")
        sections.append(Section(title.rstrip("."), text, figures=[figure], table=_table(mine, module)))
        rows += mine
        # After each, since all of them take half an hour.
        write_json(out / "bench.json", rows)
        write_page(page, "Manyheads benchmarks", sections, subtitle="One run, one machine, the same inputs")
    return {"page": page, "cases": rows}


def _case(name: str, form: str, size: int, mode: str, repeats: int) -> dict[str, Any] | None:
    case = {"form": form, "size": size, "mode": mode}
    command = [sys.executable, "-m", "shared.bench", name, json.dumps(case), str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ManyheadsError(f"bench {name}: {mode}, size {size}, {form}: {last}")
    measured = json.loads(done.stdout.splitlines()[-1])
    return None if measured is None else {"benchmark": name, **case, **measured}


def measure(work: Callable[[], object], repeats: int, long: float = 30.0) -> dict[str, float]:
    """Seconds (median) and peak MiB of `work`, in this process; what was loaded before does not count.

    The first time warms up, unless it took `long` seconds or more: then it is the only one.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = [_seconds(work)]
    if times[0] < long:
        times = [_seconds(work) for _ in range(repeats)]
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(times), "peak_mib": (peak - before) / unit}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _table(rows: list[dict[str, Any]], module: Any) -> list[dict[str, Any]]:
    """One line for each size and mode, one column for each form, and how many times as long the others take."""
    table = []
    for mode in module.MODES:
        for size in sorted({row["size"] for row in rows}):
            here = {row["form"]: row for row in rows if row["mode"] == mode and row["size"] == size}
            ours = here.get(module.FORMS[0])
            line: dict[str, Any] = {"mode": mode, module.AXIS: size}
            for form, row in here.items():
                times = "" if ours is None or row is ours else f" ({row['seconds'] / ours['seconds']:.1f} x)"
                line[form] = f"{1000 * row['seconds']:.1f} ms{times}, {row['peak_mib']:.0f} MiB"
            table.append(line)
    return table


def _draw(path: Path, module: Any, rows: list[dict[str, Any]]) -> None:
    from shared.report.figures import new_figure, save_figure

    figure = new_figure(9, 3 * len(module.MODES))
    for line, mode in enumerate(module.MODES):
        for column, (key, label, factor) in enumerate((("seconds", "milliseconds", 1000), ("peak_mib", "peak MiB", 1))):
            axes = figure.add_subplot(len(module.MODES), 2, 1 + column + 2 * line)
            for form in module.FORMS:
                mine = [row for row in rows if row["form"] == form and row["mode"] == mode]
                axes.plot([r["size"] for r in mine], [max(0.1, factor * r[key]) for r in mine], "o-", label=form)
            axes.set(xscale="log", yscale="log", xlabel=module.AXIS, ylabel=label)
            axes.set_title(mode)
            axes.legend(fontsize=7)
    save_figure(figure, path)


def main() -> None:
    """One case, in this process: its measurement as a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("case", type=json.loads)
    parser.add_argument("repeats", type=int)
    given = parser.parse_args()
    work = importlib.import_module(f"benchmarks.{given.name}").prepare(**given.case)
    print(json.dumps(None if work is None else measure(work, given.repeats)))


if __name__ == "__main__":
    main()
