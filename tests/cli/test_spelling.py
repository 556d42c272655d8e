"""One spelling: what every command of every app has in common, whichever app it belongs to."""

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import cli
from shared import command
from tests.command_line import line_of_refusal, manyheads

ROOT = typer.main.get_command(cli.root)


def leaves(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from leaves(one, (*words, name))
        else:
            yield (*words, name), one


COMMANDS = dict(leaves(ROOT))
NAMES = [" ".join(words) for words in COMMANDS]


def common_options() -> dict[str, typer.models.OptionInfo]:
    """The options that `shared.command` defines, by their spelling."""
    found = {}
    for name, value in vars(command).items():
        if name.endswith("Option") and typing.get_origin(value) is typing.Annotated:
            info = typing.get_args(value)[1]
            found[info.param_decls[0] if info.param_decls else info.default] = info
    return found


COMMON = common_options()


def options(one: Any) -> dict[str, Any]:
    return {spelling: p for p in one.params for spelling in p.opts if p.param_type_name == "option"}


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    done = manyheads(*words, "--help")
    assert done.code == 0
    assert done.err == ""
    help_line = inspect.cleandoc(COMMANDS[words].help or "").partition("\n")[0]
    assert help_line, f"manyheads {' '.join(words)} does not say what it does"
    for spelling, option in options(COMMANDS[words]).items():
        assert spelling in done.out
        assert option.help or spelling == "--help", f"{' '.join(words)} {spelling} does not say what it is"


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_every_command_speaks_json(words: tuple[str, ...]) -> None:
    assert "--json" in options(COMMANDS[words])


# `render` writes one file beside the music, so its --out is that file.
OTHER_MEANING = {("music render", "--out")}


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_common_options_mean_the_same_everywhere(words: tuple[str, ...]) -> None:
    for spelling, option in options(COMMANDS[words]).items():
        if spelling in COMMON and (" ".join(words), spelling) not in OTHER_MEANING:
            assert option.help == COMMON[spelling].help, f"{' '.join(words)} {spelling}: {option.help}"


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_an_unknown_option_is_one_line(words: tuple[str, ...]) -> None:
    line = line_of_refusal(manyheads(*words, "--colour", "red"))
    assert line.startswith("error: No such option: --colour")


def with_missing_files() -> Iterator[Any]:
    """Each command once for each way of naming a file that is not there."""
    for words, one in COMMANDS.items():
        arguments = [p for p in one.params if p.param_type_name == "argument" and p.required]
        paths = [p for p in arguments if "Path" in str(p.type_descriptor.annotation)]
        given = ["missing/file" if p in paths else "thing" for p in arguments]
        ways = [(spelling, [spelling, "missing/file"]) for spelling in ("--data", "--checkpoint", "--config")]
        ways = [(name, extra) for name, extra in ways if name in options(one)]
        if paths:
            ways.append(("its file", []))
        for name, extra in ways:
            yield pytest.param([*words, *extra, *given], id=f"{' '.join(words)}: {name}")


@pytest.mark.parametrize("words", with_missing_files())
def test_a_missing_file_is_one_line_and_leaves_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for as_json in ([], ["--json"]):
        line_of_refusal(manyheads(*words, *as_json))
        left = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not left, f"left behind: {left}"


def test_a_result_is_one_json_document() -> None:
    assert manyheads("data", "list", "music", "--json").json().keys() == {"jsb-chorales", "maestro", "pop909"}
