"""The arcs of `explain`: the model's own attention, added up by notes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apps.music.codecs import chorale, performance
from apps.music.explain import notes_of_tokens
from apps.music.midi import Track, grid_tracks, write_midi
from apps.music.player import load
from shared.attention.record import record_attention
from tests.command_line import Manyheads

Make = Callable[..., Any]


def test_arcs_are_the_attention_of_the_note_that_is_written(
    manyheads: Manyheads, tiny_run: Path, tmp_path: Path, make_chorale: Make
) -> None:
    song, grid = tmp_path / "song.mid", make_chorale(40, 3)  # 12 steps: 48 tokens, fewer than the window of 64
    write_midi(song, grid_tracks(grid, 60), 60)
    options = ("--layer", 1, "--strongest", 50, "--at", 2.0, "--span", 0.9, "--out", tmp_path / "out", "--json")
    result = manyheads("music", "explain", song, "--checkpoint", tiny_run, *options).json()
    content = json.loads((tmp_path / "out" / "attention.json").read_text())
    player = load(tiny_run, "cpu")
    tokens = np.concatenate([[chorale.BOS], chorale.encode(grid)])
    with torch.no_grad(), record_attention(player.model) as maps:
        player.model(torch.tensor(tokens[None].astype(int)))
    attention = maps["blocks.0.attention"][0][0].numpy()  # (heads, queries, keys)
    # The third second is the third quarter: steps 8 to 11. What begins there, voice by voice:
    begun = [voice for voice in range(4) if grid[8, voice] != grid[7, voice]]
    assert result["notes_asked"] == len(begun) > 0
    expected = {}
    for voice in begun:
        row = 8 * 4 + voice  # reads BOS and the 32 + voice tokens before, writes the next
        for head in range(2):
            for other in range(4):
                # Runs of the other voice, each one note, as far as they are written.
                seen = grid[: 9 if other < voice else 8, other]
                start = 0
                while start < len(seen):
                    stop = start
                    while stop < len(seen) and seen[stop] == seen[start]:
                        stop += 1
                    weight = sum(attention[head, row, 1 + 4 * step + other] for step in range(start, stop))
                    expected[head + 1, voice, other, start] = weight
                    start = stop
    found = sorted(arc["weight"] for arc in content["arcs"])
    assert found == pytest.approx(sorted(weight for weight in expected.values() if weight > 0), abs=2e-4)
    # The names tell pitch and time.
    top = max(expected, key=lambda key: expected[key])
    strongest = content["arcs"][0]
    assert strongest == result["strongest"][0]
    assert strongest["head"] == top[0]
    assert strongest["to"].endswith(f" in bar {top[3] // 16 + 1} at {top[3] * 0.25:.2f} s")
    assert content["layer"] == 1
    assert content["model"]["sha256"] == player.card["sha256"]
    assert (content["at"], content["span"]) == (2.0, 0.9)


def test_each_head_gives_each_note_one_at_most_and_nothing_comes_from_the_future(
    manyheads: Manyheads, piano_run: Path, tmp_path: Path, make_tune: Make
) -> None:
    song = tmp_path / "song.mid"
    write_midi(song, [Track("Piano", 0, False, make_tune(41, 16))])
    options = ("--strongest", 99, "--out", tmp_path / "out", "--json")
    result = manyheads("music", "explain", song, "--checkpoint", piano_run, *options).json()
    assert result["layer"] == 2
    arcs = json.loads((tmp_path / "out" / "attention.json").read_text())["arcs"]
    total: dict[tuple[int, str], float] = {}
    for arc in arcs:
        assert float(arc["to"].split()[-2]) <= float(arc["from"].split()[-2])
        total[arc["head"], arc["from"]] = total.get((arc["head"], arc["from"]), 0) + arc["weight"]
    assert all(0 < weight <= 1.001 for weight in total.values())
    assert {head for head, _ in total} == {1, 2}
    for name, start in (("attention.png", b"\x89PNG"), ("attention.svg", b"<?xml")):
        assert (tmp_path / "out" / name).read_bytes().startswith(start)


def test_it_looks_no_further_back_than_when_it_writes(
    manyheads: Manyheads, tiny_run: Path, tmp_path: Path, make_chorale: Make
) -> None:
    """A window of 64 tokens is 16 steps: at 60 quarters a minute, four seconds."""
    song = tmp_path / "song.mid"
    write_midi(song, grid_tracks(make_chorale(42, 12), 60), 60)
    options = ("--strongest", 99, "--out", tmp_path / "out", "--json")
    manyheads("music", "explain", song, "--checkpoint", tiny_run, *options).json()
    arcs = json.loads((tmp_path / "out" / "attention.json").read_text())["arcs"]
    at = max(float(arc["from"].split()[-2]) for arc in arcs)
    assert at == 11.0
    # A note that began earlier may reach into the window: none here is longer than two seconds.
    assert min(float(arc["to"].split()[-2]) for arc in arcs) > at - 6


def test_the_first_note_looks_at_nothing(
    manyheads: Manyheads, tiny_run: Path, tmp_path: Path, make_chorale: Make
) -> None:
    song = tmp_path / "song.mid"
    grid = make_chorale(43, 2)
    grid[:, 1:] = -1
    write_midi(song, grid_tracks(grid, 60), 60)
    options = ("--at", 0, "--out", tmp_path / "out", "--json")
    done = manyheads("music", "explain", song, "--checkpoint", tiny_run, *options)
    assert done.json()["strongest"] == []


def test_every_token_belongs_to_its_note(tiny_run: Path, piano_run: Path, make_chorale: Make, make_tune: Make) -> None:
    grid = make_chorale(44, 4)
    tokens = chorale.encode(grid)
    notes, of_token = notes_of_tokens(load(tiny_run, "cpu"), tokens, 90.0)
    assert all(notes[note].pitch == token for note, token in zip(of_token, tokens, strict=True))
    tokens = performance.encode(make_tune(44, 12))
    notes, of_token = notes_of_tokens(load(piano_run, "cpu"), tokens, 90.0)
    assert sorted(notes) == sorted(performance.decode(tokens))
    for token, note in zip(tokens, of_token, strict=True):
        assert (note >= 0) == (token < 256)
        assert note < 0 or notes[note].pitch == token % 128
