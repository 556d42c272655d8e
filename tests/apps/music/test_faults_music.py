"""Bad MIDI files and music that is too long, for every verb that reads some: refused in one line, nothing written."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.music.midi import Track, write_midi
from apps.music.notes import Note
from tests.command_line import Manyheads, Refused

Make = Callable[..., Any]


def type_two(path: Path) -> None:
    track = b"MTrk" + (8).to_bytes(4) + bytes([0, 0x90, 60, 80, 0x10, 0x80, 60, 0])
    path.write_bytes(b"MThd" + (6).to_bytes(4) + (2).to_bytes(2) + (1).to_bytes(2) + (480).to_bytes(2) + track)


def write_bad(path: Path, kind: str, good: list[Note]) -> None:
    if kind == "missing":
        return
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "not midi":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" * 20)
    elif kind == "type 2":
        type_two(path)
    elif kind == "no notes":
        path.write_bytes(b"MThd\0\0\0\6\0\0\0\1\1\xe0MTrk\0\0\0\4\0\xff\x2f\0")
    else:
        drums = kind == "drums alone"
        write_midi(path, [Track("x", 0, drums, good)])
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:-40])


MIDI_FAULTS = {
    "missing": "no such file",
    "folder": "is a folder",
    "empty": "is empty",
    "truncated": "is truncated",
    "not midi": "is not a MIDI file",
    "type 2": "type-2",
    "no notes": "holds no notes",
    "drums alone": "drums alone",
}
VERBS = ("continue", "harmonise", "accompany", "explain", "report", "render")


@pytest.mark.parametrize("kind", MIDI_FAULTS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_bad_midi_file(
    refused: Refused,
    tiny_run: Path,
    accompany_run: Path,
    chorales_json: Path,
    tmp_path: Path,
    make_tune: Make,
    verb: str,
    kind: str,
) -> None:
    if (verb, kind) == ("render", "drums alone"):
        pytest.skip("drums can be played")
    bad = tmp_path / "bad.mid"
    write_bad(bad, kind, make_tune(1))
    options: tuple[object, ...] = ("--checkpoint", accompany_run if verb == "accompany" else tiny_run)
    if verb == "report":
        options = ("--data", chorales_json)
    if verb == "render":
        options = ()
    else:
        options += ("--out", tmp_path / "out")
    line = refused("music", verb, bad, *options)
    assert line.startswith(f"error: {bad}: ")
    assert MIDI_FAULTS[kind] in line


@pytest.fixture(scope="session")
def hour(tmp_path_factory: pytest.TempPathFactory, make_tune: Make) -> Path:
    """An hour of piano: 18,000 notes."""
    path = tmp_path_factory.mktemp("long") / "hour.mid"
    tune = make_tune(5, 40)
    notes = [n._replace(start=n.start + 10 * k, end=n.end + 10 * k) for k in range(360) for n in tune]
    write_midi(path, [Track("Piano", 0, False, notes)])
    return path


@pytest.mark.parametrize(
    ("verb", "run"),
    [
        ("continue", "tiny_run"),
        ("continue", "piano_run"),
        ("harmonise", "tiny_run"),
        ("accompany", "accompany_run"),
        ("explain", "tiny_run"),
        ("explain", "piano_run"),
    ],
)
def test_an_hour_of_music_is_refused_at_once(
    refused: Refused, hour: Path, tmp_path: Path, request: pytest.FixtureRequest, verb: str, run: str
) -> None:
    checkpoint = request.getfixturevalue(run)
    began = time.process_time()
    line = refused("music", verb, hour, "--checkpoint", checkpoint, "--out", tmp_path / "out")
    assert time.process_time() - began < 8
    assert str(hour) in line
    assert any(mend in line for mend in ("--last", "shorter", "at most"))


def test_of_an_hour_the_last_part_is_continued(
    manyheads: Manyheads, hour: Path, piano_run: Path, tmp_path: Path
) -> None:
    options = ("--last", "3s", "--length", "1s", "--count", 1, "--out", tmp_path / "out", "--json")
    done = manyheads("music", "continue", hour, "--checkpoint", piano_run, *options)
    assert len(done.json()["pieces"]) == 1


def test_a_soundfont_that_is_none(refused: Refused, tmp_path: Path, midi_folder: Path) -> None:
    song = shutil.copy(midi_folder / "tune0.mid", tmp_path)
    assert "none.sf2" in refused("music", "render", song, "--soundfont", tmp_path / "none.sf2")
    (tmp_path / "bad.sf2").write_bytes(b"RIFF....")
    assert "bad.sf2" in refused("music", "render", song, "--soundfont", tmp_path / "bad.sf2")
    assert "rate" in refused("music", "render", song, "--rate", "5")
