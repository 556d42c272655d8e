"""Fixtures that all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

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
