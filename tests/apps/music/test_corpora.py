"""Corpora from every kind of data, with what users' folders hold: damaged files, duplicates, nothing at all."""

import csv
import io
import json
import os
import random
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.music import corpora
from apps.music.codecs import chorale, performance
from apps.music.corpora import SPLITS, Corpus, load_corpus, split_by_key, summary
from apps.music.midi import Track, grid_tracks, read_notes, write_midi
from apps.music.notes import Note
from shared.errors import InputError


def tune(seed: int, length: int = 12, low: int = 50) -> list[Note]:
    rng = random.Random(seed)
    return [Note(0.3 * i, 0.3 * i + 0.2, rng.randrange(low, low + 20), rng.randrange(30, 120)) for i in range(length)]


def write_tune(path: Path, seed: int) -> Path:
    write_midi(path, [Track("Piano", 0, False, tune(seed))])
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve good files, one of them in a folder below."""
    music = tmp_path / "music"
    for seed in range(11):
        write_tune(music / f"{seed:02d}.mid", seed)
    write_tune(music / "below" / "more.MIDI", 11)
    (music / "notes.txt").write_text("not music")
    return music


def pieces_of(corpus: Corpus) -> dict[str, corpora.Piece]:
    return {piece.name: piece for split in SPLITS for piece in corpus.splits[split]}


def test_a_folder_of_midi_becomes_tokens_in_three_splits(folder, tmp_path):
    corpus = load_corpus(folder, "performance", cache=tmp_path / "cache")
    pieces = pieces_of(corpus)
    assert set(pieces) == {f"{seed:02d}.mid" for seed in range(11)} | {"below/more.MIDI"}
    assert all(corpus.splits[split] for split in SPLITS)
    assert corpus.skipped == []
    assert "SHA-1" in corpus.split_rule
    for name, piece in pieces.items():
        assert piece.source is None
        assert performance.decode(piece.variants[0]) == performance.quantise(read_notes(folder / name))
    numbers = summary(corpus)
    assert sum(numbers["pieces"].values()) == 12
    assert json.loads(json.dumps(numbers)) == numbers


def test_stretches_are_variants(folder, tmp_path):
    corpus = load_corpus(folder, "performance", cache=tmp_path / "cache", stretches=(0.95, 1.0, 1.05))
    for piece in pieces_of(corpus).values():
        ends = [performance.decode(tokens)[-1].end for tokens in piece.variants]
        assert ends == pytest.approx([0.95 * ends[1], ends[1], 1.05 * ends[1]], abs=0.011)


def test_a_damaged_file_among_good_ones_is_skipped_counted_and_named(folder, tmp_path):
    whole = (folder / "03.mid").read_bytes()
    (folder / "03.mid").write_bytes(whole[:-30])
    (folder / "04.mid").write_bytes(b"")
    (folder / "05.mid").write_bytes(b"<html>Not found</html>")
    corpus = load_corpus(folder, "performance", cache=tmp_path / "cache")
    assert len(pieces_of(corpus)) == 9
    reasons = dict(corpus.skipped)
    assert set(reasons) == {"03.mid", "04.mid", "05.mid"}
    assert "truncated" in reasons["03.mid"]
    assert "empty" in reasons["04.mid"]
    assert "not a MIDI file" in reasons["05.mid"]
    assert str(folder) not in " ".join(reasons.values())


def test_parallel_parsing_gives_what_one_process_gives(folder, tmp_path):
    (folder / "03.mid").write_bytes(b"MThd")
    calls = []
    one = load_corpus(folder, "performance", cache=tmp_path / "a", workers=1)
    two = load_corpus(
        folder, "performance", cache=tmp_path / "b", workers=2, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(done, 12) for done in range(1, 13)]
    assert_same(one, two)


def assert_same(one: Corpus, two: Corpus) -> None:
    assert summary(one) == summary(two)
    assert one.skipped == two.skipped
    for split in SPLITS:
        for a, b in zip(one.splits[split], two.splits[split], strict=True):
            assert a.name == b.name
            assert (a.source is None) == (b.source is None)
            for left, right in zip([*a.variants, *(a.source or [])], [*b.variants, *(b.source or [])], strict=True):
                assert left.dtype == right.dtype == np.int16
                assert np.array_equal(left, right)


def test_the_cache_is_used_until_a_file_changes_and_made_anew_when_damaged(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = load_corpus(folder, "performance", cache=cache)
    (kept,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(corpora, "parse_all", None)  # would raise if anything were parsed
        assert_same(load_corpus(folder, "performance", cache=cache), first)
        for change in ({"codec": "chorale"}, {"codec": "performance", "stretches": (1.1,)}):
            with pytest.raises(TypeError):
                load_corpus(folder, cache=cache, **change)
    for damage in (b"", b"PK\x03\x04 not an archive", kept.read_bytes()[:200]):
        kept.write_bytes(damage)
        assert_same(load_corpus(folder, "performance", cache=cache), first)
    write_tune(folder / "00.mid", 99)
    second = load_corpus(folder, "performance", cache=cache)
    assert second.sha256 != first.sha256
    assert len(list(cache.iterdir())) == 2


def test_the_cache_lies_where_the_environment_says(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MANYHEADS_CACHE", raising=False)
    load_corpus(folder, "performance")
    assert len(list((tmp_path / "xdg" / "manyheads").iterdir())) == 1
    monkeypatch.setenv("MANYHEADS_CACHE", str(tmp_path / "own"))
    load_corpus(folder, "performance")
    assert len(list((tmp_path / "own").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert pieces_of(load_corpus(folder, "performance", cache=tmp_path / "file"))


def test_copies_of_a_file_never_part_between_splits(tmp_path):
    for seed in range(5):
        for copy in range(2):
            write_tune(tmp_path / "music" / f"{copy}-{seed}.mid", seed)
    corpus = load_corpus(tmp_path / "music", "performance", cache=tmp_path / "cache")
    place = {piece.name: split for split in SPLITS for piece in corpus.splits[split]}
    assert len(place) == 10
    assert all(len({place[f"{copy}-{seed}.mid"] for copy in range(2)}) == 1 for seed in range(5))


KEYS = st.lists(st.integers(0, 2**32 - 1).map(lambda value: f"{value:08x}" + "0" * 32), max_size=30)


@settings(deadline=None)  # a busy machine is no failure
@given(KEYS)
def test_splits_by_key(keys):
    splits = split_by_key(keys)
    assert len(splits) == len(keys)
    assert len({(key, split) for key, split in zip(keys, splits, strict=True)}) == len(set(keys))
    count = len(set(keys))
    if count >= 3:
        assert set(splits) == set(SPLITS)
    elif count:
        assert set(splits) == ({"train", "valid"} if count == 2 else {"train"})


def test_a_split_does_not_depend_on_the_other_pieces():
    keys = [f"{value:08x}" for value in np.random.default_rng(0).integers(0, 2**32, 2000)]
    splits = split_by_key(keys)
    assert split_by_key(keys[:500]) == splits[:500]
    assert 0.08 < splits.count("valid") / 2000 < 0.12
    assert 0.08 < splits.count("test") / 2000 < 0.12


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["canonical_composer", "split", "year", "midi_filename"])
        writer.writerows([["Frédéric Chopin", split, 2018, name] for split, name in rows])


def test_maestro_keeps_its_own_split(folder, tmp_path):
    rows = [("train", "00.mid"), ("train", "01.mid"), ("validation", "below/more.MIDI"), ("test", "02.mid")]
    wrong = [("train", "gone.mid"), ("train", "../outside.mid"), ("holdout", "03.mid")]
    write_tune(tmp_path / "outside.mid", 50)
    write_table(folder / "maestro-v3.0.0.csv", rows + wrong)
    corpus = load_corpus(folder, "performance", cache=tmp_path / "cache")
    found = {split: [piece.name for piece in corpus.splits[split]] for split in SPLITS}
    assert found == {"train": ["00.mid", "01.mid"], "valid": ["below/more.MIDI"], "test": ["02.mid"]}
    assert {name for name, _ in corpus.skipped} == {"gone.mid", "../outside.mid", "03.mid"}
    assert "maestro-v3.0.0.csv" in corpus.split_rule


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "split,midi_filename\n", "split,midi_filename\ntrain,gone.mid\n"]
)
def test_a_bad_maestro_table_is_one_line(folder, tmp_path, content):
    (folder / "maestro-v3.0.0.csv").write_text(content)
    with pytest.raises(InputError, match="maestro-v3"):
        load_corpus(folder, "performance", cache=tmp_path / "cache")


def write_pop909(root: Path, songs: int = 4) -> Path:
    for number in range(1, songs + 1):
        melody = Track("MELODY", 0, False, tune(number, low=70))
        others = [Track("BRIDGE", 0, False, tune(number + 100)), Track("PIANO", 0, False, tune(number + 200, low=30))]
        write_midi(root / "POP909" / f"{number:03d}" / f"{number:03d}.mid", [melody, *others])
        write_tune(root / "POP909" / f"{number:03d}" / "versions" / f"{number:03d}-v1.mid", number)
    write_midi(root / "POP909" / "900" / "900.mid", [Track("PIANO", 0, False, tune(1))])
    return root


@pytest.mark.parametrize("inner", ["", "POP909"])
def test_pop909_is_melody_to_accompaniment(tmp_path, inner):
    root = write_pop909(tmp_path / "pop")
    corpus = load_corpus(root / inner, "performance", cache=tmp_path / "cache", stretches=(1.0, 1.05))
    pieces = pieces_of(corpus)
    assert set(pieces) == {"001", "002", "003", "004"}
    assert corpus.skipped == [("900", "has no notes in its MELODY track")]
    piece = pieces["002"]
    assert piece.source is not None
    assert len(piece.source) == len(piece.variants) == 2
    assert performance.decode(piece.source[0]) == performance.quantise(tune(2, low=70))
    assert performance.decode(piece.variants[0]) == performance.quantise(tune(102) + tune(202, low=30))


def pack(folder: Path, path: Path, extra: list[tarfile.TarInfo] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, ".")
        for member in extra or []:
            archive.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
    return path


def zipped(folder: Path, path: Path) -> Path:
    return Path(shutil.make_archive(str(path.with_suffix("")), "zip", folder))


def test_an_archive_reads_as_its_folder_does(tmp_path):
    root = write_pop909(tmp_path / "pop")
    link = tarfile.TarInfo("POP909/link.mid")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archive = pack(root, tmp_path / "pop.tar.gz", [link])
    folder = load_corpus(root, "performance", cache=tmp_path / "b")
    for path in (archive, zipped(root, tmp_path / "pop.zip")):
        packed = load_corpus(path, "performance", cache=tmp_path / "a")
        assert_same(packed, folder)
        assert all(piece.source for piece in pieces_of(packed).values())


def test_an_archive_cannot_write_elsewhere_or_fill_the_disk(tmp_path, monkeypatch):
    root = write_pop909(tmp_path / "pop", 1)
    outside = tarfile.TarInfo("../../outside.mid")
    outside.size = 4
    with pytest.raises(InputError, match="cannot be unpacked"):
        load_corpus(pack(root, tmp_path / "evil.tar.gz", [outside]), "performance", cache=tmp_path / "cache")
    assert not (tmp_path / "outside.mid").exists()
    bomb = tarfile.TarInfo("bomb.mid")
    bomb.size = 1 << 40
    path = tmp_path / "bomb.tar"
    path.write_bytes(bomb.tobuf() + bytes(1024))
    with pytest.raises(InputError, match="4 GiB"):
        load_corpus(path, "performance", cache=tmp_path / "cache")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../outside.mid", b"MThd")
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "deep" / "deeper"))
    with pytest.raises(InputError, match="none of its 1 files"):
        load_corpus(tmp_path / "evil.zip", "performance", cache=tmp_path / "cache")
    assert not list(tmp_path.glob("**/outside.mid"))


def test_damaged_archives_are_one_line(tmp_path):
    whole = pack(write_pop909(tmp_path / "pop"), tmp_path / "whole.tar.gz").read_bytes()
    zip_ = zipped(tmp_path / "pop", tmp_path / "whole.zip").read_bytes()
    inside = zip_.index(b".mid") + 20  # in the compressed bytes of the first file
    for name, content in (
        ("cut.zip", zip_[: len(zip_) // 2]),
        ("text.zip", b"no archive"),
        ("bent.zip", zip_[:inside] + bytes(20) + zip_[inside + 20 :]),
        ("cut.tar.gz", whole[: len(whole) // 2]),
        ("text.tar.gz", b"no archive"),
        ("empty.tar.gz", b""),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=name) as error:
            load_corpus(path, "performance", cache=tmp_path / "cache")
        assert "\n" not in str(error.value)


def test_midi_files_of_four_voices_are_chorales(tmp_path):
    rng = np.random.default_rng(0)
    grids = [np.stack([rng.integers(low, low + 5, 32) for low in (70, 64, 57, 45)], axis=1) for _ in range(4)]
    for index, grid in enumerate(grids):
        write_midi(tmp_path / "music" / f"{index}.mid", grid_tracks(grid, 120.0))
    write_tune(tmp_path / "music" / "tune.mid", 0)
    corpus = load_corpus(tmp_path / "music", "chorale", cache=tmp_path / "cache", stretches=(0.9, 1.0))
    pieces = pieces_of(corpus)
    assert [len(piece.variants) for piece in pieces.values()] == [1] * 4
    for index, grid in enumerate(grids):
        assert np.array_equal(chorale.decode(pieces[f"{index}.mid"].variants[0]), grid)
    assert corpus.skipped == [("tune.mid", "only 1 of its 4 voices ever sound")]


def everything_damaged(folder: Path) -> Path:
    for index in range(3):
        (folder / f"{index}.mid").write_bytes(b"MThd\0\0")
    return folder


@pytest.mark.parametrize(
    ("make", "codec", "message"),
    [
        (lambda folder: folder / "gone", "performance", "no such file or folder"),
        (lambda folder: folder, "performance", "no .mid or .midi files"),
        (everything_damaged, "performance", "none of its 3 files can be used; 0.mid: is truncated"),
        (lambda folder: write_tune(folder / "one.mid", 0), "performance", "give a folder"),
        (lambda folder: folder, "sonata", "choose one of performance, chorale"),
        (lambda folder: None, "performance", "built-in chorales need the codec chorale"),
        (lambda folder: folder / "x.json", "performance", "use the codec chorale"),
        (lambda folder: folder / "x.json", "chorale", "no such file"),
    ],
)
def test_data_that_cannot_be_used_is_one_line(tmp_path, make, codec, message):
    folder = tmp_path / "music"
    folder.mkdir()
    with pytest.raises(InputError, match=message) as error:
        load_corpus(make(folder), codec, cache=tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_stretches_must_be_factors(folder, tmp_path):
    for stretches in ((), (0.0, 1.0)):
        with pytest.raises(InputError, match="stretches"):
            load_corpus(folder, "performance", cache=tmp_path / "cache", stretches=stretches)


def test_the_real_songs(shared_data, tmp_path):
    """A part of POP909 as it is published."""
    with tarfile.open(shared_data / "music" / "pop909_midi.tar.gz") as archive:
        members = [member for member in archive.getmembers() if member.name.endswith(".mid")][:10]
        archive.extractall(tmp_path / "pop", members, filter="data")
    corpus = load_corpus(tmp_path / "pop", "performance", cache=tmp_path / "cache", workers=1)
    pieces = pieces_of(corpus)
    assert len(pieces) == 10
    for piece in pieces.values():
        assert piece.source is not None
        assert len(piece.variants[0]) > len(piece.source[0]) > 500
        for tokens in (piece.variants[0], piece.source[0]):
            assert np.array_equal(performance.encode(performance.decode(tokens)), tokens)


@pytest.mark.slow
def test_the_built_in_chorales(tmp_path):
    corpus = load_corpus(None, "chorale", cache=tmp_path, workers=os.cpu_count())
    counts = summary(corpus)["pieces"]
    assert sum(counts.values()) == 365
    assert min(counts["valid"], counts["test"]) >= 20
    assert all("parts" in reason for _, reason in corpus.skipped)
    place = {piece.name: split for split in SPLITS for piece in corpus.splits[split]}
    assert place["bwv274"] == place["bwv62.6"]  # the same music
