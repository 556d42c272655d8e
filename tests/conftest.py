"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The tests run in a process a core (pytest-xdist), and what a test starts inherits this: more threads than cores
# make all of them wait. It must stand before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A machine that does other work at the same time is no reason to fail.
settings.register_profile("manyheads", deadline=None)
settings.load_profile("manyheads")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of larger real data that may lie beside the checkout; a user's machine has none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the development data in ../shared/data, which is not part of the project")
    return folder
