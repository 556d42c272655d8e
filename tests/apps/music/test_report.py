"""`report`: quotations are found where they were planted, and marks where they were made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.music.corpora import load_corpus
from apps.music.midi import Track, grid_tracks, write_midi
from tests.command_line import Manyheads

Make = Callable[..., Any]


@pytest.fixture
def strange() -> np.ndarray:
    """Four bars that no training piece holds: leaps of every size, in notes of three sixteenths."""
    rng = np.random.default_rng(9)
    notes = np.stack([rng.integers(low, low + 11, 22) for low in (70, 59, 50, 38)], axis=1)
    return np.repeat(notes, 3, axis=0)[:64]


def test_a_planted_quotation_is_found(
    manyheads: Manyheads, chorales_json: Path, tmp_path: Path, strange: np.ndarray
) -> None:
    """The bass of bars 2 and 3 of a training piece, a third higher in the tenor, from bar 3 on."""
    source = np.array(json.loads(chorales_json.read_text())["train"][17])
    strange[32:56, 2] = source[16:40, 3] + 4
    write_midi(tmp_path / "new.mid", grid_tracks(strange, 90), 90)
    done = manyheads(
        "music", "report", tmp_path / "new.mid", "--data", chorales_json, "--out", tmp_path / "out", "--json"
    ).json()
    (row,) = done["novelty"]
    run = row["transposed"]
    planted = 1 + int((np.diff(source[16:40, 3]) != 0).sum())
    assert run["length_notes"] >= planted - 1  # the last note may be cut short
    assert run["query_voice"] == "tenor"
    assert run["query_bar"] == 3
    # Small music: another piece may hold the same run; what is named must hold it.
    named = {piece.name: piece for piece in load_corpus(chorales_json, "chorale").splits["train"]}[run["piece"]]
    voice = ("soprano", "alto", "tenor", "bass").index(run["source_voice"])
    line = named.variants[0].reshape(-1, 4)[:, voice].astype(int)
    at = (run["source_bar"] - 1) * 16
    steps = round(run["seconds_or_bars"] * 16)
    begins = strange[32 : 32 + steps, 2] - run["transposition"]
    assert any(np.array_equal(line[start : start + steps], begins) for start in range(at, at + 16))
    assert str(run["length_notes"]) in row["sentences"][1]
    assert f"bar {run['source_bar']} of {run['piece']}" in row["sentences"][1]


def test_a_training_piece_is_found_whole(manyheads: Manyheads, chorales_json: Path, tmp_path: Path) -> None:
    grid = np.array(json.loads(chorales_json.read_text())["train"][5])
    write_midi(tmp_path / "copy.mid", grid_tracks(grid, 90), 90)
    options = ("--data", chorales_json, "--out", tmp_path / "out")
    done = manyheads("music", "report", tmp_path / "copy.mid", *options, "--json").json()
    run = done["novelty"][0]["chords_exact"]
    assert run["piece"] == "train/005"
    assert (run["source_bar"], run["query_bar"], run["transposition"]) == (1, 1, 0)
    assert run["seconds_or_bars"] == len(grid) / 16
    page = (tmp_path / "out" / "report.html").read_text()
    assert "train/005" in page
    assert "data:image/png;base64" in page
    kept = json.loads((tmp_path / "out" / "report.json").read_text())
    assert kept["novelty"] == done["novelty"]
    for row in kept["voice_leading"]:
        assert set(row) == {"mark", "generated", "held_out"}


def test_parallel_fifths_are_counted_beside_the_held_out(
    manyheads: Manyheads, chorales_json: Path, tmp_path: Path
) -> None:
    roots = np.repeat([60, 62, 64, 65, 67], 4)
    grid = np.stack([roots + 16, roots + 4, roots - 5, roots - 12], axis=1)  # tenor and bass a fifth apart
    write_midi(tmp_path / "fifths.mid", grid_tracks(grid, 90), 90)
    options = ("--data", chorales_json, "--out", tmp_path / "out", "--json")
    done = manyheads("music", "report", tmp_path / "fifths.mid", *options).json()
    rows = {row["mark"]: row for row in done["voice_leading"]}
    assert rows["parallel fifths"]["generated"] >= 100
    assert rows["parallel octaves"]["generated"] == 100
    (row,) = done["novelty"]
    fifths = [mark for mark in row["marks"] if mark["mark"] == "parallel fifths" and mark["voices"] == "tenor, bass"]
    assert [(mark["bar"], mark["beat"]) for mark in fifths] == [(1, 2), (1, 3), (1, 4), (2, 1)]
    assert f"Voice leading: {len(row['marks'])} marks." in (tmp_path / "out" / "report.html").read_text()


def test_files_of_one_name_do_not_overwrite_each_other(
    manyheads: Manyheads, midi_folder: Path, tmp_path: Path, make_tune: Make
) -> None:
    paths = [tmp_path / name / "song.mid" for name in ("a", "b")]
    for seed, path in enumerate(paths):
        write_midi(path, [Track("Piano", 0, False, make_tune(seed + 50))])
    options = ("--codec", "performance", "--data", midi_folder, "--out", tmp_path / "out", "--json")
    done = manyheads("music", "report", *paths, *options).json()
    assert len(set(done["written"])) == 2
    assert all(Path(path).exists() for path in done["written"])
    assert [row["file"] for row in done["novelty"]] == [str(path) for path in paths]


def test_a_quoted_performance_is_found(
    manyheads: Manyheads, midi_folder: Path, tmp_path: Path, make_tune: Make
) -> None:
    corpus = load_corpus(midi_folder, "performance")
    piece = corpus.splits["train"][0]
    seed = int(Path(piece.name).stem.removeprefix("tune"))
    quoted = [n._replace(start=n.start + 1.0, end=n.end + 1.0, pitch=n.pitch + 2) for n in make_tune(seed)]
    write_midi(tmp_path / "song.mid", [Track("Piano", 0, False, quoted)])
    options = ("--codec", "performance", "--data", midi_folder, "--out", tmp_path / "out", "--json")
    run = manyheads("music", "report", tmp_path / "song.mid", *options).json()["novelty"][0]["transposed"]
    assert (run["piece"], run["length_notes"], run["transposition"]) == (piece.name, len(quoted), 2)
    assert (run["source_second"], run["query_second"]) == (0, 1)


def test_data_of_one_piece_has_nothing_held_out(manyheads: Manyheads, tmp_path: Path, strange: np.ndarray) -> None:
    write_midi(tmp_path / "data" / "one.mid", grid_tracks(strange, 90), 90)
    options = ("--data", tmp_path / "data", "--out", tmp_path / "out", "--json")
    done = manyheads("music", "report", tmp_path / "data" / "one.mid", *options).json()
    assert "voice_leading" not in done
    assert done["novelty"][0]["exact"]["piece"] == "one.mid"
