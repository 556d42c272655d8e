"""What every command shares: the spelling of options, exit codes, JSON output and progress."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

from shared.errors import ManyheadsError
from shared.io.files import leaving_no_empty_folder, to_json

if TYPE_CHECKING:
    from rich.progress import Progress

DataOption = Annotated[Path | None, typer.Option("--data", help="Your data: a file or a folder.", show_default=False)]
OutOption = Annotated[Path, typer.Option("--out", help="The folder that results are written to.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="A TOML file of settings.", show_default=False)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change one setting, such as model.layers=8; repeatable."),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="A run folder or a .safetensors file.", show_default=False),
]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option("--device", help="Where to compute.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="The seed of everything random.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on the standard output, nothing else.")]
DevicesOption = Annotated[str, typer.Option("--devices", help="How many devices: a number, or auto.")]
NumNodesOption = Annotated[int, typer.Option("--num-nodes", min=1, help="How many machines train together.")]
StrategyOption = Annotated[str, typer.Option("--strategy", help="How Lightning distributes, such as ddp.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="Of the arithmetic: 32-true, bf16-mixed, ...")]

_state = {"debug": False}


def set_debug(debug: bool) -> None:
    """Whether errors show their traceback; the root's `--debug`."""
    _state["debug"] = debug


def run(app: typer.Typer, args: Sequence[str] | None = None) -> None:
    """Runs a command line (None: that of the process) and ends with its exit code (`SystemExit`).

    0 done, 1 the work failed, 2 the user's input is wrong, 130 interrupted.
    """
    set_debug(False)
    try:
        # Not standalone, so that wrong usage gets the same one line as any other wrong input.
        with leaving_no_empty_folder():
            code = app(args=args, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except TyperException as error:
        text = _line(error.format_message()).replace(" Value error, ", " ").rstrip(".")
        if not text:  # no arguments: the help has been shown
            sys.exit(error.exit_code)
        _end(error, text + _where_to_look(error), error.exit_code)
    except ManyheadsError as error:
        _end(error, _line(str(error)), error.exit_code)
    except KeyboardInterrupt as error:
        _end(error, "interrupted", 130)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _end(error, _line(f"{name}{error.strerror or error}"), 1)
    except MemoryError as error:
        _end(error, "out of memory; use a smaller batch, or less data at once", 1)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not worth importing here
            _end(error, "the device is out of memory; use a smaller batch, or --device cpu", 1)
        _end(error, f"internal error: {type(error).__name__}: {_line(str(error))}; run with --debug", 1)


def _where_to_look(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"; see {context.command_path} --help" if context is not None else ""


def _end(error: BaseException, line: str, code: int) -> None:
    if _state["debug"]:
        traceback.print_exception(error)
    print(f"error: {line}", file=sys.stderr)
    sys.exit(code)


def _line(text: str) -> str:
    return " ".join(text.split())


def is_main_process() -> bool:
    """Whether this process is the first of those that train together; the others print and write nothing."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return all(os.environ.get(rank, "0") in ("", "0") for rank in ranks)


def progress() -> "Progress":
    """A progress bar with time left on the standard error; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or not is_main_process(),
        refresh_per_second=4,
    )


def emit(result: dict[str, Any], as_json: bool) -> None:
    """Prints a command's result: one JSON document, or a summary for people.

    Nested dicts become headed groups, lists of dicts become tables.
    """
    if not is_main_process():
        return
    if as_json:
        print(to_json(result, indent=2))
        return
    from rich.console import Console

    console = Console()
    # Paths stay whole in a file or a pipe, where no terminal says how wide it is.
    _show(console if console.is_terminal else Console(width=200), result, "")


def _show(console: Any, result: dict[str, Any], title: str) -> None:
    from rich.table import Table

    plain = Table.grid(padding=(0, 2))
    for key, value in result.items():
        if not isinstance(value, dict) and not _is_table(value):
            plain.add_row(_label(key), _text(value), style=None)
    if title:
        console.print(f"\n{_label(title)}", style="bold", markup=False)
    if plain.row_count:
        console.print(plain)
    for key, value in result.items():
        if isinstance(value, dict):
            _show(console, value, f"{title} {key}".strip())
        elif _is_table(value):
            columns = list(dict.fromkeys(name for row in value for name in row))
            table = Table(title=_label(key), title_justify="left")
            for name in columns:
                table.add_column(_label(name))
            for row in value:
                table.add_row(*(_text(row.get(name)) for name in columns))
            console.print(table)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _label(key: str) -> str:
    return str(key).replace("_", " ")


def _text(value: Any) -> Any:
    from rich.text import Text

    if value is None:
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    if isinstance(value, (list, tuple)):
        return Text(", ".join(str(_text(item)) for item in value))
    return Text(str(value))
