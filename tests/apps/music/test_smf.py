"""The MIDI file reader, on bytes written by hand from the standard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.music.smf import MidiError, parse

END = b"\x00\xff\x2f\x00"


def header(kind: int = 1, tracks: int = 1, division: int = 480) -> bytes:
    return b"MThd" + (6).to_bytes(4) + kind.to_bytes(2) + tracks.to_bytes(2) + division.to_bytes(2)


def track(events: bytes) -> bytes:
    return b"MTrk" + len(events).to_bytes(4) + events


def notes_of(events: bytes) -> list[list[tuple[int, int, int, int]]]:
    return [part.notes for part in parse(header() + track(events)).parts]


def test_running_status_and_note_on_of_velocity_0():
    events = bytes([0, 0x90, 60, 80, 0x83, 0x60, 60, 0, 0, 64, 70, 10, 64, 0]) + END
    assert notes_of(events) == [[(0, 480, 60, 80), (480, 490, 64, 70)]]


def test_running_status_goes_on_after_a_meta_event_as_some_programs_write_it():
    events = bytes([0, 0x90, 60, 80, 0]) + b"\xff\x01\x01a" + bytes([10, 60, 0, 0, 64, 70, 10, 64, 0]) + END
    assert notes_of(events) == [[(0, 10, 60, 80), (10, 20, 64, 70)]]


def test_channels_and_programs_part_a_track():
    events = bytes([0, 0xC0, 5, 0, 0x90, 60, 80, 0, 0x91, 64, 80, 9, 0xC0, 6, 0, 0x90, 67, 80]) + END
    parts = parse(header() + track(b"\x00\xff\x03\x05Piano" + events)).parts
    assert [(part.name, part.channel, part.program) for part in parts] == [
        ("Piano", 0, 5),
        ("Piano", 1, 0),
        ("Piano", 0, 6),
    ]


def test_a_note_off_leaves_the_note_that_began_on_its_tick():
    events = bytes([0, 0x90, 60, 80, 10, 0x90, 60, 70, 0, 0x80, 60, 0, 10, 0x80, 60, 0]) + END
    assert notes_of(events) == [[(0, 10, 60, 80), (10, 20, 60, 70)]]


def test_a_note_may_have_no_length_and_no_end():
    events = bytes([0, 0x90, 60, 80, 0, 0x80, 60, 0, 5, 0x90, 61, 80, 7, 0x90, 62, 1]) + b"\x08\xff\x2f\x00"
    assert notes_of(events) == [[(0, 0, 60, 80), (5, 20, 61, 80), (12, 20, 62, 1)]]


def test_meta_and_system_exclusive_events_are_stepped_over_and_what_follows_the_end_is_left():
    events = b"\x00\xff\x01\x03abc\x00\xf0\x02\x01\xf7\x00\xff\x7f\x00" + bytes([0, 0x90, 60, 80, 1, 60, 0])
    assert notes_of(events + END + b"\x00\x00\x00") == [[(0, 1, 60, 80)]]


def test_other_chunks_and_a_longer_header_are_stepped_over():
    events = track(bytes([0, 0x90, 60, 80, 1, 60, 0]) + END)
    data = header()[:4] + (8).to_bytes(4) + header()[8:] + b"??" + b"XFIH" + (3).to_bytes(4) + b"abc" + events + b"tail"
    assert parse(data).parts[0].notes == [(0, 1, 60, 80)]


def test_time_follows_the_tempo_map_of_any_track():
    tempo = b"\x83\x60\xff\x51\x03" + (1_000_000).to_bytes(3) + END  # after one quarter: 60 a minute
    notes = bytes([0, 0x90, 60, 80, 0x8F, 0, 60, 0]) + END  # 4 quarters
    smf = parse(header(tracks=2) + track(notes) + track(tempo))
    assert smf.seconds(np.array([0, 240, 480, 1920])).tolist() == [0.0, 0.25, 0.5, 3.5]
    assert smf.quarters(np.array([1920])).tolist() == [4.0]


@pytest.mark.parametrize(("division", "rate"), [(0xE728, 1000.0), (0xE350, 30000 / 1001 * 80)])
def test_smpte_time(division, rate):
    smf = parse(header(division=division) + track(bytes([0, 0x90, 60, 80, 100, 60, 0]) + END))
    assert smf.seconds(np.array([100]))[0] == pytest.approx(100 / rate)


WHOLE = header(tracks=2) + 2 * track(bytes([0, 0x90, 60, 80, 100, 60, 0]) + END)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"RIFF" + bytes(40), "not a MIDI file"),
        (b"MThd", "truncated in its header"),
        (header(kind=2), "type-2"),
        (header(kind=7), "damaged MIDI header"),
        (header(division=0), "time division of 0"),
        (WHOLE[:-5], "truncated in track 2 of 2"),
        (WHOLE[: len(WHOLE) // 2], "truncated"),
        (WHOLE[:14], "0 of its 2 tracks"),
        (header() + track(bytes([0, 60, 80])), "a data byte"),
        (header() + track(bytes([0, 0x90, 60])), "within an event"),
        (header() + track(bytes([0, 0x90, 60, 0x80])), "an event within"),
        (header() + track(b"\x00\xff\x01\x7fabc"), "within an event"),
        (header() + track(b"\xff\xff\xff\xff\x00"), "four bytes"),
        (header() + track(b"\x00\xff\x51\x03\x00\x00\x00"), "tempo of 0"),
        (header() + track(b"\x00\xf1\x00"), "0xf1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data, message):
    with pytest.raises(MidiError, match=message) as error:
        parse(data)
    assert "\n" not in str(error.value)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80), st.integers(1, 2), st.integers(1, 0xFFFF))
def test_any_bytes_in_a_track_give_parts_or_a_midi_error(events, count, division):
    try:
        smf = parse(header(tracks=count, division=division) + count * track(events))
    except MidiError:
        return
    for part in smf.parts:
        for start, end, pitch, velocity in part.notes:
            assert 0 <= start <= end
            assert 0 <= pitch <= 127
            assert 1 <= velocity <= 127
