"""Fixtures that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The tests run in a process a core (pytest-xdist), and what a test starts inherits this: more threads than cores
# make all of them wait. It must stand before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.command_line import ROOT, Manyheads, Refused, line_of_refusal, manyheads, state_of

# A machine that does other work at the same time is no reason to fail.
settings.register_profile("manyheads", deadline=None)
settings.load_profile("manyheads")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of larger real data that may lie beside the checkout; a user's machine has none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the development data in ../shared/data, which is not part of the project")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither find nor leave anything in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYHEADS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", name="manyheads")
def _manyheads() -> Manyheads:
    """Runs a command through the real entry, in this process: manyheads("music", "info", "--json")."""
    return manyheads


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command in `tmp_path` that must be refused and leave everything there as it was; its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, code: int = 2) -> str:
        before = state_of(tmp_path)
        line = line_of_refusal(manyheads(*words), code)
        assert state_of(tmp_path) == before
        return line

    return run
