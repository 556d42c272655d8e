"""Lengths as people write them, and what lies in the folder after a generation."""

import json
import re
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.music.codecs import chorale, performance
from apps.music.midi import Track, read_tracks
from apps.music.notes import Note
from apps.music.outputs import Length, parse_length, tracks_of, write_outputs
from shared.errors import InputError


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("8bars", Length(8, "bars")),
        ("1bar", Length(1, "bars")),
        ("2.5 bars", Length(2.5, "bars")),
        ("30s", Length(30, "s")),
        (" 1.5 sec ", Length(1.5, "s")),
        ("90seconds", Length(90, "s")),
    ],
)
def test_lengths_that_are_understood(text: str, length: Length) -> None:
    assert parse_length(text) == length


@given(st.floats(0.01, 1000), st.sampled_from(["bars", "bar", "s", "sec", "seconds"]), st.sampled_from(["", " "]))
def test_every_length_that_is_written_is_read(value: float, unit: str, space: str) -> None:
    assert parse_length(f"{value!r}{space}{unit}").value == value


@given(st.text(max_size=12))
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    if not re.fullmatch(r"\s*[\d._e+-]+\s*(bars?|s|sec|seconds)\s*", text):
        with pytest.raises(InputError, match=r"^--last "):
            parse_length(text, "--last")


@given(st.floats(0.01, 1000), st.sampled_from(["bars", "s"]), st.floats(20, 300))
def test_bars_and_seconds_agree_at_any_tempo(value: float, unit: str, tempo: float) -> None:
    length = Length(value, unit)
    assert length.steps(tempo) >= 1
    assert abs(length.steps(tempo) * 15 / tempo - length.seconds(tempo)) <= max(0.5, 1) * 15 / tempo + 1e-9
    assert Length(value, "bars").seconds(tempo) * tempo / 240 == pytest.approx(value)


def test_a_silent_end_counts(tmp_path: Path) -> None:
    """The promise is a length, not a last note."""
    tokens = performance.encode([Note(0, 0.5, 60, 62)])
    files = write_outputs(tmp_path, "short", "performance", tokens, 120.0, 4.0, {})
    assert pretty_midi.PrettyMIDI(files[0]).get_end_time() == pytest.approx(4.0, abs=0.002)
    grid = np.full((32, 4), -1)
    grid[:8] = [72, 67, 60, 48]
    files = write_outputs(tmp_path, "choir", "chorale", chorale.encode(grid), 120.0, 4.0, {"verb": "test"})
    assert pretty_midi.PrettyMIDI(files[0]).get_end_time() == pytest.approx(4.0, abs=0.002)
    facts = json.loads((tmp_path / "choir.json").read_text())
    assert facts == {"verb": "test", "tempo": 120.0, "seconds": 4.0, "tokens": 128, "files": files}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["short.mid", "short.png", "short.json", *(f"choir.{kind}" for kind in ("mid", "png", "json", "musicxml"))]
    )


def test_what_stands_beside_is_written_first(tmp_path: Path) -> None:
    melody = Track("Melody", 73, False, [Note(0, 1, 80, 99)])
    tokens = performance.encode([Note(0, 0.5, 60, 62)])
    files = write_outputs(tmp_path, "two", "performance", tokens, 120.0, 1.0, {}, beside=[melody])
    assert [(track.name, track.program) for track in read_tracks(files[0])] == [("Melody", 73), ("Piano", 0)]


def test_tracks_of_a_chorale_are_its_voices() -> None:
    tracks = tracks_of("chorale", chorale.encode(np.array([[72, -1, 60, 48]] * 4)), 60.0)
    assert [(track.name, len(track.notes)) for track in tracks] == [
        ("Soprano", 1),
        ("Alto", 0),
        ("Tenor", 1),
        ("Bass", 1),
    ]
