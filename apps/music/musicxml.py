"""A chorale as a score that notation programs open: four staves, bars of 4/4, ties, a key signature."""

from pathlib import Path
from typing import Any

import numpy as np

from apps.music.codecs.chorale_tokens import STEPS_PER_BAR, STEPS_PER_BEAT, VOICES
from apps.music.midi import CHOIR, held_notes
from shared.errors import InputError
from shared.io.files import replacing

# Durations in sixteenths that one note with at most one dot can have.
_WRITABLE = (16, 12, 8, 6, 4, 3, 2, 1)
_CLEFS = {"Soprano": "TrebleClef", "Alto": "TrebleClef", "Tenor": "Treble8vbClef", "Bass": "BassClef"}
# Names in the order of fifths: F C G D A E B, then the same with a sharp; to the left with flats ("-" in music21).
_LETTERS = "FCGDAEB"


def write_musicxml(
    path: Path | str, grid: np.ndarray, title: str, tempo: float | None = None, attacks: np.ndarray | None = None
) -> None:
    """Write a chorale grid (T, 4), MIDI pitches on the sixteenth grid, -1 for silence, as MusicXML.

    Held pitches become one note (in the grid alone a repeated note is not told from a held one; `attacks`, at most
    (T, 4) bool, says where one begins anew), split and tied where bars and beats ask for it; the last bar is filled up
    with rests. The key signature is the most likely one by music21's key analysis, and notes are spelt to suit it.
    tempo: quarters a minute, printed when given.
    Raises InputError when the grid has no note, ValueError when its shape is another.
    """
    grid = np.asarray(grid)
    if grid.ndim != 2 or grid.shape[1] != len(VOICES):
        raise ValueError(f"a chorale grid has the shape (steps, 4), not {grid.shape}")
    if not (grid >= 0).any():
        raise InputError(f"{path}: the piece holds no notes; nothing to write as a score")
    from music21 import metadata, musicxml, stream
    from music21.tempo import MetronomeMark

    score = stream.Score()
    score.metadata = metadata.Metadata(title=title, composer="Manyheads")
    sharps = _sharps(grid)
    for voice, name in enumerate(VOICES):
        part = _part(grid[:, voice], None if attacks is None else attacks[:, voice], name, sharps)
        if voice == 0 and tempo is not None:
            part.getElementsByClass("Measure")[0].insert(0, MetronomeMark(number=tempo))
        score.insert(0, part)
    xml = musicxml.m21ToXml.GeneralObjectExporter(score).parse()
    with replacing(path) as partial:
        partial.write_bytes(xml)


def written_lengths(start: int, length: int) -> list[int]:
    """The lengths of the tied notes that write a note of `length` sixteenths from step `start` on.

    No length crosses a bar line, each can be written with at most one dot, and what begins off the beat stops at the
    next one, but for a quarter or a dotted quarter from the second eighth of a beat.
    """
    lengths = []
    while length:
        in_bar, in_beat = start % STEPS_PER_BAR, start % STEPS_PER_BEAT
        room = min(length, STEPS_PER_BAR - in_bar)
        syncope = in_beat == 2 and room in (4, 6)
        if in_beat and not syncope:
            room = min(room, STEPS_PER_BEAT - in_beat)
        taken = next(size for size in _WRITABLE if size <= room)
        lengths.append(taken)
        start, length = start + taken, length - taken
    return lengths


def spelt(pitch: int, sharps: int) -> tuple[str, int]:
    """A MIDI pitch as music21 names it ("B-" or "C#") and its octave, in a key of `sharps` (flats below zero).

    Of the twelve fifths from three below the major tonic (flat third) to eight above it (sharp fifth, which is the
    minor key's leading note) each pitch class has one name.
    """
    lowest = sharps - 3  # on the line of fifths, with C at 0
    place = lowest + (pitch * 7 - lowest) % 12
    letter, accidental = _LETTERS[(place + 1) % 7], (place + 1) // 7
    octave = (pitch - accidental) // 12 - 1
    return letter + ("#" * accidental if accidental > 0 else "-" * -accidental), octave


def _sharps(grid: np.ndarray) -> int:
    from music21 import note, stream

    notes = stream.Stream()
    for voice in range(grid.shape[1]):
        for start, length, pitch in held_notes(grid[:, voice]):
            if pitch >= 0:
                notes.insert(start / STEPS_PER_BEAT, note.Note(pitch, quarterLength=length / STEPS_PER_BEAT))
    likely: Any = notes.analyze("key")
    return likely.sharps


def _note(pitch: int, sharps: int) -> Any:
    from music21.note import Note
    from music21.pitch import Pitch

    name, octave = spelt(pitch, sharps)
    return Note(Pitch(name, octave=octave))


def _part(row: np.ndarray, attacks: np.ndarray | None, name: str, sharps: int) -> Any:
    from music21 import clef, instrument, key, meter, note, stream, tie

    bars = -(-len(row) // STEPS_PER_BAR)
    measures = [stream.Measure(number=bar + 1) for bar in range(bars)]
    measures[0].append([getattr(clef, _CLEFS[name])(), key.KeySignature(sharps), meter.TimeSignature("4/4")])
    padded = np.full(bars * STEPS_PER_BAR, -1, dtype=np.int64)
    padded[: len(row)] = row
    for start, length, pitch in held_notes(padded, attacks):
        lengths = written_lengths(start, length)
        for index, size in enumerate(lengths):
            written = _note(pitch, sharps) if pitch >= 0 else note.Rest()
            written.quarterLength = size / STEPS_PER_BEAT
            if pitch >= 0 and len(lengths) > 1:
                written.tie = tie.Tie("start" if index == 0 else "stop" if index == len(lengths) - 1 else "continue")
            measures[start // STEPS_PER_BAR].insert(start % STEPS_PER_BAR / STEPS_PER_BEAT, written)
            start += size
    part = stream.Part(id=name)
    part.partName, part.partAbbreviation = name, name[0]
    singer = getattr(instrument, name)()
    singer.partId, singer.instrumentId = name, f"{name}-1"  # else random ones, and no two files alike
    singer.midiProgram = CHOIR
    part.append([singer, *measures])
    measures[-1].rightBarline = "final"
    part.makeBeams(inPlace=True)
    part.makeAccidentals(inPlace=True)
    return part
