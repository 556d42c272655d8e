"""Where what can be made again is kept, so that a second run starts at once."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$MANYHEADS_CACHE, else manyheads in $XDG_CACHE_HOME, else ~/.cache/manyheads."""
    if chosen := os.environ.get("MANYHEADS_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manyheads"
