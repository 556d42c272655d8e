"""Plays notes with a SoundFont: samples at their pitch, envelopes, vibrato, low-pass filter, velocity and pan.

Reference: SoundFont Technical Specification 2.01, sections 8.1.2, 8.4.1 (velocity to volume) and 9.1 (the synthesiser).
Deviations: the filter's envelope has no release, a sample that loops until the key is released goes on looping, and
there is no chorus, no reverberation and no controller besides the pedal, which the notes' ends already contain.
Attenuation counts 0.4 times, as on the hardware for which SoundFonts are made.
"""

from collections.abc import Iterable

import numpy as np

from apps.music.midi import Track
from apps.music.soundfont import SoundFont, Zone, preset_zones

PEAK = 0.89  # -1 dBFS
SILENCE = 80.0  # dB below the start of a release at which a note is over
LONGEST_RELEASE = 6.0  # seconds
_WINDOW = 2048  # samples of the filter's windows
_OPEN = 13500  # cents: a filter that lets everything pass


def synthesise(tracks: Iterable[Track], font: SoundFont, rate: int = 44100) -> np.ndarray:
    """The sound of `tracks`: (2, N) float32, left and right, the loudest sample at `PEAK`, N up to the last release.

    N is at least the last note's end. All zero when the font has no sample for any of the notes. Raises InputError for
    a damaged font.
    """
    zones: dict[tuple[int, bool], list[Zone]] = {}
    played: dict[tuple[int, bool, int, int], list[tuple[int, int, int]]] = {}
    end = 0
    for track in tracks:
        voice = (track.program, track.is_drum)
        if voice not in zones:
            zones[voice] = preset_zones(font, *voice)
        for note in track.notes:
            first, last = round(note.start * rate), round(note.end * rate)
            end = max(end, last)
            for index, zone in enumerate(zones[voice]):
                keys, velocities = zone.keys, zone.velocities
                if keys[0] <= note.pitch <= keys[1] and velocities[0] <= note.velocity <= velocities[1]:
                    played.setdefault((*voice, index, note.pitch), []).append((first, last - first, note.velocity))
    sound = np.zeros((2, end + int(LONGEST_RELEASE * rate)), dtype=np.float32)
    for (program, is_drum, index, key), notes in played.items():
        zone = zones[program, is_drum][index]
        # One key of one zone sounds the same each time but for volume and length: it is made once, as long as needed.
        longest = max(held for _, held, _ in notes)
        fall = release(zone, rate)
        wave = tone(zone, font.samples, key, longest + len(fall), rate)
        curve = loudness(zone, key, longest + 1, rate)
        body = wave[:longest] * curve[: min(longest, len(wave))]
        left, right = _gains(zone)
        for first, held, velocity in notes:
            tail = wave[held : held + len(fall)]
            note = np.concatenate([body[:held], tail * (fall[: len(tail)] * curve[held])])
            note *= np.float32((velocity / 127) ** 2)
            sound[0, first : first + len(note)] += left * note
            sound[1, first : first + len(note)] += right * note
            end = max(end, first + len(note))
    sound = sound[:, :end]
    peak = float(abs(sound).max(initial=0.0))
    return sound * np.float32(PEAK / peak) if peak > 0 else sound


def tone(zone: Zone, samples: np.ndarray, key: int, length: int, rate: int) -> np.ndarray:
    """The sample of a zone at the pitch of `key`, filtered, without its volume envelope: (N,) float32, N <= length.

    Shorter than `length` where the sample ends and does not loop.
    """
    cents = (key - zone.root) * zone.amounts["scale_tuning"] + zone.tune
    seconds = np.arange(length) / rate
    wobble = _pitch_modulation(zone, key, seconds)
    if wobble is None:
        position = np.arange(length) * (zone.rate / rate * 2.0 ** (cents / 1200))
    else:
        speed = zone.rate / rate * 2.0 ** ((cents + wobble) / 1200)
        position = np.cumsum(speed) - speed[0]
    if not zone.loops:
        position = position[position < zone.end - zone.start - 1]
    return _filtered(_interpolated(zone, samples, position), zone, key, rate)


def loudness(zone: Zone, key: int, length: int, rate: int) -> np.ndarray:
    """The volume envelope while the key is held: (length,) float32 in [0, 1].

    Linear in its attack, in decibels in its decay, whose time is that of a fall of 100 dB.
    """
    amounts = zone.amounts
    delay, attack = _seconds(amounts["volume_delay"]), _seconds(amounts["volume_attack"])
    hold = _seconds(amounts["volume_hold"] + (60 - key) * amounts["volume_hold_by_key"])
    decay = _seconds(amounts["volume_decay"] + (60 - key) * amounts["volume_decay_by_key"])
    sustain = min(max(amounts["volume_sustain"], 0), 1000) / 10
    time = np.arange(length) / rate - delay
    fallen = np.minimum(np.maximum(time - attack - hold, 0) * (100 / decay), sustain)
    return (np.clip(time / attack, 0.0, 1.0) * 10 ** (-fallen / 20)).astype(np.float32)


def release(zone: Zone, rate: int) -> np.ndarray:
    """The factor after the key is released, until the note is inaudible: (N,) float32, a fall of 100 dB in its time."""
    time = max(_seconds(zone.amounts["volume_release"]), 0.01)  # shorter, and it clicks
    length = int(min(time * SILENCE / 100, LONGEST_RELEASE) * rate)
    return (10 ** (-5 * np.arange(1, length + 1) / (rate * time))).astype(np.float32)


def _seconds(timecents: int) -> float:
    """The times of an envelope's parts, within what the specification allows: 1 ms to 100 s."""
    return float(np.clip(2.0 ** (timecents / 1200), 0.001, 100.0))


def _hertz(cents: float) -> float:
    return 8.176 * 2.0 ** (cents / 1200)


def _gains(zone: Zone) -> tuple[np.float32, np.float32]:
    """Left and right: attenuation, and pan with equal power."""
    volume = 10 ** (-0.4 * max(zone.amounts["attenuation"], 0) / 200)
    angle = (np.clip(zone.amounts["pan"], -500, 500) / 1000 + 0.5) * np.pi / 2
    return np.float32(volume * np.cos(angle)), np.float32(volume * np.sin(angle))


def _tone_envelope(zone: Zone, key: int, seconds: np.ndarray) -> np.ndarray:
    """The envelope of pitch and filter, in [0, 1], linear throughout."""
    amounts = zone.amounts
    delay, attack = _seconds(amounts["tone_delay"]), _seconds(amounts["tone_attack"])
    hold = _seconds(amounts["tone_hold"] + (60 - key) * amounts["tone_hold_by_key"])
    decay = _seconds(amounts["tone_decay"] + (60 - key) * amounts["tone_decay_by_key"])
    sustain = 1 - min(max(amounts["tone_sustain"], 0), 1000) / 1000
    return np.interp(
        seconds - delay, [0, attack, attack + hold, attack + hold + decay * (1 - sustain)], [0, 1, 1, sustain]
    )


def _pitch_modulation(zone: Zone, key: int, seconds: np.ndarray) -> np.ndarray | None:
    """Cents to be added at each time, or None when there are none."""
    amounts = zone.amounts
    cents = np.zeros(len(seconds))
    for lfo in ("slow_lfo", "vibrato"):
        depth = amounts[f"{lfo}_to_pitch"]
        if depth:
            phase = np.maximum(seconds - _seconds(amounts[f"{lfo}_delay"]), 0) * _hertz(amounts[f"{lfo}_frequency"])
            cents += depth * (1 - 4 * abs((phase + 0.25) % 1 - 0.5))  # a triangle that starts at zero, going up
    if amounts["envelope_to_pitch"]:
        cents += amounts["envelope_to_pitch"] * _tone_envelope(zone, key, seconds)
    return cents if cents.any() else None


def _interpolated(zone: Zone, samples: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The zone's sample at fractional positions from its start, by cubics through four neighbours (Catmull-Rom)."""
    whole = position.astype(np.int64)
    x = (position - whole).astype(np.float32)
    before, here, after, later = (samples[_index(zone, whole + step)].astype(np.float32) for step in (-1, 0, 1, 2))
    slope, next_slope = (after - before) / 2, (later - here) / 2
    square = 3 * (after - here) - 2 * slope - next_slope
    cube = 2 * (here - after) + slope + next_slope
    return (here + x * (slope + x * (square + x * cube))) / np.float32(32768)


def _index(zone: Zone, offset: np.ndarray) -> np.ndarray:
    index = np.maximum(offset, 0) + zone.start
    if zone.loops:
        loop = zone.loop_end - zone.loop_start
        return np.where(index < zone.loop_end, index, zone.loop_start + (index - zone.loop_start) % loop)
    return np.minimum(index, zone.end - 1)


def _filtered(wave: np.ndarray, zone: Zone, key: int, rate: int) -> np.ndarray:
    """The wave through a two-pole low-pass whose cut-off follows the envelope.

    The cut-off moves slowly, so the wave is cut into windows that overlap by half and add up to one, and each goes
    through the response of the filter at its middle, with as much silence behind it for the filter to ring out.
    """
    base, depth = zone.amounts["cutoff"], zone.amounts["envelope_to_cutoff"]
    if base + min(depth, 0) >= _OPEN or len(wave) == 0:
        return wave
    hop = _WINDOW // 2
    count = len(wave) // hop + 2
    padded = np.zeros(hop * (count + 1), dtype=np.float32)
    padded[hop : hop + len(wave)] = wave
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::hop]
    middles = np.maximum(np.arange(len(frames)) * hop / rate, 0)
    cents = np.clip(base + depth * _tone_envelope(zone, key, middles), 1500, _OPEN)
    peak = max(zone.amounts["resonance"], 0) / 10 - 3.01  # dB; 0 in the file is no resonance at all
    quality = 10 ** (peak / 20)
    ratio = np.fft.rfftfreq(2 * _WINDOW, 1 / rate)[None] / (8.176 * 2.0 ** (cents / 1200))[:, None]
    response = 1 / (1 - ratio**2 + 1j * ratio / quality)
    window = np.hanning(_WINDOW + 1)[:-1]
    spectra = np.fft.rfft(frames * window, 2 * _WINDOW) * response
    pieces = np.fft.irfft(spectra, 2 * _WINDOW).astype(np.float32)
    result = np.zeros(hop * (len(frames) + 3), dtype=np.float32)
    for quarter in range(4):  # a piece is four hops long
        rows = pieces[:, quarter * hop : (quarter + 1) * hop].reshape(-1)
        result[quarter * hop : quarter * hop + len(rows)] += rows
    return result[hop : hop + len(wave)]
