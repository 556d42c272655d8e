"""The wheel: built, installed in an environment of its own outside of the checkout, and used there."""

import json
import os
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*words: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_works_outside_of_the_checkout(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv (pip install uv)")
    run(uv, "build", "--wheel", "--out-dir", tmp_path / "dist", cwd=ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = run("git", "ls-files", "cli.py", "apps", "shared", "data", "benchmarks", cwd=ROOT).split()
    assert set(tracked) <= held  # samples, weights, configurations and templates ride along
    assert not [name for name in held if name.startswith(("tests/", "docs/"))]

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    for kind in ("constraint", "override"):
        (tmp_path / f"{kind}.txt").write_text("\n".join(settings[f"{kind}-dependencies"]) + "\n")
    python = tmp_path / "env" / "bin" / "python"
    run(uv, "venv", tmp_path / "env", cwd=tmp_path)
    pins = ["--constraint", tmp_path / "constraint.txt", "--override", tmp_path / "override.txt"]
    run(uv, "pip", "install", "--python", python, wheel, *pins, cwd=tmp_path)

    place = tmp_path / "elsewhere"
    place.mkdir()
    manyheads = python.with_name("manyheads")
    assert run(manyheads, "--version", cwd=place).strip() in wheel.name
    assert json.loads(run(manyheads, "doctor", "--json", cwd=place))["problems"] == []
    assert json.loads(run(manyheads, "music", "info", "--json", cwd=place))
    made = json.loads(run(manyheads, "demo", "music", "--json", cwd=place))
    assert (place / made["page"]).stat().st_size > 100_000
