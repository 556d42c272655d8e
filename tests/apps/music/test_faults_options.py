"""Options that are wrong, and results that have no place: refused in one line, with nothing written."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.music.midi import Track, grid_tracks, write_midi
from apps.music.notes import Note
from tests.command_line import Refused

Make = Callable[..., Any]


@pytest.mark.parametrize(
    "length",
    ["", "8", "bars", "eight bars", "-3s", "0bars", "nans", "infs", "1001bars", "2h", "s", "8 bars 3 s", "3601s"],
)
def test_a_length_that_is_none(refused: Refused, tiny_run: Path, tmp_path: Path, length: str) -> None:
    line = refused("music", "generate", "--checkpoint", tiny_run, "--length", length, "--out", tmp_path / "out")
    assert line.startswith("error: --length ")


@pytest.mark.parametrize(
    "options",
    [
        ("--count", "0"),
        ("--count", "257"),
        ("--count", "few"),
        ("--tempo", "0"),
        ("--tempo", "nan"),
        ("--temperature", "-1"),
        ("--temperature", "inf"),
        ("--temperature", "nan"),
        ("--top-k", "-1"),
        ("--top-p", "0"),
        ("--top-p", "nan"),
        ("--seed", "-1"),
        ("--device", "tpu"),
        ("--colour", "red"),
        ("surplus",),
    ],
)
def test_options_that_are_wrong(refused: Refused, tiny_run: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    line = refused("music", "generate", "--checkpoint", tiny_run, "--out", tmp_path / "out", *options)
    assert options[0] in line


def test_verbs_that_do_not_exist_and_files_that_are_not_named(refused: Refused) -> None:
    assert "'play'" in refused("music", "play")
    assert "FILE.mid" in refused("music", "continue")
    assert "FILE.mid" in refused("music", "report")
    assert "--help" in refused("music", "generate", "--legnth", "3s")


def test_a_device_that_is_not_here(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert "--device cuda" in refused(
        "music", "generate", "--checkpoint", tiny_run, "--out", tmp_path / "out", "--device", "cuda"
    )


@pytest.mark.parametrize("keep", [("drums",), ("soprano", "oboe"), ("soprano", "alto", "tenor", "bass"), ("",)])
def test_voices_that_cannot_be_kept(
    refused: Refused, tiny_run: Path, tmp_path: Path, make_chorale: Make, keep: tuple[str, ...]
) -> None:
    write_midi(tmp_path / "song.mid", grid_tracks(make_chorale(1, 4), 90), 90)
    options = [part for voice in keep for part in ("--keep", voice)]
    line = refused(
        "music", "harmonise", tmp_path / "song.mid", "--checkpoint", tiny_run, "--out", tmp_path / "out", *options
    )
    assert line.startswith("error: --keep")
    assert "tenor" in line


def test_a_voice_that_is_not_there(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    write_midi(tmp_path / "song.mid", [Track("Flute", 73, False, [Note(0, 1, 70, 80)])])
    options = ("--checkpoint", tiny_run, "--out", tmp_path / "out", "--keep", "bass")
    assert "no notes for the bass" in refused("music", "harmonise", tmp_path / "song.mid", *options)


def test_a_last_part_without_notes(refused: Refused, piano_run: Path, tmp_path: Path) -> None:
    write_midi(tmp_path / "song.mid", [Track("Piano", 0, False, [Note(0, 9, 60, 80)])])
    options = ("--checkpoint", piano_run, "--out", tmp_path / "out", "--last", "2s")
    assert "--last" in refused("music", "continue", tmp_path / "song.mid", *options)
    assert "--last" in refused("music", "explain", tmp_path / "song.mid", *options)


def test_places_that_cannot_be_explained(refused: Refused, tiny_run: Path, tmp_path: Path, make_chorale: Make) -> None:
    write_midi(tmp_path / "song.mid", grid_tracks(make_chorale(1, 4), 90), 90)
    options = ("--checkpoint", tiny_run, "--out", tmp_path / "out")
    for layer in ("0", "3", "-2"):
        assert "layers 1 to 2" in refused("music", "explain", tmp_path / "song.mid", *options, "--layer", layer)
    assert "--at" in refused("music", "explain", tmp_path / "song.mid", *options, "--at", "1000")
    assert "--at" in refused("music", "explain", tmp_path / "song.mid", *options, "--at", "nan")
    assert "--span" in refused("music", "explain", tmp_path / "song.mid", *options, "--span", "nan")


def test_results_that_have_no_place(
    refused: Refused, tiny_run: Path, chorales_json: Path, tmp_path: Path, make_chorale: Make
) -> None:
    song, taken = tmp_path / "song.mid", tmp_path / "taken"
    write_midi(song, grid_tracks(make_chorale(1, 4), 90), 90)
    taken.write_text("mine")
    model = ("--checkpoint", tiny_run)
    for arguments in (
        ("generate", "--length", "1bar", *model),
        ("continue", song, *model),
        ("harmonise", song, *model),
        ("explain", song, *model),
        ("evaluate", "--data", chorales_json, *model),
        ("report", song, "--data", chorales_json),
        ("train", "--data", chorales_json),
    ):
        began = time.process_time()
        assert str(taken) in refused("music", *arguments, "--out", taken)
        assert str(taken) in refused("music", *arguments, "--out", taken / "below")
        assert time.process_time() - began < 5  # before the work, not after it
    assert ".wav" in refused("music", "render", song, "--out", tmp_path / "song.mp3")
    (tmp_path / "folder.wav").mkdir()
    assert "folder.wav" in refused("music", "render", song, "--out", tmp_path / "folder.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    refused("music", "generate", "--checkpoint", tiny_run, "--out", closed, "--length", "1bar")
