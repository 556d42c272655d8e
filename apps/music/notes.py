"""A note in seconds, and what a pitch is called: what codecs, MIDI files, pictures and messages share."""

from typing import NamedTuple

PITCH_CLASSES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


class Note(NamedTuple):
    """One note: `start` and `end` in seconds, MIDI `pitch` 0-127, MIDI `velocity` 1-127."""

    start: float
    end: float
    pitch: int
    velocity: int


def pitch_name(pitch: int) -> str:
    """A MIDI pitch as musicians call it, middle C (60) being C4."""
    return f"{PITCH_CLASSES[pitch % 12]}{pitch // 12 - 1}"
