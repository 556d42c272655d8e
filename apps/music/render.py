"""MIDI to sound: a WAV file that plays a MIDI file with a SoundFont."""

from pathlib import Path

import numpy as np

from apps.music.midi import read_tracks
from apps.music.soundfont import read_soundfont
from apps.music.synthesis import synthesise
from shared.errors import InputError
from shared.io.files import input_file, replacing

SYNTHESIS_RATE = 44100
LONGEST = 3600.0  # seconds; an hour of sound in memory is about 1.3 GB


def render_wav(
    midi_path: Path | str, wav_path: Path | str, soundfont: Path | str | None = None, rate: int = 44100
) -> float:
    """Play a MIDI file into a 16-bit stereo WAV file; returns how long it lasts in seconds.

    The sound lasts as long as the notes and then until the last one has died away. It is as loud as it can be without
    clipping. soundfont: an .sf2 file, by default the one that comes with pretty_midi; rate in Hz. The sustain pedal is
    obeyed, other controllers are not.
    Raises InputError, one line: a MIDI file as `midi.read_tracks` refuses it or of more than an hour, a SoundFont that
    is none, damaged or has no sound for the notes, a name that does not end in .wav, a rate out of 8,000 to 192,000.
    """
    if Path(wav_path).suffix.lower() != ".wav":
        raise InputError(f"{wav_path}: does not end in .wav; name a WAV file to write to")
    if not 8000 <= rate <= 192_000:
        raise InputError(f"{wav_path}: rate: {rate} Hz is out of range; give 8000 to 192000")
    tracks = read_tracks(midi_path, pedal=True)
    seconds = max(note.end for track in tracks for note in track.notes)
    if seconds > LONGEST:
        raise InputError(f"{midi_path}: lasts {seconds / 60:.0f} minutes; give a file of at most {LONGEST / 60:.0f}")
    font = read_soundfont(soundfont or default_soundfont())
    sound = synthesise(tracks, font, SYNTHESIS_RATE)
    if not sound.any():
        raise InputError(f"{font.path}: has no sound for the notes of {midi_path}; give another SoundFont")
    sound = _resampled(sound, rate)

    import soundfile

    with replacing(wav_path) as partial:
        soundfile.write(partial, sound.T, rate, subtype="PCM_16", format="WAV")
    return sound.shape[1] / rate


def read_wav(path: Path | str) -> tuple[np.ndarray, int]:
    """A sound file as (channels, N) float32 and its rate in Hz. Raises InputError when it is none."""
    import soundfile

    try:
        sound, rate = soundfile.read(input_file(path), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        raise InputError(f"{path}: is not a sound file; give a WAV file") from None
    return sound.T, rate


def default_soundfont() -> Path:
    """The General MIDI SoundFont inside the installed pretty_midi (TimGM6mb, GPL-2; it is used from there)."""
    import importlib.util

    spec = importlib.util.find_spec("pretty_midi")
    places = (spec.submodule_search_locations if spec else None) or []
    for place in places:
        if (font := Path(place) / "TimGM6mb.sf2").is_file():
            return font
    raise InputError("--soundfont: pretty_midi comes without its SoundFont here; give an .sf2 file")


def _resampled(sound: np.ndarray, rate: int) -> np.ndarray:
    if rate == SYNTHESIS_RATE:
        return sound
    import torch
    from torchaudio.functional import resample

    resampled = resample(torch.from_numpy(sound), SYNTHESIS_RATE, rate).numpy()
    # A band-limited wave can swing beyond the samples it was taken at.
    return resampled / max(1.0, float(abs(resampled).max()))
