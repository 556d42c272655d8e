from pathlib import Path

import pytest

from shared.demo import Demo, run_demos
from shared.errors import InputError, ManyheadsError
from shared.io.files import write_json, write_text
from shared.report.page import Section


def demo(name: str) -> Demo:
    def run(out: Path, progress) -> Section:
        progress("something")
        write_text(out / f"{name}.txt", name)
        return Section(f"The {name} app")

    return run


def failing(out: Path, progress) -> Section:
    raise ManyheadsError("no luck")


def test_a_page_and_the_list_of_what_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_demos({"a": demo("a"), "b": demo("b")}, [], tmp_path / "demo")
    names = ["report.html", "a/a.txt", "b/b.txt"]
    assert [row["file"] for row in result["written"]] == [str(tmp_path / "demo" / name) for name in names]
    page = result["page"].read_text()
    assert "The a app" in page
    assert "The b app" in page
    assert result["seconds"].keys() == {"a", "b"}
    assert capsys.readouterr().err == ""  # no terminal


def test_what_others_put_there_is_neither_overwritten_nor_removed(tmp_path: Path) -> None:
    demos = {"a": demo("a"), "b": demo("b")}
    run_demos(demos, ["a"], tmp_path)
    write_text(tmp_path / "a" / "old.txt", "from an earlier demo")
    write_text(tmp_path / "mine.txt", "mine")
    run_demos(demos, ["a"], tmp_path)
    assert not (tmp_path / "a" / "old.txt").exists()
    assert (tmp_path / "mine.txt").read_text() == "mine"
    write_text(tmp_path / "b" / "mine.txt", "mine")
    with pytest.raises(InputError, match="not made by a demo"):
        run_demos(demos, [], tmp_path)
    assert (tmp_path / "b" / "mine.txt").exists()
    assert (tmp_path / "a" / "a.txt").exists()


@pytest.mark.parametrize("name", ["../precious", "x/y", "..", ""])
def test_a_list_that_no_demo_wrote_removes_nothing_elsewhere(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / "precious" / "file", "x")
    write_json(tmp_path / "demo" / "demo.json", [name])
    with pytest.raises(InputError, match="no demo makes"):
        run_demos({"a": demo("a")}, [], tmp_path / "demo")
    assert (tmp_path / "precious" / "file").exists()


def test_one_that_fails_does_not_take_the_others_along(tmp_path: Path) -> None:
    with pytest.raises(ManyheadsError, match="a: no luck"):
        run_demos({"a": failing, "b": demo("b")}, [], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "no luck" in page
    assert "The b app" in page


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known: a, b"):
        run_demos({"a": demo("a"), "b": demo("b")}, ["c"], tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
