"""MIDI in and out: real files beside pretty_midi and symusic, the pedal, grids, and every kind of bad file."""

import random
import tarfile
import time
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import symusic
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.music.codecs import performance
from apps.music.midi import (
    Track,
    grid_tracks,
    read_grid,
    read_grid_and_attacks,
    read_notes,
    read_tempo,
    read_tracks,
    write_midi,
)
from apps.music.notes import Note
from shared.errors import InputError

HEADER = b"MThd" + (6).to_bytes(4) + (1).to_bytes(2)


def song(track_count: int = 2, notes_each: int = 20, step: float = 0.3) -> list[Track]:
    rng = random.Random(3)
    return [
        Track(f"Part {index}", 7 * index, False, melody(rng, notes_each, 80 - 8 * index, step))
        for index in range(track_count)
    ]


def melody(rng: random.Random, count: int, top: int, step: float) -> list[Note]:
    return [
        Note(step * index, step * (index + 1), rng.randrange(top - 7, top), rng.randrange(1, 128))
        for index in range(count)
    ]


def piano(events: list[pretty_midi.Note], pedal: list[tuple[float, int]], path: Path) -> Path:
    """A file with a sustain pedal, written by pretty_midi."""
    instrument = pretty_midi.Instrument(0)
    instrument.notes.extend(events)
    instrument.control_changes.extend(pretty_midi.ControlChange(64, value, at) for at, value in pedal)
    midi = pretty_midi.PrettyMIDI(resolution=500)
    midi.instruments.append(instrument)
    midi.write(str(path))
    return path


def test_what_is_written_is_read_and_opens_in_both_libraries(tmp_path):
    tracks = [*song(), Track("Drums", 0, True, [Note(0, 0.1, 36, 100)])]
    path = tmp_path / "song.mid"
    write_midi(path, tracks, tempo=97.0)
    for got, put in zip(read_tracks(path), tracks, strict=True):
        assert got[:3] == put[:3]
        assert np.allclose(np.array(got.notes), np.array(put.notes), atol=2e-3)
    merged = read_notes(path)
    assert len(merged) == 40  # without the drums
    assert merged == sorted(merged, key=lambda note: (note.start, note.pitch))
    assert pretty_midi.PrettyMIDI(str(path)).get_end_time() == pytest.approx(6.0, abs=2e-3)
    assert symusic.Score(str(path)).note_num() == 41
    assert read_tempo(path) == pytest.approx(97.0, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(30, 240))
def test_a_performance_comes_back_from_its_file_token_for_token(tmp_path_factory, seed, tempo):
    rng = random.Random(seed)
    notes = performance.quantise(
        Note(start, start + rng.random(), rng.randrange(50, 60), rng.randrange(1, 128))
        for start in (rng.random() * 8 for _ in range(30))
    )
    path = tmp_path_factory.mktemp("midi") / "p.mid"
    write_midi(path, [Track("Piano", 0, False, notes)], tempo)
    assert performance.quantise(read_notes(path)) == notes


def test_the_pedal_holds_a_note_to_its_next_onset_or_to_pedal_up(tmp_path):
    events = [
        pretty_midi.Note(80, 60, 0.0, 0.5),  # held to its next onset
        pretty_midi.Note(80, 64, 0.0, 0.5),  # held to pedal-up
        pretty_midi.Note(80, 67, 0.0, 3.0),  # outlasts the pedal
        pretty_midi.Note(80, 60, 1.0, 1.2),
        pretty_midi.Note(80, 72, 2.5, 2.7),  # after pedal-up
        pretty_midi.Note(80, 76, 4.0, 4.2),  # the second pedal never goes up: held to the last note's end
        pretty_midi.Note(80, 48, 5.0, 6.0),
    ]
    pedal = [(0.4, 64), (0.45, 127), (2.0, 63), (4.1, 100)]
    path = piano(events, pedal, tmp_path / "pedal.mid")
    held = {(note.pitch, round(note.start, 3)): round(note.end, 3) for note in read_notes(path)}
    assert held == {
        (60, 0): 1.0,
        (64, 0): 2.0,
        (67, 0): 3.0,
        (60, 1.0): 2.0,
        (72, 2.5): 2.7,
        (76, 4.0): 6.0,
        (48, 5.0): 6.0,
    }
    dry = {(note.pitch, round(note.start, 3)): round(note.end, 3) for note in read_notes(path, pedal=False)}
    assert dry == {(event.pitch, event.start): event.end for event in events}


@pytest.fixture(scope="session")
def pop909(shared_data, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pop909")
    with tarfile.open(shared_data / "music" / "pop909_midi.tar.gz") as archive:
        members = [member for member in archive.getmembers() if member.name.endswith(".mid")][:6]
        archive.extractall(folder, members, filter="data")
    return sorted(folder.rglob("*.mid"))


def test_real_songs_are_read_as_pretty_midi_and_symusic_read_them(pop909):
    assert len(pop909) == 6
    for path in pop909:
        mine = [(track.name, note) for track in read_tracks(path) for note in track.notes]
        other = pretty_midi.PrettyMIDI(str(path))
        theirs = [
            (part.name, Note(note.start, note.end, note.pitch, note.velocity))
            for part in other.instruments
            for note in part.notes
        ]
        assert len(mine) == len(theirs)
        for (name, note), (their_name, their_note) in zip(
            sorted(mine, key=rounded), sorted(theirs, key=rounded), strict=True
        ):
            assert name == their_name
            assert note == pytest.approx(their_note, abs=1e-9)
        ticks = symusic.Score(str(path)).to("second")
        starts = np.concatenate([np.asarray(part.notes.numpy()["time"], dtype=float) for part in ticks.tracks])
        assert np.allclose(np.sort(starts), np.sort([note.start for _, note in mine]), atol=1e-3)


def rounded(named: tuple[str, Note]) -> tuple[str, float, int, float]:
    name, note = named
    return name, round(note.start, 6), note.pitch, round(note.end, 6)


def test_an_hour_is_read_quickly(tmp_path):
    path = tmp_path / "hour.mid"
    write_midi(path, [Track("Piano", 0, False, melody(random.Random(0), 9_000, 90, 0.4))])
    begin = time.process_time()
    notes = read_notes(path)
    spent = time.process_time() - begin
    assert len(notes) == 9_000
    assert notes[-1].end == pytest.approx(3600, abs=0.01)
    assert spent < 2  # about 0.1 s
    assert read_grid(path).shape == (3600 * 8, 4)


def no_notes(path: Path) -> None:
    write_midi(path, [])


def drums_alone(path: Path) -> None:
    write_midi(path, [Track("Drums", 0, True, [Note(0, 1, 36, 90)])])


def truncated(path: Path) -> None:
    write_midi(path, song())
    path.write_bytes(path.read_bytes()[:-40])


def type_2(path: Path) -> None:
    write_midi(path, song())
    data = bytearray(path.read_bytes())
    data[9] = 2
    path.write_bytes(data)


def endless(path: Path) -> None:
    events = b"\x00\xff\x51\x03\xff\xff\xff\x00\x90\x3c\x50\xff\xff\xff\x7f\x3c\x00\x00\xff\x2f\x00"
    header = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60"
    path.write_bytes(header + b"MTrk" + len(events).to_bytes(4) + events)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"MThd"), "truncated"),
        (lambda path: path.write_bytes(b"not music at all, but text"), "not a MIDI file"),
        (lambda path: path.write_bytes(bytes(range(256)) * 20), "not a MIDI file"),
        (truncated, "truncated"),
        (type_2, "type-2"),
        (no_notes, "holds no notes"),
        (drums_alone, "drums alone"),
        (endless, "more than 24 hours"),
    ],
)
@pytest.mark.parametrize("read", [read_notes, read_grid])
def test_bad_files_give_one_line_that_names_the_file(tmp_path, make, message, read):
    path = tmp_path / "bad.mid"
    make(path)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert "Error" not in str(error.value)


def test_a_grid_of_absurd_length_is_refused(tmp_path):
    path = tmp_path / "long.mid"
    write_midi(path, [Track("x", 0, False, [Note(0, 1, 60, 80), Note(20_000, 20_001, 60, 80)])], tempo=300)
    with pytest.raises(InputError, match="sixteenths"):
        read_grid(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_mutated_file_gives_notes_or_an_input_error(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    good = folder / "good.mid"
    if not good.exists():
        write_midi(good, song(notes_each=8))
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    bad = folder / "mutated.mid"
    bad.write_bytes(content[:cut])
    try:
        notes = read_notes(bad)
    except InputError:
        return
    assert notes
    performance.encode(notes[:20])
    try:
        assert read_grid(bad).shape[1] == 4
    except InputError as error:
        assert "sixteenths" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "note", [Note(0, 1, 128, 80), Note(0, 1, 60, 0), Note(-1, 1, 60, 80), Note(2, 1, 60, 80), Note(0, 1e9, 60, 80)]
)
def test_what_midi_cannot_hold_is_not_written(tmp_path, note):
    with pytest.raises(ValueError, match="cannot hold"):
        write_midi(tmp_path / "x.mid", [Track("x", 0, False, [note])])
    assert not (tmp_path / "x.mid").exists()


def chorale_grid(steps: int, silence: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grid = np.stack([rng.integers(low, low + 5, steps) for low in (70, 64, 57, 45)], axis=1)
    grid[rng.random(grid.shape) < silence] = -1
    grid[0] = grid[-1] = [72, 66, 58, 48]
    return grid


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.floats(0, 0.7), st.integers(0, 1000), st.sampled_from([60.0, 90.0, 97.3, 220.0]))
def test_a_grid_comes_back_from_its_midi_file(tmp_path_factory, steps, silence, seed, tempo):
    grid = chorale_grid(steps, silence, seed)
    path = tmp_path_factory.getbasetemp() / "grid.mid"
    write_midi(path, grid_tracks(grid, tempo), tempo)
    assert np.array_equal(read_grid(path), grid)
    nameless = [track._replace(name="x") for track in grid_tracks(grid, tempo)]
    write_midi(path, nameless[::-1], tempo)
    assert np.array_equal(read_grid(path), grid)


def test_held_notes_are_one_note():
    tracks = grid_tracks(np.array([[72, 67, -1, 48]] * 3 + [[72, 65, -1, 48]]), tempo=60.0)
    assert [track.name for track in tracks] == ["Soprano", "Alto", "Tenor", "Bass"]
    assert tracks[0].notes == [Note(0, 1, 72, 80)]
    assert tracks[1].notes == [Note(0, 0.75, 67, 80), Note(0.75, 1, 65, 80)]
    assert tracks[2].notes == []


def test_a_repeated_note_is_told_from_a_held_one(tmp_path):
    notes = [Note(0, 0.5, 72, 80), Note(0.5, 1, 72, 80), Note(1, 2, 71, 80)]
    bass = [Note(0, 2, 48, 80)]
    for name, tracks in {
        "voices": [Track("Soprano", 52, False, notes), Track("Bass", 52, False, bass)],
        "piano": [Track("Piano", 0, False, sorted(notes + bass))],
    }.items():
        write_midi(tmp_path / f"{name}.mid", tracks)
        grid, attacks = read_grid_and_attacks(tmp_path / f"{name}.mid")
        assert [np.flatnonzero(column).tolist() for column in attacks.T] == [[0, 4, 8], [], [], [0]]
        assert grid_tracks(grid, 120.0, attacks=attacks)[0].notes == notes
        assert grid_tracks(grid, 120.0, attacks=attacks[:3])[0].notes == grid_tracks(grid, 120.0)[0].notes
        assert len(grid_tracks(grid, 120.0)[0].notes) == 2


def test_a_file_lasts_as_long_as_it_is_told_to(tmp_path):
    track = Track("Piano", 0, False, [Note(0, 1, 60, 80)])
    for seconds, lasts in ((None, 1.0), (0.5, 1.0), (3.25, 3.25)):
        write_midi(tmp_path / "a.mid", [track], 90.0, seconds)
        assert pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).get_end_time() == pytest.approx(lasts, abs=0.002)
        assert symusic.Score(str(tmp_path / "a.mid")).to("second").end() == pytest.approx(lasts, abs=0.002)
        assert read_notes(tmp_path / "a.mid")[0].end == pytest.approx(1.0, abs=0.002)


def test_one_polyphonic_track_is_read_from_its_outer_voices(tmp_path):
    chords = [[72], [72, 48], [72, 64, 48], [72, 55, 48], [72, 67, 60, 48], [76, 72, 67, 60, 48]]
    notes = [Note(i * 0.125, (i + 1) * 0.125, pitch, 80) for i, chord in enumerate(chords) for pitch in chord]
    path = tmp_path / "piano.mid"
    write_midi(path, [Track("Piano", 0, False, notes)])
    assert read_grid(path).tolist() == [
        [72, -1, -1, -1],
        [72, -1, -1, 48],
        [72, 64, -1, 48],
        [72, -1, 55, 48],
        [72, 67, 60, 48],
        [76, 72, 60, 48],
    ]


def test_a_named_soprano_alone_is_the_soprano(tmp_path):
    path = tmp_path / "s.mid"
    write_midi(path, [Track("Bass", 0, False, [Note(0, 0.5, 45, 80)])])
    assert read_grid(path).tolist() == [[-1, -1, -1, 45]] * 4
