"""What a teacher of harmony would mark in a four-part chorale, counted.

A grid is an int array (T, 4): one row per sixteenth step, columns soprano, alto, tenor, bass, MIDI pitches, -1 for
silence. A held note repeats its pitch, so a repeated note and a held one look alike and count as one note.

Every figure is a number of marks that would be written into the score, not a number of steps:

range       a note (maximal stretch of steps with one pitch in one voice) outside the voice's range in `RANGES`.
crossing    a maximal stretch of steps in which a voice sounds strictly below the next lower one (soprano-alto,
            alto-tenor, tenor-bass).
overlap     adjacent voices, a change of their pair, neither state crossed: the lower voice arrives strictly above the
            note which the upper one has just left, or the upper strictly below the note which the lower has just left.
parallel    any two of the four voices. A pair's states are the distinct pairs of pitches it sounds one after the other,
fifth       however long each lasts; a silence in either voice breaks the chain. Two consecutive states are parallel
            fifths when both are a perfect fifth or its compound (a distance of 7 semitones modulo 12) and both voices
            move, in the same direction, by an interval that is not zero. So a repeated fifth, oblique motion, contrary
            motion (fifth to twelfth) and fifths that another interval separates do not count; a diminished fifth is
            no perfect one.
parallel    the same with unisons, octaves and their compounds (0 modulo 12).
octave
spacing     a maximal stretch of steps in which soprano and alto, or alto and tenor, are more than an octave apart.

The grid knows neither phrases nor spelling: consecutives over the rest between two phrases, which are allowed, count as
well, and a diminished sixth sounds like a fifth. The same counts on real chorales are therefore the measure to read
these figures by (`summarise`).

A chord change is a step at which any voice differs from the step before. Rates are marks per 100 chord changes.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np

from apps.music.codecs.chorale_tokens import STEPS_PER_BAR, STEPS_PER_BEAT

VOICES = ("soprano", "alto", "tenor", "bass")

# The usual textbook ranges at their generous end, inclusive: C4-G5, G3-D5, C3-G4, E2-D4. Bach goes beyond each of them.
RANGES = {"soprano": (60, 79), "alto": (55, 74), "tenor": (48, 67), "bass": (40, 62)}

KINDS = (
    *(f"range_{voice}" for voice in VOICES),
    "crossings",
    "overlaps",
    "parallel_fifths",
    "parallel_octaves",
    "spacing_soprano_alto",
    "spacing_alto_tenor",
)

_ADJACENT = ((0, 1), (1, 2), (2, 3))


def voice_leading(grid: np.ndarray) -> dict[str, Any]:
    """Count the marks of the module's definitions in one chorale.

    grid: (T, 4) int, sixteenth steps, soprano to bass, -1 silence. Returns `steps`, `chord_changes`, `counts` and
    `per_100_changes` (both by the names in `KINDS`; a rate is 0.0 where no chord changes), and `marks`: one dict per
    mark with `kind`, `voices`, `step`, `bar` (from 1, in 4/4 counted from the first step) and `beat` (1 to 4.75), in
    the order of the score. Raises ValueError when the grid has another shape.
    """
    grid = _checked(grid)
    marks: list[tuple[int, str, tuple[int, ...]]] = []
    for voice, name in enumerate(VOICES):
        marks += [(step, f"range_{name}", (voice,)) for step in _outside(grid[:, voice], *RANGES[name])]
    for upper, lower in _ADJACENT:
        pair = grid[:, [upper, lower]]
        sounding = (pair >= 0).all(axis=1)
        distance = pair[:, 0] - pair[:, 1]
        marks += [(step, "crossings", (upper, lower)) for step in _starts(sounding & (distance < 0))]
        marks += [(step, "overlaps", (upper, lower)) for step in _overlaps(pair)]
        if upper < 2:  # the bass may stand as far below the tenor as it likes
            kind = f"spacing_{VOICES[upper]}_{VOICES[lower]}"
            marks += [(step, kind, (upper, lower)) for step in _starts(sounding & (distance > 12))]
    for upper, lower in combinations(range(4), 2):
        pair = grid[:, [upper, lower]]
        marks += [(step, "parallel_fifths", (upper, lower)) for step in _parallels(pair, 7)]
        marks += [(step, "parallel_octaves", (upper, lower)) for step in _parallels(pair, 0)]
    counts = {kind: sum(mark[1] == kind for mark in marks) for kind in KINDS}
    changes = int((grid[1:] != grid[:-1]).any(axis=1).sum())
    return {
        "steps": len(grid),
        "chord_changes": changes,
        "counts": counts,
        "per_100_changes": {kind: 100.0 * count / changes if changes else 0.0 for kind, count in counts.items()},
        "marks": [_described(*mark) for mark in sorted(marks)],
    }


def summarise(grids: Iterable[np.ndarray]) -> dict[str, Any]:
    """The mean of `voice_leading` over pieces, to set generated chorales beside held-out ones.

    Returns `pieces`, `chord_changes` (their sum), `per_100_changes` (mean of the pieces' rates, each piece with one
    vote; pieces in which no chord changes have no rate and are left out) and `counts` (mean marks per piece).
    Raises ValueError when there is no piece.
    """
    reports = [voice_leading(grid) for grid in grids]
    if not reports:
        raise ValueError("there is no piece to summarise")
    rated = [report for report in reports if report["chord_changes"]]
    return {
        "pieces": len(reports),
        "chord_changes": sum(report["chord_changes"] for report in reports),
        "per_100_changes": {
            kind: float(np.mean([report["per_100_changes"][kind] for report in rated])) if rated else 0.0
            for kind in KINDS
        },
        "counts": {kind: float(np.mean([report["counts"][kind] for report in reports])) for kind in KINDS},
    }


def _checked(grid: np.ndarray) -> np.ndarray:
    grid = np.asarray(grid)
    if grid.ndim != 2 or grid.shape[1] != 4:
        raise ValueError(f"a chorale grid has the shape (steps, 4), not {grid.shape}")
    return np.where(grid < 0, -1, grid).astype(np.int64)


def _starts(flags: np.ndarray) -> list[int]:
    """The first step of each maximal stretch of true flags."""
    before = np.concatenate([[False], flags[:-1]])
    return np.flatnonzero(flags & ~before).tolist()


def _changes(columns: np.ndarray) -> np.ndarray:
    """The steps, without the first, at which a row of (T, voices) differs from the row before."""
    return np.flatnonzero((columns[1:] != columns[:-1]).any(axis=1)) + 1


def _outside(pitches: np.ndarray, low: int, high: int) -> list[int]:
    starts = np.concatenate([[0], _changes(pitches[:, None])]).astype(np.int64) if len(pitches) else np.zeros(0, int)
    pitch = pitches[starts]
    return starts[(pitch >= 0) & ((pitch < low) | (pitch > high))].tolist()


def _moves(pair: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The changes of a pair of voices that sound before and after: steps (M,), states before and after (M, 2)."""
    steps = _changes(pair)
    steps = steps[(pair[steps] >= 0).all(axis=1) & (pair[steps - 1] >= 0).all(axis=1)]
    return steps, pair[steps - 1], pair[steps]


def _overlaps(pair: np.ndarray) -> list[int]:
    steps, old, new = _moves(pair)
    crossed = (old[:, 0] < old[:, 1]) | (new[:, 0] < new[:, 1])
    beyond = (new[:, 1] > old[:, 0]) | (new[:, 0] < old[:, 1])
    return steps[beyond & ~crossed].tolist()


def _parallels(pair: np.ndarray, interval: int) -> list[int]:
    steps, old, new = _moves(pair)
    motion = np.sign(new - old)
    together = (motion[:, 0] == motion[:, 1]) & (motion[:, 0] != 0)
    # The distance is taken from the lower sounding note, so that crossed voices a fifth apart are a fifth, too.
    same = (abs(old[:, 0] - old[:, 1]) % 12 == interval) & (abs(new[:, 0] - new[:, 1]) % 12 == interval)
    return steps[together & same].tolist()


def _described(step: int, kind: str, voices: tuple[int, ...]) -> dict[str, Any]:
    return {
        "kind": kind,
        "voices": [VOICES[voice] for voice in voices],
        "step": step,
        "bar": step // STEPS_PER_BAR + 1,
        "beat": step % STEPS_PER_BAR / STEPS_PER_BEAT + 1,
    }
