import json
from pathlib import Path

import pytest
import typer

from shared import command
from shared.errors import InputError, ManyheadsError


def app_that(raises: BaseException | None = None) -> typer.Typer:
    app = typer.Typer()

    @app.callback()
    def root(debug: bool = False) -> None:
        command.set_debug(debug)

    @app.command()
    def work(
        data: command.DataOption = None,
        out: command.OutOption = Path("runs/x"),
        config: command.ConfigOption = None,
        sets: command.SetOption = None,
        checkpoint: command.CheckpointOption = None,
        device: command.DeviceOption = "auto",
        seed: command.SeedOption = 0,
        resume: command.ResumeOption = False,
        as_json: command.JsonOption = False,
        devices: command.DevicesOption = "auto",
        num_nodes: command.NumNodesOption = 1,
        strategy: command.StrategyOption = "auto",
        precision: command.PrecisionOption = "32-true",
    ) -> None:
        if raises is not None:
            raise raises
        command.emit({"seed": seed, "sets": sets, "device": device, "out": out}, as_json)

    return app


def code_of(app: typer.Typer, *args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        command.run(app, args)
    assert isinstance(caught.value.code, int)
    return caught.value.code


class OutOfMemoryError(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ManyheadsError("it\nfailed"), 1, "error: it failed"),
        (InputError("a.mid: is empty"), 2, "error: a.mid: is empty"),
        (OSError(28, "No space left on device", "/x"), 1, "error: /x: No space left on device"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("oh\nno"), 1, "error: internal error: ZeroDivisionError: oh no; run with --debug"),
        (OutOfMemoryError("CUDA"), 1, "error: the device is out of memory"),
    ],
)
def test_errors_become_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    assert code_of(app_that(error), "work") == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(text)
    assert captured.err.count("\n") <= 1


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(app_that(InputError("a.mid: is empty")), "--debug", "work") == 2
    assert "Traceback" in capsys.readouterr().err


def test_usage_errors_are_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    for words, named in (
        (("work", "--device", "tpu"), "--device"),
        (("work", "--devise", "cpu"), "--devise"),
        (("work", "--seed", "one"), "--seed"),
        (("work", "--out"), "--out"),
        (("play",), "'play'"),
    ):
        assert code_of(app_that(), *words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert named in captured.err
        assert captured.err.endswith(" work --help\n" if words == ("work", "--devise", "cpu") else "\n")
        assert captured.err.count("\n") == 1
    assert code_of(app_that(), "--help") == 0
    assert "Usage" in capsys.readouterr().out


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(no_args_is_help=True)
    app.command("a")(lambda: None)
    app.command("b")(lambda: None)
    assert code_of(app) == 2
    captured = capsys.readouterr()
    assert "Usage" in captured.out + captured.err
    assert "error" not in captured.err


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(app_that(), "work", "--json", "--seed", "3", "--set", "a=1", "--set", "b=2") == 0
    assert json.loads(capsys.readouterr().out) == {"seed": 3, "sets": ["a=1", "b=2"], "device": "auto", "out": "runs/x"}


def test_summary_shows_groups_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    command.emit(
        {"nll": 0.33333, "test": {"notes": 12}, "files": [{"name": "[a].mid"}], "none": None, "ok": True}, False
    )
    out = capsys.readouterr().out
    for part in ("0.3333", "test", "12", "[a].mid", "yes"):
        assert part in out


def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    command.emit({"a": 1}, True)
    assert capsys.readouterr().out == ""


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with command.progress() as bar:
        bar.advance(bar.add_task("x", total=1))
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
