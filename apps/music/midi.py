"""MIDI files in and out: tracks, notes with the sustain pedal applied, and four-part grids of 16ths."""

from bisect import bisect_left, bisect_right
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apps.music.codecs.chorale_tokens import VOICES
from apps.music.notes import Note
from apps.music.smf import DRUM_CHANNEL, SUSTAIN, MidiError, Part, Smf, check_header, parse
from shared.errors import InputError
from shared.io.files import input_file, replacing

PEDAL_DOWN = 64  # a sustain value from here on holds
LONGEST = 24 * 3600.0  # seconds; a file that claims more is damaged
MOST_STEPS = 200_000  # of a grid: more than three hours of 16ths at 240 quarters a minute
TICKS_PER_QUARTER = 480
MIDDLE_C = 60
CHOIR = 52  # General MIDI program, from 0: "Choir Aahs"


class Track(NamedTuple):
    """One instrument's notes; `program` is the General MIDI program 0-127."""

    name: str
    program: int
    is_drum: bool
    notes: list[Note]


def read_tracks(path: Path | str, pedal: bool = False) -> list[Track]:
    """The tracks that hold notes, split by channel and program, notes ordered by start and pitch, in seconds.

    With `pedal`, the sustain pedal prolongs notes as in `read_notes`. A note without an end lasts to the end of its
    track. Raises InputError, one line: missing, empty, truncated, not MIDI, damaged, type 2, no notes.
    """
    smf = _load(path)
    return [
        Track(part.name, part.program, part.channel == DRUM_CHANNEL, _seconds(smf, part, pedal)) for part in smf.parts
    ]


def read_notes(path: Path | str, pedal: bool = True) -> list[Note]:
    """The notes of all tracks but the drums, ordered by start and pitch, in seconds.

    With `pedal`, a note that ends while the sustain pedal of its track and channel is down (CC64 >= 64, from the tick
    it goes down to the tick before it goes up) lasts until its pitch starts anew there or the pedal goes up; a pedal
    that never goes up does so with the last note-off there. Raises InputError as `read_tracks` does, also for a file
    of drums alone.
    """
    notes = [note for track in read_tracks(path, pedal) if not track.is_drum for note in track.notes]
    if not notes:
        raise InputError(f"{path}: holds drums alone; give a file with pitched notes")
    return sorted(notes, key=lambda note: (note.start, note.pitch, note.end))


def read_tempo(path: Path | str) -> float:
    """The tempo at the file's first note, in quarters a minute. Raises InputError as `read_tracks` does."""
    smf = _load(path)
    if smf.ticks_per_second is not None:
        return 120.0
    first = min(part.notes[0][0] for part in smf.parts)
    return 6e7 / [tempo for tick, tempo in smf.tempos if tick <= first][-1]


def write_midi(path: Path | str, tracks: list[Track], tempo: float = 120.0, seconds: float | None = None) -> None:
    """Write a type-1 file, whole or not at all; `tempo` in quarters a minute only says how the notes are barred.

    `seconds`: how long the file lasts where its last note ends earlier; a pedal-up, which nobody hears, marks the end.
    Times are kept to about a millisecond (480 ticks a quarter). ValueError for notes that MIDI cannot hold.
    """
    import pretty_midi

    song = pretty_midi.PrettyMIDI(initial_tempo=tempo, resolution=TICKS_PER_QUARTER)
    tick = 60.0 / tempo / TICKS_PER_QUARTER
    for track in tracks:
        instrument = pretty_midi.Instrument(int(track.program), bool(track.is_drum), track.name)
        for note in track.notes:
            if not (0 <= note.pitch <= 127 and 1 <= note.velocity <= 127 and 0 <= note.start <= note.end <= LONGEST):
                raise ValueError(f"a MIDI file cannot hold {note}")
            end = max(float(note.end), float(note.start) + tick)
            instrument.notes.append(pretty_midi.Note(int(note.velocity), int(note.pitch), float(note.start), end))
        song.instruments.append(instrument)
    if seconds is not None and song.instruments and song.get_end_time() < seconds:
        song.instruments[0].control_changes.append(pretty_midi.ControlChange(SUSTAIN, 0, float(seconds)))
    with replacing(path) as partial:
        song.write(str(partial))


def read_grid(path: Path | str) -> np.ndarray:
    """A MIDI file as a chorale grid: (T, 4) int16, the pitches of S A T B on each 16th, -1 for silence.

    Onsets and ends go to the nearest 16th of the file's own beats (halves up), a note has at least one; drums and the
    pedal are left out. Which note is whose:
    - tracks named Soprano, Alto, Tenor, Bass (each at most once, no others) are these voices;
    - else four tracks are the voices by mean pitch, high to low;
    - else (fewer, more, or one polyphonic track) the highest note sounding is the soprano's, the lowest the bass's, the
      second from the top the alto's and the second from the bottom the tenor's; of three, the middle one is the alto's
      from middle C up, else the tenor's; of two, S and B; one alone is the soprano's. Others are dropped.
    Where a voice has several notes at once, the highest counts, in the bass the lowest.
    Raises InputError as `read_tracks` does, and for more than 200,000 steps.
    """
    return read_grid_and_attacks(path)[0]


def read_grid_and_attacks(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """The grid of `read_grid`, and (T, 4) bool where a note begins: what tells a repeated note from a held one."""
    smf = _load(path)
    parts = [part for part in smf.parts if part.channel != DRUM_CHANNEL]
    if not parts:
        raise InputError(f"{path}: holds drums alone; give a file with pitched notes")
    rolls = [_steps(smf, part) for part in parts]
    length = max(int(roll[:, 1].max()) for roll in rolls)
    if length > MOST_STEPS:
        raise InputError(f"{path}: is {length:,} sixteenths long, more than {MOST_STEPS:,}; give a shorter piece")
    voices = _voices(parts)
    if voices is None:
        notes = np.concatenate(rolls)
        grid = _skyline(notes, length)
        return grid, np.stack([_attacks(row, notes) for row in grid.T], axis=1)
    grid = np.full((length, len(VOICES)), -1, dtype=np.int16)
    attacks = np.zeros(grid.shape, dtype=bool)
    for voice, index in voices.items():
        # Ascending pitch, so that the highest is written last and stays; in the bass the other way round.
        roll = rolls[index][np.argsort(rolls[index][:, 2], kind="stable")]
        for start, end, pitch in roll[::-1] if voice == len(VOICES) - 1 else roll:
            grid[start:end, voice] = pitch
        attacks[:, voice] = _attacks(grid[:, voice], roll)
    return grid, attacks


def grid_tracks(grid: np.ndarray, tempo: float, velocity: int = 80, attacks: np.ndarray | None = None) -> list[Track]:
    """A chorale grid (T, 4) as four tracks named Soprano, Alto, Tenor, Bass; equal neighbours are one held note.

    A step is a 16th at `tempo` quarters a minute: give the same tempo to `write_midi`. `attacks`, at most (T, 4)
    bool: where a note begins anew though its pitch goes on.
    """
    grid = np.asarray(grid)
    step = 15.0 / tempo
    tracks = []
    for voice, name in enumerate(VOICES):
        notes = [
            Note(start * step, (start + length) * step, pitch, velocity)
            for start, length, pitch in held_notes(grid[:, voice], None if attacks is None else attacks[:, voice])
            if pitch >= 0
        ]
        tracks.append(Track(name, CHOIR, False, notes))
    return tracks


def held_notes(row: np.ndarray, attacks: np.ndarray | None = None) -> list[tuple[int, int, int]]:
    """One voice (T,) as (start, length, pitch) in sixteenths, silences with pitch -1.

    `attacks`, at most (T,) bool: where a note begins anew though its pitch goes on.
    """
    row = np.where(np.asarray(row) < 0, -1, row)
    begins = np.diff(row) != 0
    if attacks is not None:
        begins[: max(0, len(attacks) - 1)] |= attacks[1:]
    borders = [0, *(np.flatnonzero(begins) + 1).tolist(), len(row)]
    return [(a, b - a, int(row[a])) for a, b in pairwise(borders) if a < b]


def _load(path: Path | str) -> Smf:
    path = input_file(path)
    try:
        with open(path, "rb") as file:
            head = file.read(14)
            check_header(head)  # before a film that is called .mid goes into memory
            smf = parse(head + file.read())
    except MidiError as error:
        raise InputError(f"{path}: {error}") from None
    if not smf.parts:
        raise InputError(f"{path}: holds no notes; give a file with notes")
    latest = max(part.end for part in smf.parts)
    if float(smf.seconds(np.array([latest]))[0]) > LONGEST:
        raise InputError(f"{path}: is damaged: claims to last more than {LONGEST / 3600:.0f} hours; get another copy")
    return smf


def _seconds(smf: Smf, part: Part, pedal: bool) -> list[Note]:
    notes = _sustained(part) if pedal and part.pedal else part.notes
    array = np.array(notes, dtype=np.int64)
    starts, ends = smf.seconds(array[:, 0]).tolist(), smf.seconds(array[:, 1]).tolist()
    return [Note(*values) for values in zip(starts, ends, array[:, 2].tolist(), array[:, 3].tolist(), strict=True)]


def _sustained(part: Part) -> list[tuple[int, int, int, int]]:
    downs, ups = _pedal_spans(part)
    onsets: dict[int, list[int]] = {}
    for start, _, pitch, _ in part.notes:
        onsets.setdefault(pitch, []).append(start)
    result = []
    for start, end, pitch, velocity in part.notes:
        span = bisect_right(downs, end) - 1
        if span >= 0 and end < ups[span]:
            line = onsets[pitch]
            after = bisect_left(line, max(end, start + 1))
            end = min(ups[span], line[after]) if after < len(line) else ups[span]
        result.append((start, end, pitch, velocity))
    return result


def _pedal_spans(part: Part) -> tuple[list[int], list[int]]:
    """The ticks at which the pedal goes down and the ticks at which it goes up again."""
    downs: list[int] = []
    ups: list[int] = []
    for tick, value in part.pedal:
        is_down = len(downs) > len(ups)
        if value >= PEDAL_DOWN and not is_down:
            downs.append(tick)
        elif value < PEDAL_DOWN and is_down:
            ups.append(tick)
    return downs, ups if len(ups) == len(downs) else [*ups, max(end for _, end, _, _ in part.notes)]


def _steps(smf: Smf, part: Part) -> np.ndarray:
    """(N, 3): first step, step after the last, pitch."""
    array = np.array(part.notes, dtype=np.int64)
    start, end = (np.floor(smf.quarters(array[:, column]) * 4 + 0.5).astype(np.int64) for column in (0, 1))
    return np.stack([start, np.maximum(end, start + 1), array[:, 2]], axis=1)


def _voices(parts: list[Part]) -> dict[int, int] | None:
    """Voice -> part, or None when the tracks are no voices."""
    names = [part.name.capitalize() for part in parts]
    if set(names) <= set(VOICES) and len(set(names)) == len(names):
        return {VOICES.index(name): index for index, name in enumerate(names)}
    if len(parts) != len(VOICES):
        return None
    means = [float(np.mean([note[2] for note in part.notes])) for part in parts]
    order = sorted(range(len(parts)), key=lambda index: -means[index])
    return dict(enumerate(order))


def _attacks(row: np.ndarray, notes: np.ndarray) -> np.ndarray:
    """(T,) bool: where one of the notes (start, end, pitch) begins that stand in the voice (T,)."""
    begins = np.zeros(len(row), dtype=bool)
    heard = notes[row[notes[:, 0]] == notes[:, 2]]
    begins[heard[:, 0]] = True
    return begins


def _skyline(notes: np.ndarray, length: int) -> np.ndarray:
    sounding = np.zeros((length, 128), dtype=bool)
    for start, end, pitch in notes:
        sounding[start:end, pitch] = True
    grid = np.full((length, len(VOICES)), -1, dtype=np.int16)
    for step in np.flatnonzero(sounding.any(axis=1)):
        pitches = np.flatnonzero(sounding[step])
        grid[step, 0] = pitches[-1]
        if len(pitches) >= 2:
            grid[step, 3] = pitches[0]
        if len(pitches) == 3:
            grid[step, 1 if pitches[1] >= MIDDLE_C else 2] = pitches[1]
        if len(pitches) >= 4:
            grid[step, 1], grid[step, 2] = pitches[-2], pitches[1]
    return grid
