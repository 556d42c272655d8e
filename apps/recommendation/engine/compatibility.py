"""What RecBole 1.2.1 needs to run beside numpy 2, torch 2.6 and later, and a command line that is not its own."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# Names that numpy 2 took away and RecBole's Config sets aliases of.
GONE = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}
VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextlib.contextmanager
def session() -> Iterator[Path]:
    """Inside the block RecBole can be imported and used; yields a folder for its data, the working folder there.

    It reads `sys.argv`, writes `log_tensorboard` and `saved` into the working folder, talks on the root logger, and
    sets CUDA_VISIBLE_DEVICES: all of that is undone, and the folder is removed. `recbole.quick_start` is never imported
    (it needs ray). RecBole's checkpoints are pickles: none is written or read here.
    """
    for name, value in GONE.items():
        if not hasattr(np, name):
            setattr(np, name, value)
    arguments, visible = sys.argv, os.environ.get(VISIBLE)
    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory(prefix="manyheads-recbole-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.argv = arguments[:1]
        root.setLevel(logging.ERROR)
        try:
            with contextlib.chdir(folder):
                yield Path(folder)
        finally:
            sys.argv = arguments
            root.setLevel(level)
            if visible is None:
                os.environ.pop(VISIBLE, None)
            else:
                os.environ[VISIBLE] = visible
