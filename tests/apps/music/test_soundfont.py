"""Our SoundFont reader and player, with fonts of one sine that are written here, and the real one of pretty_midi."""

import struct
from pathlib import Path

import numpy as np
import pytest

from apps.music.midi import Track
from apps.music.notes import Note
from apps.music.render import default_soundfont
from apps.music.soundfont import preset_zones, read_soundfont
from apps.music.synthesis import PEAK, synthesise
from shared.errors import InputError

RATE = 44100
NAME = b"test".ljust(20, b"\0")


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def generators(zones: list[dict[int, int]], last: int) -> tuple[bytes, bytes]:
    """The tables of bags and generators; the one named `last` must come last in its zone."""
    bags, table, count = b"", b"", 0
    for zone in zones:
        bags += struct.pack("<HH", count, 0)
        for kind in sorted(zone, key=lambda kind: (kind == last, kind not in (43, 44), kind)):
            table += struct.pack("<Hh", kind, zone[kind])
            count += 1
    return bags + struct.pack("<HH", count, 0), table + struct.pack("<Hh", 0, 0)


def font(
    path: Path,
    instrument: list[dict[int, int]],
    preset: list[dict[int, int]] | None = None,
    root: int = 69,
    hertz: float = 440.0,
    bank: int = 0,
    loop: tuple[int, int] = (1000, 2000),
) -> Path:
    """A SoundFont with one sample, a second of a sine at `hertz`, that sounds as recorded at the key `root`."""
    wave = np.rint(np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE) * 20000).astype("<i2")
    preset = preset or [{41: 0}]
    pbag, pgen = generators(preset, 41)
    ibag, igen = generators(instrument, 53)
    header = struct.pack("<IIIIIBbHH", 0, RATE, *loop, RATE, root, 0, 0, 1)
    tables = [
        chunk(
            b"phdr",
            NAME
            + struct.pack("<HHHIII", 0, bank, 0, 0, 0, 0)
            + NAME
            + struct.pack("<HHHIII", 0, 0, len(preset), 0, 0, 0),
        ),
        *(chunk(b"pbag", pbag), chunk(b"pmod", b"\0" * 10), chunk(b"pgen", pgen)),
        chunk(b"inst", NAME + struct.pack("<H", 0) + NAME + struct.pack("<H", len(instrument))),
        *(chunk(b"ibag", ibag), chunk(b"imod", b"\0" * 10), chunk(b"igen", igen)),
        chunk(b"shdr", NAME + header + NAME + b"\0" * 26),
    ]
    body = chunk(b"LIST", b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 1)))
    body += chunk(b"LIST", b"sdta" + chunk(b"smpl", wave.tobytes())) + chunk(b"LIST", b"pdta" + b"".join(tables))
    path.write_bytes(chunk(b"RIFF", b"sfbk" + body))
    return path


def play(path: Path, *notes: tuple[float, float, int, int], program: int = 0, is_drum: bool = False) -> np.ndarray:
    return synthesise([Track("t", program, is_drum, [Note(*note) for note in notes])], read_soundfont(path), RATE)


def loudest_hertz(sound: np.ndarray) -> float:
    mono = sound.sum(axis=0)
    spectrum = abs(np.fft.rfft(mono * np.hanning(len(mono)), 2**18))
    return float(spectrum.argmax() * RATE / 2**18)


def level(sound: np.ndarray, start: float, end: float) -> float:
    """Root mean square in dB between two times."""
    return float(20 * np.log10(np.sqrt((sound[:, int(start * RATE) : int(end * RATE)] ** 2).mean()) + 1e-12))


ONE = [
    {53: 0, 54: 1}
]  # the sample, looping, from 1000 to 2000: not a whole number of periods, which is heard, not read


@pytest.mark.parametrize(
    ("zone", "key", "hertz"),
    [
        ({}, 69, 440.0),
        ({}, 81, 880.0),
        ({}, 60, 261.63),
        ({58: 60}, 60, 440.0),  # the zone's root key goes before the sample's
        ({58: 60}, 72, 880.0),
        ({51: -12}, 69, 220.0),
        ({52: 50}, 69, 452.89),
        ({56: 50}, 81, 622.25),  # half a semitone a key
        ({56: 0}, 20, 440.0),
    ],
)
def test_a_key_has_its_pitch(tmp_path, zone, key, hertz):
    sound = play(font(tmp_path / "s.sf2", [{53: 0} | zone]), (0, 0.4, key, 100))
    assert loudest_hertz(sound) == pytest.approx(hertz, rel=0.002)


def test_a_presets_tuning_is_added_and_its_keys_cut_off(tmp_path):
    path = font(tmp_path / "s.sf2", [{43: 60 | 90 << 8, 52: 30, 53: 0}], [{51: 1}, {43: 70 | 127 << 8, 52: 20, 41: 0}])
    (zone,) = preset_zones(read_soundfont(path), 0)
    assert zone.keys == (70, 90)
    assert zone.tune == 100 + 30 + 20  # the preset's global zone, the instrument, the preset


def test_an_instruments_global_zone_is_the_default_of_the_others(tmp_path):
    path = font(tmp_path / "s.sf2", [{52: 30, 58: 50}, {53: 0}, {52: -5, 53: 0}])
    assert [(zone.tune, zone.root) for zone in preset_zones(read_soundfont(path), 0)] == [(30, 50), (-5, 50)]


def test_velocity_chooses_the_zone_and_the_loudness(tmp_path):
    zones = [{44: 0 | 63 << 8, 51: -12, 53: 0}, {44: 64 | 127 << 8, 53: 0}]
    path = font(tmp_path / "s.sf2", zones)
    assert loudest_hertz(play(path, (0, 0.3, 69, 63))) == pytest.approx(220, rel=0.005)
    assert loudest_hertz(play(path, (0, 0.3, 69, 64))) == pytest.approx(440, rel=0.005)
    both = play(font(tmp_path / "one.sf2", ONE), (0, 0.3, 69, 127), (0.5, 0.8, 69, 64))
    assert level(both, 0.05, 0.25) - level(both, 0.55, 0.75) == pytest.approx(40 * np.log10(127 / 64), abs=0.1)


def test_a_loop_sounds_as_long_as_the_key_is_held(tmp_path):
    whole = (0, 44100)
    looping = play(font(tmp_path / "l.sf2", ONE, loop=whole), (0, 3.0, 69, 100))
    single = play(font(tmp_path / "s.sf2", [{53: 0}], loop=whole), (0, 3.0, 69, 100))
    assert level(looping, 2.5, 2.9) == pytest.approx(level(looping, 0.1, 0.5), abs=0.1)
    assert level(single, 0.1, 0.9) == pytest.approx(level(looping, 0.1, 0.9), abs=0.1)
    assert not single[:, int(1.01 * RATE) :].any()
    assert single.shape[1] >= 3 * RATE


def test_the_release_falls_by_its_time(tmp_path):
    sound = play(font(tmp_path / "s.sf2", [{38: 0, 53: 0, 54: 1}], loop=(0, 44100)), (0, 1.0, 69, 100))
    assert level(sound, 1.3, 1.31) - level(sound, 1.1, 1.11) == pytest.approx(-20, abs=0.3)  # 100 dB a second
    assert sound.shape[1] / RATE == pytest.approx(1.8, abs=0.01)  # 80 dB below


def test_the_decay_falls_to_the_sustained_level(tmp_path):
    sound = play(font(tmp_path / "s.sf2", [{36: 0, 37: 300, 53: 0, 54: 1}], loop=(0, 44100)), (0, 2.0, 69, 100))
    assert level(sound, 0.2, 0.21) - level(sound, 0.1, 0.11) == pytest.approx(-10, abs=0.3)
    assert level(sound, 1.5, 1.6) - level(sound, 0.1, 0.11) == pytest.approx(-30 + 10.2, abs=0.3)


def test_pan(tmp_path):
    left, right = play(font(tmp_path / "s.sf2", [{17: -500, 53: 0}]), (0, 0.5, 69, 100))
    assert abs(left).max() == pytest.approx(PEAK)
    assert abs(right).max() < 1e-6


def test_the_low_pass_takes_what_lies_above_it(tmp_path):
    # 6900 cents are 440 Hz: 3 dB there, 12 dB an octave above.
    plain = [{53: 0, 54: 1}]
    filtered = [{8: 6900, 53: 0, 54: 1}]
    for semitones, fall in [(-24, 0.0), (0, 3.0), (24, 24.1)]:
        key = 69 + semitones
        reference = tone_level(font(tmp_path / "p.sf2", plain, loop=(0, 44100)), key)
        assert reference - tone_level(font(tmp_path / "f.sf2", filtered, loop=(0, 44100)), key) == pytest.approx(
            fall, abs=0.3
        )


def tone_level(path: Path, key: int) -> float:
    from apps.music.synthesis import tone

    opened = read_soundfont(path)
    wave = tone(preset_zones(opened, 0)[0], opened.samples, key, RATE, RATE)
    return level(wave[None], 0.2, 0.8)


def test_vibrato_swings_around_the_pitch(tmp_path):
    sound = play(
        font(tmp_path / "s.sf2", [{6: 50, 24: -851, 53: 0, 54: 1}], loop=(0, 44100)), (0, 1.0, 69, 100)
    )  # 5 Hz
    crossings = np.flatnonzero((sound[0, 1:] >= 0) & (sound[0, :-1] < 0))[5:400]
    pitch = RATE / np.diff(crossings)
    assert pitch.max() == pytest.approx(440 * 2 ** (50 / 1200), rel=0.012)
    assert pitch.min() == pytest.approx(440 * 2 ** (-50 / 1200), rel=0.012)
    assert pitch.mean() == pytest.approx(440, rel=0.005)


def test_drums_come_from_their_bank_and_what_lacks_is_replaced(tmp_path):
    kit = font(tmp_path / "kit.sf2", [{53: 0}], bank=128)
    assert play(kit, (0, 0.2, 69, 100), is_drum=True).any()
    assert play(kit, (0, 0.2, 69, 100), program=40).any()


def test_no_sample_for_the_note_is_silence(tmp_path):
    path = font(tmp_path / "s.sf2", [{43: 80 | 90 << 8, 53: 0}])
    assert not play(path, (0, 0.2, 60, 100)).any()
    assert play(path, (0, 0.2, 60, 100)).shape == (2, round(0.2 * RATE))


@pytest.mark.parametrize(
    ("program", "key"), [(0, 36), (0, 57), (0, 69), (0, 84), (19, 60), (40, 69), (52, 48), (52, 69), (73, 72)]
)
def test_the_real_font_plays_in_tune(program, key):
    # Where symusic 0.5.9 plays an A4 of the piano at 1656 Hz.
    sound = play(default_soundfont(), (0, 0.7, key, 90), program=program)
    spectrum = abs(np.fft.rfft(sound[0] * np.hanning(sound.shape[1]), 2**18))
    wanted = 440 * 2 ** ((key - 69) / 12)
    strongest = spectrum.argmax() * RATE / 2**18
    partial = strongest / wanted
    assert min(abs(partial - whole) for whole in (0.5, *range(1, 13))) < 0.02 * partial


DAMAGE = {
    "text": lambda data: b"This is not a SoundFont at all.",
    "wave": lambda data: b"RIFF" + struct.pack("<I", 100) + b"WAVE" + bytes(96),
    "head alone": lambda data: data[:12],
    "cut in the samples": lambda data: data[:1000],
    "cut in the tables": lambda data: data[:-100],
    "zeros": lambda data: data[:12] + bytes(len(data) - 12),
    "wild indices": lambda data: data.replace(
        data[(at := data.index(b"pbag") + 8) : at + 8], b"\0\0\0\0\xff\xff\xff\xff"
    ),
    "odd table": lambda data: data.replace(b"pbag" + struct.pack("<I", 8), b"pbag" + struct.pack("<I", 7)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_bad_font_is_one_clear_line(tmp_path, kind):
    path = tmp_path / "bad.sf2"
    path.write_bytes(DAMAGE[kind](font(tmp_path / "good.sf2", ONE).read_bytes()))
    with pytest.raises(InputError) as error:
        play(path, (0, 0.1, 60, 100))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_missing_and_empty_fonts(tmp_path):
    (tmp_path / "empty.sf2").touch()
    for name in ("empty.sf2", "none.sf2"):
        with pytest.raises(InputError, match=name):
            read_soundfont(tmp_path / name)


def test_damage_anywhere_never_ends_in_another_error(tmp_path):
    data = bytearray(font(tmp_path / "good.sf2", ONE).read_bytes())
    rng = np.random.default_rng(0)
    tables = data.index(b"pdta")
    for _ in range(60):
        broken = data.copy()
        for place in rng.integers(tables, len(data), 3):
            broken[place] = rng.integers(256)
        (tmp_path / "broken.sf2").write_bytes(broken)
        try:
            play(tmp_path / "broken.sf2", (0, 0.05, 60, 100))
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
