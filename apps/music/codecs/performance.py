"""Expressive performances as tokens: note-on, note-off, time shift of 10 ms to 1 s, velocity in 32 bins.

The codec is lossless up to its grid: `decode(encode(notes)) == quantise(notes)`, and `encode(decode(tokens)) == tokens`
for every sequence that `encode` or the grammar can make (but for shifts after the last note, which carry no note).

The canonical order, so that one performance has one encoding: time goes on by the largest shifts first; at an instant
come the note-offs in ascending pitch, then the note-ons in ascending pitch, each after a velocity token where the bin
differs from the one before.

Reference: Oore et al., This Time with Feeling, arXiv 1808.03715; Huang et al., Music Transformer, arXiv 1809.04281
(data representation).
"""

import math
from collections.abc import Iterable

import numpy as np

from apps.music.codecs.performance_grammar import Grammar
from apps.music.codecs.performance_tokens import (
    BIN_WIDTH,
    BOS,
    EOS,
    MAX_SHIFT,
    NOTE_OFF,
    NOTE_ON,
    PAD,
    PITCHES,
    SHIFT,
    STEPS_PER_SECOND,
    VELOCITY,
    VELOCITY_BINS,
    VOCAB_SIZE,
)
from apps.music.notes import Note

__all__ = [
    "BOS",
    "EOS",
    "MAX_SHIFT",
    "NAME",
    "NOTE_OFF",
    "NOTE_ON",
    "PAD",
    "SHIFT",
    "STEPS_PER_SECOND",
    "VELOCITY",
    "VELOCITY_BINS",
    "VOCAB_SIZE",
    "Grammar",
    "clock_of",
    "decode",
    "encode",
    "quantise",
    "transpose",
    "transposition_range",
]

NAME = "performance"


def encode(notes: Iterable[Note]) -> np.ndarray:
    """Notes as tokens, without specials: (N,) int16. Time starts at 0 s; silence after the last note is not kept.

    See `quantise` for what happens to notes off the grid and to overlaps. ValueError for a pitch outside 0-127, a
    velocity outside 1-127, a start before 0 s, an end before the start, or a time that is not finite.
    """
    events: list[
        tuple[int, int, int, int]
    ] = []  # (step, 0 off | 1 on, pitch, bin): sorted, this is the canonical order
    for start, end, pitch, velocity_bin in _on_grid(notes):
        events.append((start, 1, pitch, velocity_bin))
        events.append((end, 0, pitch, 0))
    events.sort()
    tokens: list[int] = []
    now, current_bin = 0, -1
    for step, is_on, pitch, velocity_bin in events:
        gap = step - now
        if gap:
            tokens.extend([SHIFT + MAX_SHIFT - 1] * (gap // MAX_SHIFT))
            if gap % MAX_SHIFT:
                tokens.append(SHIFT + gap % MAX_SHIFT - 1)
            now = step
        if not is_on:
            tokens.append(NOTE_OFF + pitch)
            continue
        if velocity_bin != current_bin:
            tokens.append(VELOCITY + velocity_bin)
            current_bin = velocity_bin
        tokens.append(NOTE_ON + pitch)
    return np.array(tokens, dtype=np.int16)


def decode(tokens: np.ndarray) -> list[Note]:
    """Tokens (N,) as notes, ordered by start and pitch; specials are ignored and any sequence decodes.

    A note-on of a sounding pitch ends the note before it, a note-off of a silent pitch does nothing, notes that still
    sound at the end stop there, a note of no length gets one step of 10 ms, and a note-on before any velocity token
    takes the middle bin.
    """
    notes: list[tuple[int, int, int, int]] = []
    sounding: dict[int, tuple[int, int]] = {}
    now, velocity_bin = 0, VELOCITY_BINS // 2

    def stop(pitch: int) -> None:
        start, bin_ = sounding.pop(pitch)
        notes.append((start, max(now, start + 1), pitch, bin_))

    for token in np.asarray(tokens).reshape(-1).tolist():
        if token < NOTE_OFF:
            if token in sounding:
                stop(token)
            sounding[token] = (now, velocity_bin)
        elif token < SHIFT:
            if token - NOTE_OFF in sounding:
                stop(token - NOTE_OFF)
        elif token < VELOCITY:
            now += token - SHIFT + 1
        elif token < PAD:
            velocity_bin = token - VELOCITY
    for pitch in list(sounding):
        stop(pitch)
    return _to_notes(notes)


def clock_of(tokens: np.ndarray, axis: int = 0) -> np.ndarray:
    """Tokens (N,) or of more axes -> int64 alike: the time after each along `axis`, in steps of 10 ms."""
    tokens = np.asarray(tokens, dtype=np.int64)
    return np.where((tokens >= SHIFT) & (tokens < VELOCITY), tokens - SHIFT + 1, 0).cumsum(axis)


def quantise(notes: Iterable[Note]) -> list[Note]:
    """The notes as the codec keeps them, ordered by start and pitch. Raises as `encode` does.

    Times go to the nearest 10 ms (halves up), velocities to the middle of their bin of 4, and a note has at least one
    step. Overlaps of one pitch: notes that start on the same step become one, as long and as loud as the longest and
    the loudest of them; else a new onset ends the note before it.
    """
    return _to_notes(_on_grid(notes))


def transpose(tokens: np.ndarray, semitones: int) -> np.ndarray | None:
    """The tokens moved by `semitones`, or None when a note would leave MIDI's pitches.

    Shape: tokens (N,) -> (N,) int16, still in canonical order.
    """
    tokens = np.asarray(tokens)
    low, high = transposition_range(tokens)
    if not low <= semitones <= high:
        return None
    return np.where(tokens < SHIFT, tokens + semitones, tokens).astype(np.int16)


def transposition_range(tokens: np.ndarray) -> tuple[int, int]:
    """The lowest and the highest shift in semitones that keep all notes within MIDI's pitches; both ends are allowed.

    (0, 0) for a piece without notes.
    """
    tokens = np.asarray(tokens)
    used = tokens[tokens < SHIFT] % NOTE_OFF
    if not used.size:
        return 0, 0
    return -int(used.min()), int(PITCHES - 1 - used.max())


def _to_notes(grid_notes: Iterable[tuple[int, int, int, int]]) -> list[Note]:
    return [
        Note(start / STEPS_PER_SECOND, end / STEPS_PER_SECOND, pitch, velocity_bin * BIN_WIDTH + BIN_WIDTH // 2)
        for start, end, pitch, velocity_bin in sorted(grid_notes, key=lambda note: (note[0], note[2]))
    ]


def _on_grid(notes: Iterable[Note]) -> list[tuple[int, int, int, int]]:
    """(start step, end step, pitch, velocity bin), overlaps resolved by the rule that `quantise` states."""
    merged: dict[tuple[int, int], tuple[int, int]] = {}  # (pitch, start) -> (end, bin)
    for note in notes:
        _check(note)
        start, end = _step(note.start), _step(note.end)
        end = max(end, start + 1)
        velocity_bin = int(note.velocity) // BIN_WIDTH
        before_end, before_bin = merged.get((int(note.pitch), start), (end, velocity_bin))
        merged[int(note.pitch), start] = (max(end, before_end), max(velocity_bin, before_bin))
    result = []
    later_pitch, later_start = -1, 0
    for pitch, start in sorted(merged, reverse=True):
        end, velocity_bin = merged[pitch, start]
        if pitch == later_pitch:
            end = min(end, later_start)
        result.append((start, end, pitch, velocity_bin))
        later_pitch, later_start = pitch, start
    return result


def _step(seconds: float) -> int:
    return math.floor(seconds * STEPS_PER_SECOND + 0.5)


def _check(note: Note) -> None:
    if not (math.isfinite(note.start) and math.isfinite(note.end) and 0 <= note.start <= note.end):
        raise ValueError(f"a note's times must be finite, from 0 s on, and in order: {note}")
    if not (0 <= note.pitch < PITCHES and 1 <= note.velocity <= 127):
        raise ValueError(f"a note's pitch lies in 0-127 and its velocity in 1-127: {note}")
