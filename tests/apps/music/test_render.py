"""A rendered WAV lasts as long as its MIDI and sounds at its pitches."""

import numpy as np
import pytest
import soundfile

from apps.music.figures import mel_spectrogram
from apps.music.midi import Track, write_midi
from apps.music.notes import Note
from apps.music.render import default_soundfont, read_wav, render_wav
from shared.errors import InputError


def midi(path, *notes: Note, program: int = 0):
    write_midi(path, [Track("test", program, False, list(notes))])
    return path


def test_the_sound_lasts_as_long_as_the_notes_and_a_release(tmp_path):
    path = midi(tmp_path / "a.mid", Note(0.5, 1.0, 60, 80), Note(1.0, 3.0, 64, 80))
    seconds = render_wav(path, tmp_path / "a.wav")
    sound, rate = soundfile.read(tmp_path / "a.wav")
    assert sound.shape == (round(seconds * rate), 2)
    assert rate == 44100
    assert 3.1 < seconds < 5.0
    assert abs(sound[: int(0.49 * rate)]).max() == 0
    assert abs(sound).max() == pytest.approx(0.89, abs=0.001)
    assert abs(sound[int(2.9 * rate) : 3 * rate]).max() > 0.01
    assert abs(sound[-100:]).max() < 0.001  # it ends in silence, not in a click


@pytest.mark.parametrize("rate", [22050, 48000])
def test_other_rates_sound_the_same(tmp_path, rate):
    path = midi(tmp_path / "a.mid", Note(0.0, 1.0, 69, 80))
    seconds = render_wav(path, tmp_path / "a.wav")
    assert render_wav(path, tmp_path / "b.wav", rate=rate) == pytest.approx(seconds, abs=1e-3)
    sound, written = read_wav(tmp_path / "b.wav")
    assert written == rate
    spectrum = abs(np.fft.rfft(sound[0]))
    assert spectrum.argmax() * rate / sound.shape[1] == pytest.approx(440, rel=0.01)


@pytest.mark.parametrize("program", [0, 40, 73])
def test_an_a4_stands_at_440_hertz_in_the_mel_spectrogram(tmp_path, program):
    path = midi(tmp_path / "a.mid", Note(0.0, 2.0, 69, 90), program=program)
    render_wav(path, tmp_path / "a.wav")
    sound, rate = read_wav(tmp_path / "a.wav")
    decibels, hertz, seconds = mel_spectrogram(sound, rate)
    sounding = (seconds > 0.1) & (seconds < 0.5)
    peak = decibels[:, sounding].mean(axis=1).argmax()
    assert abs(peak - abs(hertz - 440).argmin()) <= 1


def test_louder_notes_are_louder(tmp_path):
    path = midi(tmp_path / "a.mid", Note(0.0, 0.5, 69, 30), Note(1.5, 2.0, 69, 120))
    render_wav(path, tmp_path / "a.wav")
    sound, rate = read_wav(tmp_path / "a.wav")
    soft, loud = abs(sound[:, :rate]).max(), abs(sound[:, int(1.5 * rate) :]).max()
    assert loud / soft == pytest.approx(16, rel=0.1)  # (120 / 30) squared


def test_the_pedal_holds_what_it_holds(tmp_path):
    import pretty_midi

    song = pretty_midi.PrettyMIDI()
    piano = pretty_midi.Instrument(0)
    piano.notes.append(pretty_midi.Note(90, 60, 0.0, 0.3))
    piano.control_changes += [pretty_midi.ControlChange(64, 127, 0.1), pretty_midi.ControlChange(64, 0, 3.0)]
    song.instruments.append(piano)
    song.write(str(tmp_path / "p.mid"))
    assert render_wav(tmp_path / "p.mid", tmp_path / "p.wav") > 3.0


def test_bad_input_is_one_clear_line_and_leaves_no_file(tmp_path):
    good = midi(tmp_path / "a.mid", Note(0.0, 0.2, 69, 90))
    (tmp_path / "text.mid").write_text("not MIDI")
    (tmp_path / "text.sf2").write_text("not a SoundFont")
    long = midi(tmp_path / "long.mid", Note(0.0, 1.0, 69, 90), Note(4000.0, 4001.0, 69, 90))
    out = tmp_path / "out"
    out.mkdir()
    cases = [
        ((tmp_path / "text.mid", out / "x.wav"), {}, "text.mid"),
        ((tmp_path / "none.mid", out / "x.wav"), {}, "none.mid"),
        ((good, out / "x.wav"), {"soundfont": tmp_path / "text.sf2"}, "text.sf2: is not a SoundFont"),
        ((good, out / "x.wav"), {"soundfont": tmp_path / "none.sf2"}, "none.sf2"),
        ((good, out / "x.mp3"), {}, r"\.wav"),
        ((good, out / "x.wav"), {"rate": 10}, "rate: 10 Hz"),
        ((long, out / "x.wav"), {}, "67 minutes"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(InputError, match=message) as error:
            render_wav(*arguments, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="not a sound file"):
        read_wav(tmp_path / "text.mid")
    assert list(out.iterdir()) == []


def test_the_default_font_is_there():
    assert default_soundfont().stat().st_size > 1_000_000
