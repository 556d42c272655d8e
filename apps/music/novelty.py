"""How much of a generated piece stands note for note in the training set.

The longest run of consecutive notes that a piece shares with any piece of a corpus, found exactly (no sampling, no
hashing): once as it stands and once whatever its transposition. A run has two notes or more: any single note is shared.

Chorales are compared in two ways. By voice: two runs are the same when their notes have the same pitches, the same
durations in sixteenths and the same silences between them; any voice may quote any voice. By chord: a chord is a
maximal stretch of steps in which no voice changes, and a run of chords agrees in all four voices and in the durations.

Performances are compared note by note in the order of onset. Notes that begin within `CHORD_SECONDS` of the first of
them form one chord and are read from the lowest up; the time from chord to chord is compared to the nearest
`ONSET_SECONDS`, so two performances of one passage by different hands may fall apart where a time lies between two
steps. Lengths of notes and velocities are not compared. The run of `pitches` leaves out the timing altogether: it is an
upper bound that also finds quotations at another tempo.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from apps.music.codecs import chorale, performance
from apps.music.codecs.chorale_tokens import STEPS_PER_BAR
from apps.music.notes import Note
from apps.music.shared_runs import longest_common_run

VOICES = tuple(name.lower() for name in chorale.VOICES)
CHORD_SECONDS = 0.03
ONSET_SECONDS = 0.05


class Line(NamedTuple):
    """A row of E notes or chords that may be quoted: one voice, the chords of a chorale, or a performance.

    pitch (E,) is what a transposition shifts, shape (E, W) what it leaves alone, link (E,) how an element leads to the
    next one (the last has no meaning); start and end (E,) in steps or seconds.
    """

    piece: str
    voice: str | None
    pitch: np.ndarray
    shape: np.ndarray
    link: np.ndarray
    start: np.ndarray
    end: np.ndarray


def longest_shared_run(query: Any, corpus_pieces: Iterable[Any]) -> dict[str, Any]:
    """The longest run of notes that `query` shares with the pieces of a corpus.

    query: a chorale grid, int (T, 4) on the sixteenth grid with -1 for silence, or a performance, a list of `Note`.
    corpus_pieces: `corpora.Piece`s of the same codec, or (name, grid or notes) pairs. Of a piece's variants the middle
    one is compared, which is the one that is not stretched.

    Returns the runs `exact` and `transposed`, for chorales also `chords_exact` and `chords_transposed`, for
    performances also `pitches`; beside them `unit` ("bars" or "seconds"), `query_notes` (how many notes the query has)
    and, once more, the keys of `transposed`, the headline. A run has
    `length_notes` (in the runs of chords `length_chords`), 0 where nothing is shared and the rest is None;
    `seconds_or_bars`, how long it lasts in the query;
    `piece`, the source; `transposition`, semitones from the source to the query;
    `source_bar` and `query_bar`, from 1, in 4/4 counted from the first step (None for performances);
    `source_second` and `query_second` (None for chorales);
    `source_voice` and `query_voice` (None for chords and performances).
    Of runs of equal length the first in the corpus is named. Raises ValueError when the query is neither a grid nor
    notes.
    """
    if isinstance(query, np.ndarray):
        if query.ndim != 2 or query.shape[1] != 4:
            raise ValueError(f"a chorale grid has the shape (steps, 4), not {query.shape}")
        runs = _chorale_runs(query, corpus_pieces)
        notes = sum(len(line.pitch) for line in voice_lines(query))
        return {**runs["transposed"], "unit": "bars", "query_notes": notes, **runs}
    if isinstance(query, Sequence) and all(isinstance(note, Note) for note in query):
        runs = _performance_runs(query, corpus_pieces)
        return {**runs["transposed"], "unit": "seconds", "query_notes": len(query), **runs}
    raise ValueError("a query is a chorale grid (steps, 4) or a list of notes")


def describe(result: dict[str, Any]) -> list[str]:
    """A result of `longest_shared_run` as readable sentences, one for each kind of run."""
    titles = {
        "exact": "Note for note",
        "transposed": "In any transposition",
        "pitches": "In any transposition and timing",
        "chords_exact": "All four voices, note for note",
        "chords_transposed": "All four voices, in any transposition",
    }
    return [f"{title}: {_sentence(result[key], result['unit'])}" for key, title in titles.items() if key in result]


def voice_lines(grid: np.ndarray, piece: str = "") -> list[Line]:
    """The four voices of a grid (T, 4): shape is the duration, link the silence before the next note, in steps."""
    lines = []
    for voice, name in enumerate(VOICES):
        states, start, end = _stretches(grid[:, voice : voice + 1])
        sounding = states[:, 0] >= 0
        pitch, start, end = states[sounding, 0], start[sounding], end[sounding]
        lines.append(Line(piece, name, pitch, (end - start)[:, None], _gaps(start, end), start, end))
    return lines


def chord_line(grid: np.ndarray, piece: str = "") -> Line:
    """The chords of a grid (T, 4): pitch is the lowest note, shape the voices' distances from it and the duration."""
    states, start, end = _stretches(grid)
    sounding = (states >= 0).any(axis=1)
    states, start, end = states[sounding], start[sounding], end[sounding]
    lowest = np.where(states < 0, 128, states).min(axis=1, initial=128)
    distances = np.where(states < 0, -1, states - lowest[:, None])
    return Line(piece, None, lowest, np.column_stack([distances, end - start]), _gaps(start, end), start, end)


def performance_line(notes: Sequence[Note], piece: str = "") -> Line:
    """The notes of a performance: shape is empty, link the time to the chord of the next note in `ONSET_SECONDS`."""
    ordered = sorted(notes, key=lambda note: note.start)
    chord, first = [], -np.inf
    for note in ordered:
        if note.start - first > CHORD_SECONDS + 1e-9:  # times are sums of 10 ms, which are not exact
            first = note.start
        chord.append(first)
    table = np.array([(at, note.pitch, note.start, note.end) for at, note in zip(chord, ordered, strict=True)])
    table = table.reshape(-1, 4)
    at, pitch, start, end = table[np.lexsort((table[:, 1], table[:, 0]))].T
    link = np.rint(np.diff(at, append=at[-1:]) / ONSET_SECONDS).astype(np.int64)
    return Line(piece, None, pitch.astype(np.int64), np.zeros((len(at), 0), dtype=np.int64), link, start, end)


def _chorale_runs(query: np.ndarray, corpus_pieces: Iterable[Any]) -> dict[str, dict[str, Any]]:
    corpus = list(_materials(corpus_pieces, chorale.decode))
    voices = [line for name, grid in corpus for line in voice_lines(grid, name)]
    chords = [chord_line(grid, name) for name, grid in corpus]
    own, own_chords = voice_lines(query), [chord_line(query)]
    return {
        "exact": _run(own, voices, _exact_columns, "bars"),
        "transposed": _run(own, voices, _transposed_columns, "bars"),
        "chords_exact": _run(own_chords, chords, _exact_columns, "bars", "length_chords"),
        "chords_transposed": _run(own_chords, chords, _transposed_columns, "bars", "length_chords"),
    }


def _performance_runs(query: Sequence[Note], corpus_pieces: Iterable[Any]) -> dict[str, dict[str, Any]]:
    lines = [performance_line(notes, name) for name, notes in _materials(corpus_pieces, performance.decode)]
    own = [performance_line(query)]
    return {
        "exact": _run(own, lines, _exact_columns, "seconds"),
        "transposed": _run(own, lines, _transposed_columns, "seconds"),
        "pitches": _run(own, lines, _interval_columns, "seconds"),
    }


def _materials(pieces: Iterable[Any], decode: Callable[[np.ndarray], Any]) -> Iterable[tuple[str, Any]]:
    for piece in pieces:
        yield piece if isinstance(piece, tuple) else (piece.name, decode(piece.variants[len(piece.variants) // 2]))


def _stretches(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The maximal stretches of equal rows of (T, V): their rows (E, V), first steps (E,) and ends (E,), exclusive."""
    columns = np.asarray(columns).astype(np.int64)
    changes = (columns[1:] != columns[:-1]).any(axis=1)
    start = np.flatnonzero(np.concatenate([[True], changes])) if len(columns) else np.zeros(0, dtype=np.int64)
    return columns[start], start, np.append(start[1:], [len(columns)])[: len(start)]


def _gaps(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return np.append(start[1:], end[-1:]) - end


# What two neighbours must have in common to stand in one run, as columns over the E - 1 pairs of neighbours. A run of
# n notes is a run of n - 1 such pairs, so the way into the first note and out of the last one does not matter.


def _interval_columns(line: Line) -> list[np.ndarray]:
    return [np.diff(line.pitch)]


def _transposed_columns(line: Line) -> list[np.ndarray]:
    return [np.diff(line.pitch), line.link[:-1], *line.shape[:-1].T, *line.shape[1:].T]


def _exact_columns(line: Line) -> list[np.ndarray]:
    return [line.pitch[:-1], *_transposed_columns(line)]


def _run(
    query: list[Line],
    corpus: list[Line],
    columns: Callable[[Line], list[np.ndarray]],
    unit: str,
    name: str = "length_notes",
) -> dict[str, Any]:
    """The longest common run as the dict that `longest_shared_run` describes."""
    keys = ("seconds_or_bars", "piece", "transposition", "source_bar", "query_bar", "source_second", "query_second")
    run: dict[str, Any] = {name: 0, **dict.fromkeys((*keys, "source_voice", "query_voice"))}
    pairs, (own, at), (other, start) = longest_common_run(
        [columns(line) for line in query], [columns(line) for line in corpus]
    )
    if pairs == 0:
        return run
    mine, source = query[own], corpus[other]
    lasts = float(mine.end[at : at + pairs + 1].max() - mine.start[at])
    run |= {
        name: pairs + 1,
        "piece": source.piece,
        "transposition": int(mine.pitch[at] - source.pitch[start]),
        "source_voice": source.voice,
        "query_voice": mine.voice,
    }
    if unit == "bars":
        bars = {"source_bar": source.start[start], "query_bar": mine.start[at]}
        run |= {"seconds_or_bars": lasts / STEPS_PER_BAR, **{k: int(v) // STEPS_PER_BAR + 1 for k, v in bars.items()}}
    else:
        seconds = {"source_second": source.start[start], "query_second": mine.start[at]}
        run |= {"seconds_or_bars": lasts, **{key: round(float(value), 3) for key, value in seconds.items()}}
    return run


def _sentence(run: dict[str, Any], unit: str) -> str:
    chords = "length_chords" in run
    length = run["length_chords"] if chords else run["length_notes"]
    if length == 0:
        return f"no two {'chords' if chords else 'notes'} in a row are shared."
    place = "bar {} of {}{}, here from bar {}{}" if unit == "bars" else "second {} of {}{}, here from second {}{}"
    where = place.format(
        run["source_bar"] if unit == "bars" else run["source_second"],
        run["piece"],
        f" ({run['source_voice']})" if run["source_voice"] else "",
        run["query_bar"] if unit == "bars" else run["query_second"],
        f" ({run['query_voice']})" if run["query_voice"] else "",
    )
    shift = f", {run['transposition']:+d} semitones" if run["transposition"] else ""
    lasts = f"{run['seconds_or_bars']:.2f}".rstrip("0").rstrip(".")
    unit = unit[:-1] if lasts == "1" else unit
    return f"{length} {'chords' if chords else 'notes'} ({lasts} {unit}) from {where}{shift}."
