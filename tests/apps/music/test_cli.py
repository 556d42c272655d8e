"""The app as a user meets it: every verb through the real entry, on files made here and on real ones."""

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import symusic

from apps.music.midi import Track, grid_tracks, read_grid, read_notes, read_tracks, write_midi
from tests.command_line import ONE_THREAD, ROOT, Manyheads, in_another_process

VERBS = ("train", "evaluate", "generate", "continue", "harmonise", "accompany", "explain", "report", "render", "info")

Make = Callable[..., Any]


def lengths(path: Path | str) -> list[float]:
    """The length of a MIDI file in seconds as pretty_midi and as symusic read it."""
    return [pretty_midi.PrettyMIDI(str(path)).get_end_time(), float(symusic.Score(str(path)).to("second").end())]


def midis(done: Any) -> list[Path]:
    return [Path(piece["midi"]) for piece in done.json()["pieces"]]


def test_help_names_every_verb(manyheads: Manyheads) -> None:
    done = manyheads("music", "--help")
    assert done.code == 0
    for verb in VERBS:
        assert f" {verb} " in done.out
        assert manyheads("music", verb, "--help").code == 0


@pytest.mark.parametrize(("length", "seconds"), [("2bars", 4.8), ("1.5bars", 3.6), ("6s", 6.0)])
def test_a_generated_chorale_is_complete(
    manyheads: Manyheads, tiny_run: Path, tmp_path: Path, length: str, seconds: float
) -> None:
    import music21

    done = manyheads(
        *("music", "generate", "--checkpoint", tiny_run, "--out", tmp_path / "new" / "made", "--length", length),
        *("--count", 2, "--tempo", 100, "--seed", 5, "--json"),
    )
    paths = midis(done)
    assert done.err == ""
    assert len(paths) == 2
    for path in paths:
        assert lengths(path) == pytest.approx([seconds] * 2, abs=0.005)
        score = music21.converter.parse(path.with_suffix(".musicxml"))
        assert [part.partName for part in score.parts] == ["Soprano", "Alto", "Tenor", "Bass"]
        # Bars are filled up with rests; up to there the score holds the notes of the MIDI file.
        grid = read_grid(path)
        for voice, part in enumerate(score.parts):
            written = np.full(len(grid) + 16, -1)
            for note in part.flatten().notes:
                start, stop = (round(float(at) * 4) for at in (note.offset, note.offset + note.quarterLength))
                written[start:stop] = note.pitch.midi
            assert np.array_equal(written[: len(grid)], grid[:, voice])
        assert path.with_suffix(".png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        facts = json.loads(path.with_suffix(".json").read_text())
        card = json.loads((tiny_run / "model.json").read_text())
        assert facts["verb"] == "generate"
        assert facts["model"]["sha256"] == card["sha256"]
        assert facts["sampling"] == {"temperature": 0.95, "top_k": 0, "top_p": 0.98, "seed": 5}
        assert (facts["tempo"], facts["count"]) == (100, 2)
        assert facts["length"]["unit"] in length
        assert facts["versions"]["manyheads"]
        assert sorted(facts["files"]) == sorted(
            str(path.with_suffix(s)) for s in (".mid", ".musicxml", ".png", ".json")
        )
    ranks = [json.loads(path.with_suffix(".json").read_text())["log_likelihood_per_token"] for path in paths]
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize(("length", "seconds"), [("3s", 3.0), ("1bar", 2.0)])
def test_a_generated_performance_lasts_as_long_as_promised(
    manyheads: Manyheads, piano_run: Path, tmp_path: Path, length: str, seconds: float
) -> None:
    done = manyheads(
        *("music", "generate", "--checkpoint", piano_run, "--out", tmp_path, "--length", length, "--count", 3),
        *("--tempo", 120, "--json"),
    )
    for path in midis(done):
        assert lengths(path) == pytest.approx([seconds] * 2, abs=0.005)
        assert read_notes(path)
        assert not path.with_suffix(".musicxml").exists()


def test_the_seed_decides(manyheads: Manyheads, tiny_run: Path, tmp_path: Path) -> None:
    made = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ("--checkpoint", tiny_run, "--out", tmp_path / name, "--length", "2bars", "--seed", seed)
        paths = midis(manyheads("music", "generate", *options, "--json"))
        made[name] = [path.read_bytes() for path in paths] + [paths[0].with_suffix(".musicxml").read_bytes()]
    assert made["a"] == made["b"]
    assert made["a"][0] != made["c"][0]


def test_a_continuation_keeps_what_it_continues(
    manyheads: Manyheads, tiny_run: Path, tmp_path: Path, make_chorale: Make
) -> None:
    primer, grid = tmp_path / "primer.mid", make_chorale(300, 6)
    write_midi(primer, grid_tracks(grid, 132), 132)
    done = manyheads(
        *("music", "continue", primer, "--checkpoint", tiny_run, "--out", tmp_path / "out", "--length", "2bars"),
        *("--count", 3, "--json"),
    )
    paths = midis(done)
    assert [path.stem for path in paths] == ["continuation-1", "continuation-2", "continuation-3"]
    for path in paths:
        assert np.array_equal(read_grid(path)[: len(grid)], grid)
        assert len(read_grid(path)) == len(grid) + 32
        # At the tempo of the primer: its notes stand where they stood.
        assert lengths(path) == pytest.approx([(24 + 32) * 15 / 132] * 2, abs=0.01)
    assert len({path.read_bytes() for path in paths}) == 3
    likelihood = [piece["log_likelihood_per_token"] for piece in done.json()["pieces"]]
    assert likelihood == sorted(likelihood, reverse=True)
    assert all(value < 0 for value in likelihood)


def test_a_performance_is_continued(manyheads: Manyheads, piano_run: Path, tmp_path: Path, make_tune: Make) -> None:
    from apps.music.codecs.performance import quantise

    primer, notes = tmp_path / "primer.mid", make_tune(300, 12)
    write_midi(primer, [Track("Piano", 0, False, notes)])
    end = max(note.end for note in notes)
    options = ("--checkpoint", piano_run, "--out", tmp_path / "out", "--length", "2s", "--count", 2, "--json")
    for path in midis(manyheads("music", "continue", primer, *options)):
        kept = [note for note in read_notes(path) if note.start < end - 0.005]
        expected = quantise(notes)
        assert len(kept) == len(expected)
        for note, wanted in zip(kept, sorted(expected, key=lambda note: (note.start, note.pitch)), strict=True):
            assert note.pitch == wanted.pitch
            assert note[:2] == pytest.approx(wanted[:2], abs=0.002)
            assert note.velocity == wanted.velocity
        assert lengths(path) == pytest.approx([end + 2] * 2, abs=0.01)


@pytest.mark.parametrize(("last", "kept"), [("1s", 1.0), ("99s", 2.95)])
def test_the_last_part_of_a_performance(
    manyheads: Manyheads, piano_run: Path, tmp_path: Path, make_tune: Make, last: str, kept: float
) -> None:
    primer = tmp_path / "primer.mid"
    write_midi(primer, [Track("Piano", 0, False, make_tune(300, 12))])
    options = ("--checkpoint", piano_run, "--out", tmp_path / "out", "--length", "1s", "--count", 1, "--json")
    (path,) = midis(manyheads("music", "continue", primer, "--last", last, *options))
    assert lengths(path) == pytest.approx([kept + 1] * 2, abs=0.05)


def test_the_last_part_of_a_chorale_begins_with_a_bar(
    manyheads: Manyheads, tiny_run: Path, tmp_path: Path, make_chorale: Make
) -> None:
    primer, grid = tmp_path / "primer.mid", make_chorale(300, 15)[:58]  # three bars and ten sixteenths
    write_midi(primer, grid_tracks(grid, 90), 90)
    options = ("--checkpoint", tiny_run, "--out", tmp_path / "out", "--length", "1bar", "--count", 1, "--json")
    (path,) = midis(manyheads("music", "continue", primer, "--last", "1bar", *options))
    assert np.array_equal(read_grid(path)[:26], grid[32:])
    assert len(read_grid(path)) == 26 + 16


def test_a_given_soprano_is_kept(manyheads: Manyheads, tiny_run: Path, tmp_path: Path, make_chorale: Make) -> None:
    melody, grid = tmp_path / "melody.mid", make_chorale(301, 8)
    write_midi(melody, [track for track in grid_tracks(grid, 72) if track.name == "Soprano"], 72)
    options = ("--checkpoint", tiny_run, "--out", tmp_path / "out", "--particles", 8, "--count", 2, "--json")
    done = manyheads("music", "harmonise", melody, *options)
    for path in midis(done):
        made = read_grid(path)
        assert np.array_equal(made[:, 0], grid[:, 0])
        assert (made[:, 1:] >= 0).any(axis=0).all()
        assert lengths(path) == pytest.approx(lengths(melody), abs=0.005)
        facts = json.loads(path.with_suffix(".json").read_text())
        assert facts["keep"] == ["soprano"]
        assert facts["particles"] == 8


def test_repeated_notes_of_a_melody_stay_repeated(manyheads: Manyheads, tiny_run: Path, tmp_path: Path) -> None:
    from apps.music.notes import Note

    melody = tmp_path / "twinkle.mid"
    notes = [Note(i * 0.5, i * 0.5 + 0.5, pitch, 80) for i, pitch in enumerate([60, 60, 67, 67, 69, 69, 67])]
    write_midi(melody, [Track("Flute", 73, False, notes)])
    options = ("--checkpoint", tiny_run, "--out", tmp_path / "out", "--particles", 4, "--json")
    (path,) = midis(manyheads("music", "harmonise", melody, *options))
    soprano = next(track for track in read_tracks(path) if track.name == "Soprano")
    assert [note.pitch for note in soprano.notes] == [note.pitch for note in notes]
    assert [note.start for note in soprano.notes] == pytest.approx([note.start for note in notes], abs=0.002)


def test_any_voices_can_be_given(manyheads: Manyheads, tiny_run: Path, tmp_path: Path, make_chorale: Make) -> None:
    given, grid = tmp_path / "given.mid", make_chorale(302, 4)
    write_midi(given, grid_tracks(grid, 90), 90)
    options = ("--checkpoint", tiny_run, "--out", tmp_path / "out", "--particles", 4, "--json")
    (path,) = midis(manyheads("music", "harmonise", given, "--keep", "Bass", "--keep", "alto", *options))
    assert np.array_equal(read_grid(path)[:, [1, 3]], grid[:, [1, 3]])
    assert not np.array_equal(read_grid(path), grid)


def test_a_melody_out_of_range_is_told(manyheads: Manyheads, tiny_run: Path, tmp_path: Path) -> None:
    from apps.music.notes import Note

    melody = tmp_path / "high.mid"
    write_midi(melody, [Track("Piccolo", 72, False, [Note(0, 1, 90, 80), Note(1, 2, 91, 80)])])
    options = ("--checkpoint", tiny_run, "--out", tmp_path / "out", "--particles", 4, "--json")
    done = manyheads("music", "harmonise", melody, *options)
    (warning,) = done.json()["warnings"]
    assert "F♯6 to G6, the model knows C4 to A5; --transpose -12 mends it" in warning
    assert done.err.startswith("note: ")
    moved = manyheads("music", "harmonise", melody, *options, "--transpose", -12)
    assert "warnings" not in moved.json()
    assert set(read_grid(midis(moved)[0])[:, 0]) == {78, 79}
    assert "beyond the pitches of MIDI" in manyheads("music", "harmonise", melody, *options, "--transpose", 40).err


def test_fewer_harmonisations_than_asked_for_are_told(
    manyheads: Manyheads, tiny_run: Path, tmp_path: Path, make_chorale: Make
) -> None:
    melody = tmp_path / "melody.mid"
    write_midi(melody, [track for track in grid_tracks(make_chorale(301, 1), 72) if track.name == "Soprano"], 72)
    options = ("--checkpoint", tiny_run, "--out", tmp_path / "out", "--particles", 4, "--json")
    done = manyheads("music", "harmonise", melody, *options, "--count", 3, "--temperature", 0)
    assert len(midis(done)) == 1
    assert "1 different harmonisations were found, not 3" in done.json()["warnings"][0]


def test_an_accompaniment_holds_the_melody(
    manyheads: Manyheads, accompany_run: Path, tmp_path: Path, make_tune: Make
) -> None:
    melody, notes = tmp_path / "melody.mid", [note for note in make_tune(303, 12) if note.pitch >= 55]
    write_midi(melody, [Track("Voice", 53, False, notes)], 140)
    options = ("--checkpoint", accompany_run, "--out", tmp_path / "out", "--count", 2, "--json")
    for path in midis(manyheads("music", "accompany", melody, *options)):
        tracks = {track.name: track.notes for track in read_tracks(path)}
        assert [note[2:] for note in tracks["Melody"]] == [note[2:] for note in notes]
        assert np.allclose([note[:2] for note in tracks["Melody"]], [note[:2] for note in notes], atol=0.002)
        assert tracks["Piano"]
        assert lengths(path) == pytest.approx([max(note.end for note in notes)] * 2, abs=0.01)


def test_of_a_whole_song_the_melody_is_accompanied(
    manyheads: Manyheads, accompany_run: Path, pop909: Path, tmp_path: Path
) -> None:
    song = pop909 / "POP909" / "001" / "001.mid"
    options = ("--checkpoint", accompany_run, "--out", tmp_path / "out", "--count", 1, "--json")
    (path,) = midis(manyheads("music", "accompany", song, *options))
    expected = next(track for track in read_tracks(song) if track.name == "MELODY")
    melody = next(track for track in read_tracks(path) if track.name == "Melody")
    assert [note.pitch for note in melody.notes] == [note.pitch for note in expected.notes]


def test_render_plays_what_was_made(manyheads: Manyheads, tmp_path: Path, make_tune: Make) -> None:
    import soundfile

    song = tmp_path / "song.mid"
    write_midi(song, [Track("Piano", 0, False, make_tune(304, 4))])
    done = manyheads("music", "render", song, "--rate", 22050, "--json").json()
    sound, rate = soundfile.read(tmp_path / "song.wav")
    assert rate == 22050
    assert len(sound) / rate == pytest.approx(done["seconds"], abs=0.01)
    assert done["seconds"] >= 0.95
    assert np.abs(sound).max() > 0.1
    assert Path(done["picture"]).read_bytes()[:4] == b"\x89PNG"


def test_info_says_what_a_model_is(manyheads: Manyheads, tiny_run: Path, accompany_run: Path) -> None:
    facts = manyheads("music", "info", "--checkpoint", tiny_run, "--json").json()
    assert facts["codec"] == "chorale"
    assert facts["parameters"] > 10_000
    assert facts["metrics"]["valid_nll"] > 0
    assert facts["data"]["pieces"]["train"] == 40
    assert "chorale" in facts["shipped_configs"]
    plain = manyheads("music", "info", "--checkpoint", accompany_run / "model.safetensors")
    assert plain.code == 0
    assert "source vocab" in plain.out


def test_every_shipped_config_is_valid_and_named(manyheads: Manyheads, tmp_path: Path, chorales_json: Path) -> None:
    """`--config NAME` reads it; nothing is trained, since the data is not there."""
    from apps.music.config import CONFIGS
    from shared.config import shipped_configs

    for name in shipped_configs(CONFIGS):
        done = manyheads("music", "train", "--config", name, "--data", tmp_path / "none", "--out", tmp_path / "out")
        assert done.code == 2
        assert "none: no such file" in done.err


def test_a_skipped_file_is_counted_and_named(piano_training: Any) -> None:
    result = piano_training.json()
    assert result["data"]["skipped"] == 2
    assert sum(result["data"]["pieces"].values()) == 13
    assert any(line.startswith("cut.mid: is truncated") for line in result["skipped"])
    assert any(line.startswith("letter.midi: is not a MIDI file") for line in result["skipped"])
    assert piano_training.err == ""


def test_the_summary_for_people_names_results(manyheads: Manyheads, tiny_run: Path, tmp_path: Path) -> None:
    done = manyheads("music", "generate", "--checkpoint", tiny_run, "--out", tmp_path / "out", "--length", "1bar")
    assert done.code == 0
    assert done.err == ""
    assert "piece.mid" in done.out
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.out)


def test_as_a_process_from_another_folder(tiny_run: Path, tmp_path: Path) -> None:
    """What no test inside this process sees: relative paths, warnings of libraries, what else writes to the output."""
    (tmp_path / "run").symlink_to(tiny_run)
    options = ["music", "generate", "--checkpoint", "run", "--length", "1bar", "--out", "made", "--json"]
    done = process(in_another_process(*options), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["pieces"][0]["midi"] == "made/piece.mid"


def test_the_console_script_says_what_is_wrong(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("manyheads")
    if not script.exists():
        pytest.skip("the console script is not installed beside this Python")
    for wrong, named in (("--length", "soon"), ("--colour", "red")):
        done = process([str(script), "music", "generate", wrong, named], tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert wrong in done.stderr
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_generating_does_not_wait_for_the_training_library() -> None:
    """Lightning takes seconds to import, and writing music needs none of it."""
    code = "import sys, apps.music.predict, apps.music.explain, apps.music.report; print('lightning' in sys.modules)"
    assert process([sys.executable, "-c", code], ROOT).stdout == "False\n"


def process(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ONE_THREAD)


def test_real_songs(
    manyheads: Manyheads, shared_data: Path, accompany_run: Path, piano_run: Path, tmp_path: Path
) -> None:
    """POP909 songs, by people and with pedal and tempo changes: accompanied, continued, explained."""
    with tarfile.open(shared_data / "music" / "pop909_midi.tar.gz") as archive:
        member = next(m for m in archive if m.name.endswith("001/001.mid"))
        archive.extract(member, tmp_path, filter="data")
    song = tmp_path / member.name
    cut = tmp_path / "cut.mid"
    melody = next(track for track in read_tracks(song) if track.name.upper() == "MELODY")
    first = min(note.start for note in melody.notes)
    early = [n._replace(start=n.start - first, end=n.end - first) for n in melody.notes if n.end < first + 12]
    write_midi(cut, [melody._replace(notes=early)])
    made = manyheads(
        "music", "accompany", cut, "--checkpoint", accompany_run, "--out", tmp_path / "a", "--count", 1, "--json"
    )
    (path,) = midis(made)
    assert lengths(path) == pytest.approx([max(note.end for note in early)] * 2, abs=0.01)
    options = ("--checkpoint", piano_run, "--last", "4s", "--out", tmp_path / "c", "--length", "2s", "--count", 1)
    (path,) = midis(manyheads("music", "continue", song, *options, "--json"))
    assert max(lengths(path)) <= 6.3
    done = manyheads(
        "music", "explain", song, "--checkpoint", piano_run, "--last", "4s", "--out", tmp_path / "e", "--json"
    )
    assert done.json()["strongest"]


def test_real_chorales(manyheads: Manyheads, shared_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    """A soprano of Bach's, harmonised anew and compared with its own training set."""
    data = shared_data / "music" / "Jsb16thSeparated.json"
    grid = np.array(json.loads(data.read_text())["test"][0])[:64].astype(int)
    bach = tmp_path / "bach.mid"
    write_midi(bach, grid_tracks(grid, 80), 80)
    done = manyheads(
        *("music", "harmonise", bach, "--checkpoint", tiny_run, "--particles", 8, "--out", tmp_path / "h", "--json")
    )
    (path,) = midis(done)
    assert np.array_equal(read_grid(path)[:, 0], grid[:, 0])
    done = manyheads("music", "report", path, bach, "--data", data, "--out", tmp_path / "r", "--json").json()
    assert done["pieces_compared"] == 229
    assert len(done["novelty"]) == 2
    assert {row["mark"] for row in done["voice_leading"]} >= {"parallel fifths", "parallel octaves"}


def test_verbs_that_do_not_train_start_without_lightning() -> None:
    """Which takes longer to import than all the rest; nor do they need torch's compiler."""
    code = "import sys, apps.music.explain, apps.music.render; from apps.music.predict import load; load(None, 'cpu')"
    code += "; assert not {'lightning', 'torch._dynamo'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
