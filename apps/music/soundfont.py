"""Reads SoundFont 2 files: which samples a key of an instrument plays, and how.

Ours, because symusic 0.5.9 plays the wrong pitches with the SoundFont that pretty_midi ships (see its issue 55): it
passes over the root key that a zone sets, by three octaves for some of the piano's keys, and over the velocity.

Reference: SoundFont Technical Specification 2.01, sections 7 (the tables), 8.1 (generators), 9.4 (how zones add up).
Deviations: modulators are not read, apart from the default one from velocity to volume, which `synthesis` applies.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.errors import InputError
from shared.io.files import input_file

DRUM_BANK = 128

# The generators that are used: number in the file -> (name, default). Times are in timecents (1200 log2 seconds),
# pitches and cut-offs in cents, volumes in centibels, sustain of the filter's envelope in per mille below full.
GENERATORS = {
    0: ("start", 0),
    1: ("end", 0),
    2: ("loop_start", 0),
    3: ("loop_end", 0),
    4: ("start_coarse", 0),
    5: ("slow_lfo_to_pitch", 0),
    6: ("vibrato_to_pitch", 0),
    7: ("envelope_to_pitch", 0),
    8: ("cutoff", 13500),
    9: ("resonance", 0),
    11: ("envelope_to_cutoff", 0),
    12: ("end_coarse", 0),
    17: ("pan", 0),
    21: ("slow_lfo_delay", -12000),
    22: ("slow_lfo_frequency", 0),
    23: ("vibrato_delay", -12000),
    24: ("vibrato_frequency", 0),
    25: ("tone_delay", -12000),
    26: ("tone_attack", -12000),
    27: ("tone_hold", -12000),
    28: ("tone_decay", -12000),
    29: ("tone_sustain", 0),
    31: ("tone_hold_by_key", 0),
    32: ("tone_decay_by_key", 0),
    33: ("volume_delay", -12000),
    34: ("volume_attack", -12000),
    35: ("volume_hold", -12000),
    36: ("volume_decay", -12000),
    37: ("volume_sustain", 0),
    38: ("volume_release", -12000),
    39: ("volume_hold_by_key", 0),
    40: ("volume_decay_by_key", 0),
    45: ("loop_start_coarse", 0),
    48: ("attenuation", 0),
    50: ("loop_end_coarse", 0),
    51: ("coarse_tune", 0),
    52: ("fine_tune", 0),
    54: ("sample_mode", 0),
    56: ("scale_tuning", 100),
    58: ("root_key", -1),
}
_INSTRUMENT, _KEYS, _VELOCITIES, _SAMPLE = 41, 43, 44, 53
# A preset adds to what the instrument says, but for these, which belong to the sample.
_NOT_IN_PRESETS = {0, 1, 2, 3, 4, 12, 45, 50, 54, 58}

_TABLES = {
    "phdr": [("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("rest", "<u4", (3,))],
    "pbag": [("generator", "<u2"), ("modulator", "<u2")],
    "pgen": [("kind", "<u2"), ("amount", "<i2")],
    "inst": [("name", "S20"), ("bag", "<u2")],
    "ibag": [("generator", "<u2"), ("modulator", "<u2")],
    "igen": [("kind", "<u2"), ("amount", "<i2")],
    "shdr": [
        *(("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop_start", "<u4"), ("loop_end", "<u4")),
        *(("rate", "<u4"), ("root", "u1"), ("correction", "i1"), ("link", "<u2"), ("type", "<u2")),
    ],
}
_ROM, _COMPRESSED = 0x8000, 0x10


class Zone(NamedTuple):
    """One sample under a range of keys and velocities, both inclusive; `amounts` by the names in `GENERATORS`.

    start, end, loop_start, loop_end are positions in the font's samples; root is the key at which the sample sounds as
    recorded, tune what is to be added to it in cents, rate the sample's rate in Hz.
    """

    keys: tuple[int, int]
    velocities: tuple[int, int]
    start: int
    end: int
    loop_start: int
    loop_end: int
    loops: bool
    rate: int
    root: int
    tune: int
    amounts: dict[str, int]


class SoundFont(NamedTuple):
    """samples (N,) int16 of all sounds; tables as in the file; presets (bank, program) -> row of the table `phdr`."""

    path: Path
    samples: np.ndarray
    tables: dict[str, np.ndarray]
    presets: dict[tuple[int, int], int]


def read_soundfont(path: Path | str) -> SoundFont:
    """Read a .sf2 file. Raises InputError, one line, when it is missing, empty, not a SoundFont, cut off or damaged."""
    path = input_file(path)
    data = path.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
        raise InputError(f"{path}: is not a SoundFont; give an .sf2 file")
    chunks = _chunks(data)
    missing = [name for name in ("smpl", *_TABLES) if name not in chunks]
    if missing:
        raise InputError(f"{path}: is cut off or damaged (no {missing[0]} table); get another copy")
    tables = {}
    for name, columns in _TABLES.items():
        row = np.dtype(columns)
        if len(chunks[name]) % row.itemsize or len(chunks[name]) < 2 * row.itemsize:
            raise InputError(f"{path}: is damaged (table {name}); get another copy")
        tables[name] = np.frombuffer(chunks[name], dtype=row)
    if (tables["shdr"]["type"] & _COMPRESSED).any():
        raise InputError(f"{path}: holds compressed samples (SF3); give an .sf2 file")
    samples = np.frombuffer(chunks["smpl"][: len(chunks["smpl"]) // 2 * 2], dtype="<i2")
    presets = {(int(row["bank"]), int(row["program"])): index for index, row in enumerate(tables["phdr"][:-1])}
    return SoundFont(path, samples, tables, presets)


def preset_zones(font: SoundFont, program: int, is_drum: bool = False) -> list[Zone]:
    """The zones of a General MIDI program 0-127, or of a drum kit.

    A font that lacks it gives its program 0 instead, and if that is missing, its first. Raises InputError when the
    font's tables point beyond their ends.
    """
    wanted = [(DRUM_BANK, program), (DRUM_BANK, 0)] if is_drum else [(0, program), (0, 0)]
    row = next((font.presets[key] for key in wanted if key in font.presets), min(font.presets.values()))
    try:
        zones = []
        for preset in _bags(font, "phdr", row, "pbag", "pgen", _INSTRUMENT):
            for instrument in _bags(font, "inst", preset[_INSTRUMENT], "ibag", "igen", _SAMPLE):
                zone = _zone(font, preset, instrument)
                if zone is not None:
                    zones.append(zone)
        return zones
    except IndexError:
        raise InputError(f"{font.path}: is damaged (its tables point beyond their ends); get another copy") from None


def _chunks(data: bytes) -> dict[str, memoryview]:
    """The leaves of a RIFF file by name; a chunk that goes beyond the file's end is left out."""
    leaves: dict[str, memoryview] = {}
    spans = [(12, len(data))]
    while spans:
        at, end = spans.pop()
        while at + 8 <= end:
            name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
            if at + 8 + size > end:
                break
            if name == b"LIST":
                spans.append((at + 12, at + 8 + size))
            else:
                leaves[name.decode("latin-1")] = memoryview(data)[at + 8 : at + 8 + size]
            at += 8 + size + size % 2
    return leaves


def _bags(font: SoundFont, owners: str, row: int, bags: str, generators: str, last: int) -> list[dict[int, int]]:
    """The generators of each zone of a preset or an instrument, over those of its global zone.

    A zone that ends in no `last` generator (an instrument, a sample) is the global one when it comes first.
    """
    owner, bag, table = font.tables[owners], font.tables[bags], font.tables[generators]
    if row < 0:
        raise IndexError
    zones: list[dict[int, int]] = []
    shared: dict[int, int] = {}
    for index in range(int(owner[row]["bag"]), int(owner[row + 1]["bag"])):
        span = table[int(bag[index]["generator"]) : int(bag[index + 1]["generator"])]
        own = dict(zip(span["kind"].tolist(), span["amount"].tolist(), strict=True))
        if last in own:
            zones.append(shared | own)
        elif index == int(owner[row]["bag"]):
            shared = own
    return zones


def _zone(font: SoundFont, preset: dict[int, int], instrument: dict[int, int]) -> Zone | None:
    """The zone where a preset's and an instrument's zone meet, or None when they do not or have no sample to play."""
    keys, velocities = (_meet(preset.get(kind), instrument.get(kind)) for kind in (_KEYS, _VELOCITIES))
    sample = _sample(font, instrument[_SAMPLE])
    if keys is None or velocities is None or sample is None:
        return None
    amounts = {}
    for kind, (name, default) in GENERATORS.items():
        amounts[name] = instrument.get(kind, default) + (0 if kind in _NOT_IN_PRESETS else preset.get(kind, 0))
    start = int(sample["start"]) + amounts["start"] + 32768 * amounts["start_coarse"]
    end = int(sample["end"]) + amounts["end"] + 32768 * amounts["end_coarse"]
    loop_start = int(sample["loop_start"]) + amounts["loop_start"] + 32768 * amounts["loop_start_coarse"]
    loop_end = int(sample["loop_end"]) + amounts["loop_end"] + 32768 * amounts["loop_end_coarse"]
    start, end = max(start, 0), min(end, len(font.samples))
    if end - start < 2 or not 0 < int(sample["rate"]) <= 400_000:
        return None
    loops = amounts["sample_mode"] in (1, 3) and start <= loop_start < loop_end <= end
    header_root = int(sample["root"]) if int(sample["root"]) <= 127 else 60  # 255: a sound without a pitch
    root = amounts["root_key"] if 0 <= amounts["root_key"] <= 127 else header_root
    tune = 100 * amounts["coarse_tune"] + amounts["fine_tune"] + int(sample["correction"])
    place = (start, end, loop_start, loop_end, loops)
    return Zone(keys, velocities, *place, int(sample["rate"]), root, tune, amounts)


def _sample(font: SoundFont, index: int) -> Any:
    headers = font.tables["shdr"]
    if not 0 <= index < len(headers) - 1:
        raise IndexError
    return None if headers[index]["type"] & _ROM else headers[index]


def _meet(*ranges: int | None) -> tuple[int, int] | None:
    """The intersection of ranges that are packed as low byte, high byte; None when it is empty."""
    low, high = 0, 127
    for packed in ranges:
        if packed is not None:
            low, high = max(low, packed & 255), min(high, packed >> 8 & 255)
    return (low, high) if low <= high else None
