"""The four-part Bach chorales that come inside music21: the data that is always there."""

import io
import math
import os
import re
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import SupportsFloat

import numpy as np

from apps.music.codecs.chorale_tokens import STEPS_PER_BEAT, VOICES
from shared.errors import InputError


def chorale_files() -> list[Path]:
    """The Bach scores of the installed music21, by name, without importing it (which takes seconds).

    Its three Humdrum files are left out: they are among the chorales under the same numbers.
    """
    spec = find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("music21: is not installed; install it or give --data")
    folder = Path(spec.submodule_search_locations[0]) / "corpus" / "bach"
    files = sorted(path for path in folder.glob("bwv*") if path.suffix in (".mxl", ".xml"))
    if not files:
        raise InputError(f"{folder}: holds no chorales; reinstall music21 or give --data")
    return files


def read_chorale(path: Path) -> np.ndarray:
    """One score as a grid (T, 4) int16 of 16ths, S A T B, -1 for silence; else ValueError with the reason.

    Only scores of exactly the parts Soprano, Alto, Tenor and Bass. A step holds what sounds at its first instant, as in
    the JSB data set: a shorter note between two steps is lost. Repeats are not written out, fermatas and grace notes
    are ignored. A part with two notes at once has no place on the grid.
    """
    _check_parts(path)
    os.environ.setdefault("MPLBACKEND", "Agg")  # music21 looks for matplotlib
    import music21

    try:
        score = music21.converter.parse(path, format="musicxml", forceSource=True)
    except Exception as error:  # music21 raises nearly anything on a bad score
        raise ValueError(f"music21 cannot read it ({type(error).__name__})") from None
    if not isinstance(score, music21.stream.Score):
        raise ValueError("it is not one score")
    parts = list(score.parts)
    if tuple(part.partName for part in parts) != VOICES:
        raise ValueError(f"its parts are {', '.join(str(part.partName) for part in parts)}, not S A T B")
    length = max(_step(part.highestTime) for part in parts)
    grid = np.full((length, len(VOICES)), -1, dtype=np.int16)
    for voice, part in enumerate(parts):
        for note in part.flatten().notes:
            if note.duration.isGrace:
                continue
            if len(note.pitches) != 1:
                raise ValueError(f"its {VOICES[voice].lower()} has two notes at once")
            begin, end = _step(note.offset), _step(note.offset + note.duration.quarterLength)
            if (grid[begin:end, voice] >= 0).any():
                raise ValueError(f"its {VOICES[voice].lower()} has two notes at once")
            grid[begin:end, voice] = note.pitches[0].midi
    if (grid < 0).all(axis=0).any():
        raise ValueError("one of its voices is silent throughout")
    return grid


def _step(quarters: SupportsFloat) -> int:
    """The first step that begins at or after this time."""
    return math.ceil(float(quarters) * STEPS_PER_BEAT - 1e-6)


def _check_parts(path: Path) -> None:
    """Count the parts before music21 spends seconds on a cantata's whole orchestra."""
    content = path.read_bytes()
    if path.suffix == ".mxl":
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                scores = [name for name in archive.namelist() if not name.startswith("META-INF")]
                content = b"".join(archive.read(name) for name in scores)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise ValueError("it is not a compressed score") from None
    count = len(re.findall(rb"<score-part\b", content.replace(b"\0", b"")))  # one score is in UTF-16
    if count != len(VOICES):
        raise ValueError(f"it has {count} parts, not 4")
