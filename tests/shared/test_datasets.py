"""The catalogue of public data sets is complete, its commands parse, and folders are compared with it."""

import json
from pathlib import Path

import pytest
import typer

import cli
from shared import command
from shared.datasets import catalogue, check_data, list_data
from shared.errors import InputError

FIELDS = {"name", "app", "title", "licence", "source", "layout", "use", "needs"}
NAMES = [row["name"] for row in catalogue()]


def test_every_entry_says_what_a_person_needs_to_know() -> None:
    assert len(NAMES) == len(set(NAMES)) > 15
    for row in catalogue():
        assert row.keys() - {"pairs"} == FIELDS, row["name"]
        assert all(row[key] for key in FIELDS), row["name"]
        assert row["use"].startswith(f"manyheads {row['app']} "), row["name"]


@pytest.mark.parametrize("row", catalogue(), ids=NAMES)
def test_the_command_that_uses_a_data_set_exists(row: dict) -> None:
    root = typer.main.get_command(cli.root)
    _, app, verb, *rest = row["use"].split()
    if app not in root.commands:
        pytest.skip(f"the app {app} is not in this checkout")
    root.commands[app].commands[verb].make_context(verb, rest)


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("content")
    return folder


def test_a_folder_as_expected(tmp_path: Path) -> None:
    fill(tmp_path, "JPEGImages/480p/bear/00000.jpg", "Annotations/480p/bear/00000.png")
    found = check_data("davis-2016", tmp_path)
    assert found["as_expected"]
    assert [row["found"] for row in found["found"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "has 0 files JPEGImages/480p"),
        (("JPEGImages/480p/bear/00000.jpg",), "has 0 files Annotations/480p"),
        (
            ("JPEGImages/480p/bear/00000.jpg", "Annotations/480p/bear/00001.png"),
            "00001.jpg: is missing, the partner of .*00001.png",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_data("davis-2016", fill(tmp_path, *files))


def test_an_empty_file_a_wrong_name_and_a_wrong_path(tmp_path: Path) -> None:
    (tmp_path / "Beauty.txt").touch()
    with pytest.raises(InputError, match=r"Beauty.txt: is empty"):
        check_data("amazon-beauty", tmp_path)
    with pytest.raises(InputError, match="no such data set; known: jsb-chorales"):
        check_data("imagenet", tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        check_data("maestro", tmp_path / "nowhere")
    with pytest.raises(InputError, match="no such app; known: action"):
        list_data("cooking")


def test_a_data_set_of_one_file_may_be_given_as_that_file(tmp_path: Path) -> None:
    (tmp_path / "Beauty.txt").write_text("1 2 3")
    assert check_data("amazon-beauty", tmp_path / "Beauty.txt")["as_expected"]


def test_real_data_is_recognised(shared_data: Path) -> None:
    assert check_data("amazon-beauty", shared_data / "recommendation")["as_expected"]
    assert check_data("jsb-chorales", shared_data / "music")["as_expected"]


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.run(cli.root, ["data", "list", "--json"])
    assert ended.value.code == 0
    assert list(json.loads(capsys.readouterr().out)) == NAMES
    with pytest.raises(SystemExit) as ended:
        command.run(cli.root, ["data", "check", "chaos", str(tmp_path)])
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: {tmp_path}: has 0 files")
    assert line.count("\n") == 1
