"""A note in seconds: what the performance codec, the MIDI files and the pictures share."""

from typing import NamedTuple


class Note(NamedTuple):
    """One note: `start` and `end` in seconds, MIDI `pitch` 0-127, MIDI `velocity` 1-127."""

    start: float
    end: float
    pitch: int
    velocity: int
