"""The version of this package."""

import tomllib
from importlib import metadata
from pathlib import Path


def package_version() -> str:
    """That of the installed package, else that of the checkout."""
    try:
        return metadata.version("manyheads")
    except metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parents[1] / "pyproject.toml"
        return tomllib.loads(project.read_text())["project"]["version"] if project.exists() else "0"
