import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cli
from shared import command
from shared.versions import package_version

ROOT = Path(cli.__file__).parent


def code_of(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        command.run(cli.root, args)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_help_names_every_app(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--help") == 0
    out = capsys.readouterr().out
    for name in ("demo", "--debug", "--version", *(path.parent.name for path in ROOT.glob("apps/*/cli.py"))):
        assert name in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--version") == 0
    assert capsys.readouterr().out == package_version() + "\n"


def test_it_runs_as_a_script_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / "cli.py", "play"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "play" in done.stderr
    assert "Traceback" not in done.stderr


APP = """
from pathlib import Path
import typer
from shared import command
from shared.report.page import Section

app = typer.Typer()

@app.callback()
def main() -> None: "The {name} app."

@app.command()
def info(as_json: command.JsonOption = False) -> None:
    command.emit({{"name": "{name}"}}, as_json)
"""
DEMO = """
from shared.io.files import write_text
from shared.report.page import Section

def run(out, progress):
    progress("works")
    write_text(out / "made.txt", "{name}")
    return Section("{name} was here")
"""


@pytest.fixture
def two_apps(tmp_path: Path) -> Path:
    """A checkout with two apps of our own: the root and the shared code as they are."""
    (tmp_path / "shared").symlink_to(ROOT / "shared")
    (tmp_path / "cli.py").write_bytes((ROOT / "cli.py").read_bytes())
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "__init__.py").touch()
    for name in ("alpha", "beta"):
        folder = tmp_path / "apps" / name
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "cli.py").write_text(APP.format(name=name))
        (folder / "demo.py").write_text(DEMO.format(name=name))
    return tmp_path


def manyheads(checkout: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "cli.py", *args]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=environment)


def test_apps_are_found_and_their_demos_run(two_apps: Path) -> None:
    assert json.loads(manyheads(two_apps, "beta", "info", "--json").stdout) == {"name": "beta"}
    done = manyheads(two_apps, "demo", "--json")
    assert done.returncode == 0, done.stderr
    files = [row["file"] for row in json.loads(done.stdout)["written"]]
    assert files == ["runs/demo/report.html", "runs/demo/alpha/made.txt", "runs/demo/beta/made.txt"]
    assert "beta was here" in (two_apps / files[0]).read_text()

    # Once more with one of them: the other's old results do not stay about.
    done = manyheads(two_apps, "demo", "beta")
    assert done.returncode == 0, done.stderr
    assert "runs/demo/beta/made.txt" in done.stdout
    assert not (two_apps / "runs/demo/alpha").exists()
    assert "alpha" not in (two_apps / files[0]).read_text()

    done = manyheads(two_apps, "demo", "gamma")
    assert done.returncode == 2
    assert done.stderr == "error: demo gamma: no such domain; known: alpha, beta\n"
