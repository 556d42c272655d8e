"""What every generation leaves behind: MIDI, MusicXML for chorales, a piano roll, and JSON that says how it came."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.music.codecs import get_codec
from apps.music.midi import Track, grid_tracks, write_midi
from shared.errors import InputError
from shared.io.files import output_folder, write_json


@dataclass(frozen=True)
class Length:
    """A length in bars of 4/4 or in seconds; which of the two a codec counts in, the tempo decides."""

    value: float
    unit: str

    def seconds(self, tempo: float) -> float:
        return self.value if self.unit == "s" else self.value * 240 / tempo

    def steps(self, tempo: float) -> int:
        """In 16ths, at least one."""
        return max(1, round(self.seconds(tempo) * tempo / 15))


def parse_length(text: str, option: str = "--length") -> Length:
    """ "8bars" or "30s"; InputError for anything else, for nothing and for more than an hour or 1,000 bars."""
    text = text.strip()
    for unit, suffixes, most in (("bars", ("bars", "bar"), 1000), ("s", ("seconds", "sec", "s"), 3600)):
        for suffix in suffixes:
            number = text.removesuffix(suffix).strip()
            if number != text:
                try:
                    value = float(number)
                except ValueError:
                    continue
                if not 0 < value <= most:
                    raise InputError(f"{option} {text}: is not above 0 and at most {most:,} {unit}")
                return Length(value, unit)
    raise InputError(f"{option} {text}: is no length; write it like 8bars or 30s")


def tracks_of(codec_name: str, tokens: np.ndarray, tempo: float, attacks: np.ndarray | None = None) -> list[Track]:
    """Tokens as tracks: S A T B of a chorale, with `attacks` as in `grid_tracks`, or one piano."""
    decoded = get_codec(codec_name).decode(tokens)
    if codec_name == "chorale":
        return grid_tracks(decoded, tempo, attacks=attacks)
    return [Track("Piano", 0, False, decoded)]


def write_outputs(
    out: Path,
    stem: str,
    codec_name: str,
    tokens: np.ndarray,
    tempo: float,
    seconds: float,
    facts: dict,
    *,
    beside: list[Track] | None = None,
    attacks: np.ndarray | None = None,
) -> list[str]:
    """Write STEM.mid, .musicxml (chorales), .png and .json into `out`; returns the paths, the MIDI file first.

    Shape: tokens (N,), with at least one note among them; attacks (T, 4) where the notes of given voices begin anew.
    `seconds` is how long the MIDI file is to last; `beside` are tracks to stand before the model's (a melody).
    """
    from apps.music.figures import piano_roll

    output_folder(out)
    tracks = [*(beside or []), *tracks_of(codec_name, tokens, tempo, attacks)]
    tracks = [track for track in tracks if track.notes]
    paths = {"midi": out / f"{stem}.mid", "roll": out / f"{stem}.png", "facts": out / f"{stem}.json"}
    write_midi(paths["midi"], tracks, tempo, seconds)
    if codec_name == "chorale":
        from apps.music.musicxml import write_musicxml

        paths["score"] = out / f"{stem}.musicxml"
        write_musicxml(paths["score"], get_codec("chorale").decode(tokens), stem, tempo, attacks)
    piano_roll(paths["roll"], tracks, stem, bar_seconds=240 / tempo if codec_name == "chorale" else None)
    files = [str(path) for path in paths.values()]
    write_json(paths["facts"], {**facts, "tempo": tempo, "seconds": seconds, "tokens": len(tokens), "files": files})
    return files
