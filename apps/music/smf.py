"""Standard MIDI files as plain numbers: a strict reader that says what is wrong and never crashes.

Ours, because symusic ends the process (segmentation fault) on damaged bytes, and pretty_midi takes seconds for a long
performance. Every index is checked before it is used; whatever does not fit raises `MidiError`.

Reference: Standard MIDI Files 1.0, RP-001 (MIDI Manufacturers Association, 1996).
"""

from dataclasses import dataclass, field

import numpy as np

DEFAULT_TEMPO = 500_000  # microseconds a quarter, until the file says otherwise
DRUM_CHANNEL = 9
SUSTAIN = 64


class MidiError(ValueError):
    """The bytes are no MIDI file that can be used; the message is one line without the file's name."""


@dataclass
class Part:
    """What one channel of one track plays with one program. `notes`: (start tick, end tick, pitch, velocity)."""

    name: str
    channel: int
    program: int
    notes: list[tuple[int, int, int, int]] = field(default_factory=list)
    pedal: list[tuple[int, int]] = field(default_factory=list)  # (tick, value) of the sustain pedal on this channel
    end: int = 0  # tick at which the track ends


@dataclass
class Smf:
    """A whole file. `tempos`: (tick, microseconds a quarter), ordered. `ticks_per_second` only for SMPTE time."""

    ticks_per_quarter: int
    parts: list[Part]
    tempos: list[tuple[int, int]]
    ticks_per_second: float | None = None

    def seconds(self, ticks: np.ndarray) -> np.ndarray:
        """Ticks (N,) as seconds (N,)."""
        ticks = np.asarray(ticks, dtype=float)
        if self.ticks_per_second is not None:
            return ticks / self.ticks_per_second
        at = np.array([tick for tick, _ in self.tempos], dtype=float)
        rate = np.array([tempo for _, tempo in self.tempos], dtype=float) / 1e6 / self.ticks_per_quarter
        reached = np.concatenate([[0.0], np.cumsum(np.diff(at) * rate[:-1])])
        index = np.searchsorted(at, ticks, side="right") - 1
        return reached[index] + (ticks - at[index]) * rate[index]

    def quarters(self, ticks: np.ndarray) -> np.ndarray:
        """Ticks (N,) as quarter notes (N,); a file in SMPTE time has no beats and is taken at 120 a minute."""
        ticks = np.asarray(ticks, dtype=float)
        return ticks / self.ticks_per_quarter if self.ticks_per_second is None else self.seconds(ticks) * 2


def check_header(head: bytes) -> None:
    """MidiError unless `head`, the first 14 bytes of a file, begin a type-0 or type-1 MIDI file."""
    if head[:4] != b"MThd":
        raise MidiError("is not a MIDI file; give a .mid file")
    if len(head) < 14:
        raise MidiError("is truncated in its header; get a whole copy")
    kind = int.from_bytes(head[8:10])
    if kind == 2:
        raise MidiError("is a type-2 MIDI file (separate songs in one file); save it as type 0 or 1")
    if kind > 2 or int.from_bytes(head[4:8]) < 6:
        raise MidiError("has a damaged MIDI header; get another copy")


def parse(data: bytes) -> Smf:
    """The bytes of a type-0 or type-1 file. Parts without notes are left out. Raises MidiError, nothing else."""
    check_header(data[:14])
    count, division = int.from_bytes(data[10:12]), int.from_bytes(data[12:14])
    ticks_per_second = None
    if division & 0x8000:
        frames, ticks = 256 - (division >> 8), division & 0xFF
        ticks_per_second = (30000 / 1001 if frames == 29 else float(frames)) * ticks
    if not division or ticks_per_second == 0:
        raise MidiError("has a time division of 0; get another copy")
    tempos: list[tuple[int, int]] = []
    parts: list[Part] = []
    position = 8 + int.from_bytes(data[4:8])
    found = 0
    while found < count:
        if position + 8 > len(data):
            raise MidiError(f"is truncated: {found} of its {count} tracks are there; get a whole copy")
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8])
        position += 8
        if position + length > len(data):
            raise MidiError(f"is truncated in track {found + 1} of {count}; get a whole copy")
        if kind == b"MTrk":  # other chunks are to be skipped, says the standard
            found += 1
            parts.extend(_track(data[position : position + length], found, tempos))
        position += length
    # The sort is stable: of several tempos at one tick the last one counts, and the one at 0 replaces the default.
    tempos = sorted([(0, DEFAULT_TEMPO), *tempos], key=lambda tempo: tempo[0])
    return Smf(division, [part for part in parts if part.notes], tempos, ticks_per_second)


def _track(data: bytes, number: int, tempos: list[tuple[int, int]]) -> list[Part]:
    try:
        return _read_events(data, tempos)
    except IndexError:  # an event that goes on past the end of its track
        raise MidiError(f"is damaged: track {number} ends within an event; get another copy") from None
    except MidiError as error:
        raise MidiError(f"is damaged: {error} in track {number}; get another copy") from None


def _read_events(data: bytes, tempos: list[tuple[int, int]]) -> list[Part]:
    """The parts of one track in order of their first note; its tempos go into `tempos`.

    A note-off ends every note of its pitch that began before it, and one that began on the same tick only when there is
    no other. Notes without a note-off end with the track.
    """
    parts: dict[tuple[int, int], Part] = {}
    pedals: dict[int, list[tuple[int, int]]] = {}
    programs = [0] * 16
    sounding: dict[tuple[int, int], list[tuple[int, int, Part]]] = {}  # (channel, pitch) -> (tick, velocity, part)
    name = ""
    tick, position, running, size = 0, 0, 0, len(data)
    while position < size:
        delta, position = _variable_length(data, position)
        tick += delta
        status = data[position]
        if status >= 0x80:
            position += 1
        elif running:
            status = running
        else:
            raise MidiError("a data byte where an event should begin")
        kind, channel = status & 0xF0, status & 0x0F
        if kind == 0xF0:
            meta = -1
            if status == 0xFF:
                meta = data[position]
                position += 1
            elif status not in (0xF0, 0xF7):
                raise MidiError(f"the event {status:#x}, which files do not hold,")
            length, position = _variable_length(data, position)
            if position + length > size:
                raise IndexError
            if meta == 0x2F:
                break
            if meta == 0x51 and length == 3:
                tempo = int.from_bytes(data[position : position + 3])
                if not tempo:
                    raise MidiError("a tempo of 0")
                tempos.append((tick, tempo))
            elif meta == 0x03 and not name:
                name = _text(data[position : position + length])
            position += length
            continue  # the running status stays: the standard ends it here, but some programs write on with it
        running = status
        first = data[position]
        second = 0
        position += 1
        if kind not in (0xC0, 0xD0):
            second = data[position]
            position += 1
        if first >= 0x80 or second >= 0x80:
            raise MidiError("an event within another event")
        if kind == 0x90 and second:
            program = programs[channel]
            part = parts.setdefault((channel, program), Part("", channel, program))
            sounding.setdefault((channel, first), []).append((tick, second, part))
        elif kind in (0x80, 0x90):
            _stop(sounding, (channel, first), tick)
        elif kind == 0xC0:
            programs[channel] = first
        elif kind == 0xB0 and first == SUSTAIN:
            pedals.setdefault(channel, []).append((tick, second))
    for channel, pitch in sounding:
        for start, velocity, part in sounding[channel, pitch]:
            part.notes.append((start, tick, pitch, velocity))
    for part in parts.values():
        part.name, part.end, part.pedal = name, tick, pedals.get(part.channel, [])
        part.notes.sort(key=lambda note: (note[0], note[2]))
    return list(parts.values())


def _stop(sounding: dict[tuple[int, int], list[tuple[int, int, Part]]], key: tuple[int, int], tick: int) -> None:
    open_notes = sounding.get(key)
    if not open_notes:
        return
    if len(open_notes) == 1 or open_notes[0][0] == tick:
        ended, sounding[key] = open_notes, []
    else:
        ended = [note for note in open_notes if note[0] < tick]
        sounding[key] = [note for note in open_notes if note[0] == tick]
    for start, velocity, part in ended:
        part.notes.append((start, tick, key[1], velocity))


def _variable_length(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    value = byte & 0x7F
    start = position
    while byte & 0x80:
        position += 1
        if position - start == 4:
            raise MidiError("a number of more than four bytes")
        byte = data[position]
        value = value << 7 | byte & 0x7F
    return value, position + 1


def _text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
