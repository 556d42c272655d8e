"""Pictures say what they show: voices, bars, keys, heads. SVG keeps its text, which is read here."""

import re
import struct

import numpy as np
import pytest

from apps.music.figures import attention_arcs, histogram_pair, mel_picture, mel_spectrogram, piano_roll
from apps.music.midi import Track, grid_tracks
from apps.music.notes import Note
from shared.errors import InputError

CADENCE = np.repeat([[72, 67, 64, 48], [72, 69, 65, 53], [71, 67, 62, 55], [72, 67, 64, 48]] * 4, 4, axis=0)
TRACKS = grid_tracks(CADENCE, tempo=120)  # 4 bars of 2 s
NOTES = sorted(note for track in TRACKS for note in track.notes)


def words(path) -> list[str]:
    return [word.strip() for word in re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text())]


def size(path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_a_roll_names_its_voices_bars_and_keys(tmp_path):
    piano_roll(tmp_path / "roll.svg", TRACKS, "A cadence", bar_seconds=2.0)
    found = words(tmp_path / "roll.svg")
    assert found.count("A cadence") == 1
    assert {"Soprano", "Alto", "Tenor", "Bass", "1", "2", "3", "4", "bar", "C3", "C4", "C5"} <= set(found)


def test_a_roll_without_bars_is_in_seconds_and_plain_notes_have_no_legend(tmp_path):
    piano_roll(tmp_path / "roll.svg", NOTES)
    found = words(tmp_path / "roll.svg")
    assert "seconds" in found
    assert "Soprano" not in found
    assert "track 1" not in found


def test_a_long_piece_goes_on_in_further_rows_and_never_becomes_a_tower(tmp_path):
    heights = []
    for seconds in (30, 100, 3600):
        notes = [Note(float(at), at + 0.5, 60 + at % 12, 80) for at in range(seconds)]
        piano_roll(tmp_path / "roll.png", notes)
        heights.append(size(tmp_path / "roll.png")[1])
    assert heights[0] < heights[1] < heights[2] < 4000


def test_notes_of_no_length_can_be_drawn(tmp_path):
    for bar_seconds in (None, 2.0):
        piano_roll(tmp_path / "roll.png", [Note(0.0, 0.0, 60, 80)], bar_seconds=bar_seconds)


def test_the_same_music_gives_the_same_file(tmp_path):
    for name in ("a.png", "b.png", "a.svg", "b.svg"):
        piano_roll(tmp_path / name, TRACKS, "A cadence", bar_seconds=2.0)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_arcs_have_a_roll_and_a_name_for_each_head(tmp_path):
    arcs = [(20, back, 1 / (1 + back), head) for back in range(20) for head in (0, 1, 5)]
    attention_arcs(tmp_path / "arcs.svg", NOTES, arcs, "Looking back", bar_seconds=2.0)
    found = words(tmp_path / "arcs.svg")
    assert {"head 1", "head 2", "head 6", "Looking back", "C4"} <= set(found)
    assert "head 3" not in found
    attention_arcs(tmp_path / "arcs.png", NOTES, arcs)
    assert size(tmp_path / "arcs.png")[0] == 1650


def test_only_the_weightiest_arcs_are_drawn(tmp_path):
    # 1.0, 0.5, 0.25, ...: five of them are at least a twentieth of the greatest; one goes from a note to itself.
    arcs = [(20, 19 - back, 0.5**back, 0) for back in range(15)]
    assert drawn(tmp_path, arcs) == 5
    assert drawn(tmp_path, [*arcs, (20, 20, 9.0, 0)]) == 5
    assert drawn(tmp_path, [(20, back, 1.0, 0) for back in range(20)]) == 12
    assert drawn(tmp_path, [(20, back, 1.0, 0) for back in range(20)], strongest=3) == 3
    assert drawn(tmp_path, [(20, 3, 0.0, 0)]) == 0
    assert drawn(tmp_path, []) == 0


def drawn(tmp_path, arcs, **options) -> int:
    """How many arcs there are: the only lines of forty points."""
    attention_arcs(tmp_path / "arcs.svg", NOTES, arcs, **options)
    paths = re.findall(r' d="([^"]+)"', (tmp_path / "arcs.svg").read_text())
    return sum(path.count("L") == 39 for path in paths)


def test_arcs_show_the_bars_around_them(tmp_path):
    notes = [Note(float(at), at + 1.0, 60, 80) for at in range(200)]
    attention_arcs(tmp_path / "arcs.svg", notes, [(101, 98, 1.0, 0)], bar_seconds=4.0)
    assert [word for word in words(tmp_path / "arcs.svg") if word.isdigit()] == ["24", "25", "26", "27"]


def test_impossible_arcs_are_refused(tmp_path):
    for arc in [(0, len(NOTES), 1.0, 0), (-1, 0, 1.0, 0), (1, 0, -0.5, 0), (1, 0, float("nan"), 0)]:
        with pytest.raises(ValueError, match="arc"):
            attention_arcs(tmp_path / "arcs.svg", NOTES, [arc])


def test_nothing_to_draw_is_one_clear_line_and_no_file(tmp_path):
    with pytest.raises(InputError, match=r"roll\.png: there are no notes"):
        piano_roll(tmp_path / "roll.png", [])
    with pytest.raises(InputError, match="no notes"):
        piano_roll(tmp_path / "roll.png", [Track("Soprano", 0, False, [])])
    with pytest.raises(InputError, match="no notes"):
        attention_arcs(tmp_path / "arcs.png", [], [])
    with pytest.raises(InputError, match="silent"):
        mel_picture(tmp_path / "mel.png", np.zeros((2, 44100)), 44100)
    assert list(tmp_path.iterdir()) == []


def test_a_pair_of_histograms_names_bins_and_distance(tmp_path):
    histogram_pair(tmp_path / "h.svg", np.array([0.5, 0.5, 0]), np.array([0, 0.5, 0.5]), ["C", "D", "E"], "Pitches")
    found = words(tmp_path / "h.svg")
    assert {"C", "D", "E", "data", "model", "% of notes", "Pitches   Jensen-Shannon distance 0.707"} <= set(found)
    histogram_pair(tmp_path / "h.png", np.zeros(3), np.array([0, 0.5, 0.5]), ["C", "D", "E"])
    assert size(tmp_path / "h.png")[0] == 1200


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("hertz", [110.0, 440.0, 1760.0])
def test_a_sine_stands_in_its_band(rate, hertz):
    wave = np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    decibels, middles, seconds = mel_spectrogram(np.stack([wave, wave]), rate)
    assert decibels.shape == (len(middles), len(seconds))
    assert decibels.max() == 0
    assert decibels.min() >= -80
    band = decibels[:, len(seconds) // 2].argmax()
    assert abs(band - abs(middles - hertz).argmin()) <= 1
    assert seconds[-1] == pytest.approx(1.0, abs=0.05)


def test_a_very_short_sound_has_a_picture(tmp_path):
    mel_picture(tmp_path / "mel.svg", np.ones(100), 44100, "Click")
    assert {"A4  440 Hz", "Click", "seconds", "dB below the loudest"} <= set(words(tmp_path / "mel.svg"))
