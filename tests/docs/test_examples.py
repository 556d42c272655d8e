"""The code in the docs runs: the marked blocks, the example app, and the example mechanism under the contract."""

import importlib
import importlib.util
import inspect
import itertools
import json
import math
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

import apps
import shared.attention
from shared import command
from shared.attention.registry import MECHANISMS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "pages").rglob("*.md"))
APP = ROOT / "docs" / "pages" / "extend" / "app.md"
MECHANISM = ROOT / "docs" / "pages" / "extend" / "mechanism.md"
CONTRACT = ROOT / "tests" / "shared" / "attention" / "test_contract.py"


class Block(NamedTuple):
    """A Python block of a page; `mark` is the comment in the line before it."""

    mark: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^(?:<!-- ([^\n]+) -->\n)?```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1] or "", match[2], text.count("\n", 0, match.start(2))) for match in found]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_marked_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(page):
        # Empty lines before the code, so that a traceback names the line of the page.
        code = compile("\n" * block.line + block.code, page, "exec")
        if block.mark == "runnable":
            exec(code, namespace)
        else:
            assert block.mark.startswith("file: "), f"{name(page)}:{block.line}: a block that no test runs"


def test_every_mechanism_has_a_page_with_an_example() -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in PAGES if page.parent.name == "attention"}
    catalogue = (ROOT / "docs" / "pages" / "attention" / "index.md").read_text(encoding="utf-8")
    for file in sorted((ROOT / "shared" / "attention").glob("[!_]*.py")):
        assert f"`{file.name}`" in catalogue or file.name == "registry.py", f"the catalogue lacks {file.name}"
    for page, text in pages.items():
        if page.name in ("relative.md", "local.md", "blocked.md", "cache.md"):
            for heading in ("Equation", "Shapes", "Cost", "How it is tested", "Use"):
                assert f"\n## {heading}\n" in text, f"{name(page)} lacks {heading}"
        assert any(block.mark == "runnable" for block in blocks(page)), name(page)


def write_files(page: Path, folder: Path) -> list[Path]:
    written = []
    for block in blocks(page):
        if block.mark.startswith("file: "):
            path = folder / block.mark.removeprefix("file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")
            written.append(path)
    return written


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[typer.Typer]:
    """The root command with the example app alone, from the files in the page; the working folder is a new one."""
    assert len(write_files(APP, tmp_path)) == 7
    monkeypatch.setattr(apps, "__path__", [*apps.__path__, str(tmp_path / "apps")])
    monkeypatch.chdir(tmp_path)
    root = typer.Typer()
    root.add_typer(importlib.import_module("apps.series.cli").app, name="series")
    root.callback()(lambda: None)
    yield root
    for module in [module for module in sys.modules if module.startswith("apps.series")]:
        del sys.modules[module]
    vars(apps).pop("series", None)


def test_the_example_app_works(series: typer.Typer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(line: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            command.run(series, shlex.split(line))
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    waves = [10 + 3 * math.sin(i / 5) for i in range(600)]
    Path("waves.txt").write_text("\n".join(map(str, waves)))
    lines = re.findall(r"^uv run manyheads (series .*)$", APP.read_text(), re.MULTILINE)
    assert len(lines) == 2
    small = " --device cpu --set steps=60 --set length=16 --set learning_rate=0.01"
    assert run(lines[0] + small)[0] == 0
    code, out, _ = run(lines[1])
    forecast = json.loads(out)["forecast"]
    assert code == 0
    assert forecast == pytest.approx([10 + 3 * math.sin(i / 5) for i in range(600, 605)], abs=1.0)
    assert sorted(path.name for path in Path("runs/waves").iterdir()) == [
        *("best.safetensors", "config.toml", "last.ckpt", "metrics.jsonl", "model.json", "model.safetensors"),
    ]
    # A run is not written over, gone on with when asked for, and wrong input is told in one line.
    assert run(lines[0] + small)[0] == 2
    assert run(lines[0] + small + " --resume")[0] == 0
    Path("waves.txt").write_text("1\n2\nthree\n")
    code, _, err = run(lines[1])
    assert (code, err) == (2, "error: waves.txt: line 3: 'three' is no number; give one number a line\n")
    assert run("series train")[0] == 2
    Path("apps/series/configs").mkdir()
    Path("apps/series/configs/long.toml").write_text("length = 2")
    code, _, err = run("series train --data waves.txt --config long")
    assert (code, "length" in err) == (2, True)


def test_the_example_mechanism_passes_the_contract(tmp_path: Path) -> None:
    (file,) = write_files(MECHANISM, tmp_path)
    shared.attention.import_all()
    before = dict(MECHANISMS)
    try:
        load(file, "linear_bias_of_the_docs")
        (added,) = MECHANISMS.keys() - before.keys()
        assert f"-k {added.replace(' ', '-')}" in MECHANISM.read_text()
        # A fresh copy, whose lists of mechanisms hold the new one.
        contract = load(CONTRACT, "contract_of_the_docs")
        cases = [case for test in vars(contract).values() for case in cases_of(test, MECHANISMS[added])]
        assert len(cases) > 15
        for test, arguments in cases:
            folder = {"tmp_path": tmp_path} if "tmp_path" in inspect.signature(test).parameters else {}
            test(**arguments, **folder)
    finally:
        MECHANISMS.clear()
        MECHANISMS.update(before)


def load(file: Path, module: str) -> Any:
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def cases_of(test: Any, mechanism: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The calls that pytest would make of a parametrised test for one mechanism."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    if not getattr(test, "__name__", "").startswith("test_") or not marks:
        return
    axes = []
    for names, values in (mark.args for mark in marks):
        plain = [value.values if hasattr(value, "values") else value for value in values]
        if names == "mechanism":
            axes.append([{"mechanism": mechanism}] if (mechanism,) in plain else [])
        elif isinstance(names, str):
            axes.append([{names: value} for value in plain])
        else:
            axes.append([dict(zip(names, value, strict=True)) for value in plain])
    for choice in itertools.product(*axes):
        yield test, {key: value for part in choice for key, value in part.items()}
