"""The attention core: one mechanism a file, each registered with its plain reference."""

from importlib import import_module
from pathlib import Path


def import_all() -> None:
    """Import every mechanism, so that `registry.MECHANISMS` is complete."""
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        import_module(f"{__name__}.{path.stem}")
