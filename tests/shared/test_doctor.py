"""The doctor finds what is missing, damaged or harmful, and names the command that mends it."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import cli
from shared import command, doctor


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not asked anew in each test: importing torch once more takes seconds."""
    monkeypatch.setattr(doctor, "_devices", lambda: ({"cpus": 2}, []))


def test_a_sound_installation_has_no_problems(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.run(cli.root, ["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0, found["problems"]
    assert found["problems"] == []
    assert found["devices"]["torch"].startswith("2.11")
    assert {"torch", "monai", "recbole", "pretty_midi"} <= {row["part"] for row in found["parts"]}
    assert found["shipped_files"] > 0


def test_all_that_the_package_needs_is_looked_for() -> None:
    project = tomllib.loads((Path(cli.__file__).parent / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert needed <= {distribution for _, distribution, _, _ in doctor.PARTS}


def test_missing_parts(devices: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gone = ("monai", "highdicom")
    found_spec = doctor.util.find_spec
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None if name in gone else found_spec(name))
    found = doctor.examine()
    assert found["problems"] == [{"problem": "monai is missing, which medical needs", "mend": "uv sync"}]
    optional = next(row for row in found["parts"] if row["part"] == "highdicom")
    assert optional["mend"] == "uv sync --extra dicom-seg"
    with pytest.raises(SystemExit) as ended:
        command.run(cli.root, ["doctor"])
    assert ended.value.code == 1
    assert "monai is missing" in capsys.readouterr().out


def test_torchvision_is_a_problem(devices: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found_spec = doctor.util.find_spec
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: object() if name == "torchvision" else found_spec(name))
    assert "torchvision is installed" in doctor.examine()["problems"][0]["problem"]


def test_a_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = subprocess.CompletedProcess([], 1, "", "Traceback\nImportError: libtorch.so: no such file")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *args, **kwargs: broken)
    facts, problems = doctor._devices()
    assert "cpus" in facts
    assert problems[0]["problem"] == "torch cannot be imported: ImportError: libtorch.so: no such file"


def test_damaged_weights(devices: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copy(doctor.DATA / "manifest.json", tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "chorale.safetensors").write_bytes(b"half of it")
    monkeypatch.setattr(doctor, "DATA", tmp_path)
    found = doctor.examine()
    assert found["shipped_files"] == 0
    assert "data/weights/chorale.safetensors is missing or damaged" in [row["problem"] for row in found["problems"]]
