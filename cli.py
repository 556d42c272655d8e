"""The command line of Manyheads: the root, and a door to each app. Nothing heavy is imported before a command runs."""

import importlib
from pathlib import Path
from typing import Annotated

import typer

from shared import command

APPS = Path(__file__).resolve().parent / "apps"

root = typer.Typer(
    name="manyheads",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # shared.command.run says what went wrong
    help="Attention models from papers, to train on your own data and to use.",
)


def _apps_with(room: str) -> list[str]:
    return sorted(file.parent.name for file in APPS.glob(f"*/{room}.py"))


def _show_version(wanted: bool) -> None:
    if wanted:
        from shared.versions import package_version

        typer.echo(package_version())
        raise typer.Exit


@root.callback()
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    command.set_debug(debug)


@root.command()
def demo(
    domains: Annotated[list[str] | None, typer.Argument(metavar="[DOMAIN]...", show_default=False)] = None,
    out: command.OutOption = Path("runs/demo"),
    as_json: command.JsonOption = False,
) -> None:
    """Run each app (or those named) on the data and the weights it brings, and write a page to look at."""
    from shared.demo import run_demos

    def demo_of(name: str):
        # Imported when it runs, so that one app's demo does not wait for another's libraries.
        return lambda folder, progress: importlib.import_module(f"apps.{name}.demo").run(folder, progress)

    command.emit(run_demos({name: demo_of(name) for name in _apps_with("demo")}, domains or [], out), as_json)


@root.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="[BENCHMARK]...", show_default=False)] = None,
    out: command.OutOption = Path("runs/bench"),
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=1000, help="The median of so many times.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="The smallest size only, to see that it works.")] = False,
    as_json: command.JsonOption = False,
) -> None:
    """Time each mechanism (or those named) against its plain form and what one would take instead, in one run."""
    from shared.bench import run_benchmarks

    def tell(text: str) -> None:
        typer.echo(text, err=True)

    command.emit(run_benchmarks(names or [], out, repeats=repeats, quick=quick, tell=tell), as_json)


@root.command()
def doctor(as_json: command.JsonOption = False) -> None:
    """Say what is installed, what is missing, and the command that mends it; exit code 1 when something is broken."""
    from shared.doctor import examine

    found = examine()
    command.emit(found, as_json)
    if found["problems"]:
        raise typer.Exit(1)


public = typer.Typer(no_args_is_help=True)
root.add_typer(public, name="data")


@public.callback()
def data() -> None:
    """The public data sets of the papers: where to get them, and whether a folder looks as expected."""


@public.command("list")
def list_(
    domain: Annotated[str | None, typer.Argument(metavar="[DOMAIN]", show_default=False)] = None,
    as_json: command.JsonOption = False,
) -> None:
    """What each data set is, its licence, where to get it, its layout, and the command that uses it."""
    from shared.datasets import list_data

    command.emit(list_data(domain), as_json)


@public.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from the list.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder (or the file) that you have.")],
    as_json: command.JsonOption = False,
) -> None:
    """Whether a folder has the layout of a data set; exit code 2 and the first thing that is missing when not."""
    from shared.datasets import check_data

    command.emit(check_data(name, path), as_json)


# An app's cli.py only parses: it imports neither torch nor what its domain needs (a test holds it to that).
for _name in _apps_with("cli"):
    root.add_typer(importlib.import_module(f"apps.{_name}.cli").app, name=_name)


def app() -> None:
    """The console script."""
    command.run(root)


if __name__ == "__main__":
    app()
