"""Benchmarks compare the same work, and what is measured is written."""

import importlib
import json
import time
from pathlib import Path

import pytest
import torch

import cli
from shared import bench, command
from shared.errors import InputError

NAMES = bench.benchmarks()


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_what_it_compares(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert len(module.FORMS) > 1
    assert set(module.SAME) <= set(module.FORMS)
    assert list(module.SIZES) == sorted(module.SIZES)
    assert module.AXIS
    assert module.MODES
    assert "\n\n" in module.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_the_forms_compute_the_same(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    for mode in module.MODES:
        results = [module.prepare(form=form, size=module.SIZES[0], mode=mode)() for form in module.SAME]
        for other in results[1:]:
            torch.testing.assert_close(other, results[0], atol=1e-4, rtol=1e-3)


def test_peak_memory_is_that_of_the_work() -> None:
    measured = bench.measure(lambda: torch.ones(64, 2**20 // 4).sum(), 3)
    assert measured["seconds"] > 0
    assert 0 <= measured["peak_mib"] < 200


def test_long_work_is_done_once() -> None:
    calls = []
    measured = bench.measure(lambda: calls.append(time.sleep(0.01)), 5, long=0.005)
    assert len(calls) == 1
    assert measured["seconds"] >= 0.01
    bench.measure(lambda: calls.append(None), 5)
    assert len(calls) == 1 + 6


def in_this_process(name: str, form: str, size: int, mode: str, repeats: int) -> dict:
    work = importlib.import_module(f"benchmarks.{name}").prepare(form=form, size=size, mode=mode)
    return {"benchmark": name, "form": form, "size": size, "mode": mode, **bench.measure(work, repeats)}


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_command_writes_a_page_a_figure_and_json(
    real: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not real:  # two processes that import torch take half a minute on a busy machine
        monkeypatch.setattr(bench, "_case", in_this_process)
    with pytest.raises(SystemExit) as ended:
        command.run(cli.root, ["bench", "decoding", "--quick", "--repeats", "1", "--out", str(tmp_path), "--json"])
    assert ended.value.code == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert [(row["benchmark"], row["form"]) for row in cases] == [("decoding", "cached"), ("decoding", "uncached")]
    assert all(row["seconds"] > 0 for row in cases)
    assert json.loads((tmp_path / "bench.json").read_text()) == cases
    assert "uncached" in (tmp_path / "bench.html").read_text()
    assert (tmp_path / "decoding.png").stat().st_size > 5000


def test_an_unknown_benchmark(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such benchmark; known: attention"):
        bench.run_benchmarks(["speed"], tmp_path, repeats=1, quick=True, tell=print)
