"""The JSB Chorales file: the canonical split, and files that are not quite it."""

import json
from pathlib import Path

import numpy as np
import pytest

from apps.music.codecs import chorale
from apps.music.corpora import load_corpus, summary
from apps.music.readers.jsb import read_jsb
from shared.errors import InputError

STEP = [72, 67, 60, 48]


def write(path: Path, train=(), valid=(), test=()) -> Path:
    path.write_text(json.dumps({"train": list(train), "valid": list(valid), "test": list(test)}))
    return path


def test_the_canonical_split_and_every_step_of_it(shared_data):
    path = shared_data / "music" / "Jsb16thSeparated.json"
    corpus = load_corpus(path, "chorale")
    numbers = summary(corpus)
    assert numbers["pieces"] == {"train": 229, "valid": 76, "test": 77}
    assert numbers["tokens"] == {"train": 220_912, "valid": 73_632, "test": 75_600}
    assert corpus.skipped == []
    assert len(corpus.sha256) == 64
    assert path.name in corpus.split_rule
    content = json.loads(path.read_text())
    for split, pieces in corpus.splits.items():
        for piece, steps in zip(pieces, content[split], strict=True):
            assert chorale.decode(piece.variants[0]).tolist() == steps


def test_nan_is_silence_and_a_bad_piece_is_skipped_and_named(tmp_path):
    bad = [[[72, 67, 60]], [[72, 67, 60, 300]], [[72, 67, 60, 48.5]], [["C", 1, 2, 3]], [], 5, [[1, 2, 3, 1e99]]]
    path = write(tmp_path / "x.json", [[STEP, [72, float("nan"), -1, 48]], *bad])
    corpus = read_jsb(path)
    assert [piece.name for piece in corpus.splits["train"]] == ["train/000"]
    assert chorale.decode(corpus.splits["train"][0].variants[0]).tolist() == [STEP, [72, -1, -1, 48]]
    assert [name for name, _ in corpus.skipped] == [f"train/{index:03d}" for index in range(1, 8)]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"train": 3}', "no json", '{"train": [], "valid": [], "test": []}']
)
def test_another_json_is_one_line_that_names_the_file(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"x\.json") as error:
        read_jsb(path)
    assert "\n" not in str(error.value)


def test_a_numeric_npz_reads_like_the_json(tmp_path):
    splits = {"train": [[STEP] * 5, [STEP] * 3], "valid": [[STEP]], "test": []}
    arrays = {}
    for split, pieces in splits.items():
        arrays[split] = np.array([step for piece in pieces for step in piece]).reshape(-1, 4)
        arrays[f"{split}_lengths"] = np.array([len(piece) for piece in pieces], dtype=int)
    np.savez(tmp_path / "x.npz", **arrays)
    one, two = read_jsb(tmp_path / "x.npz"), read_jsb(write(tmp_path / "x.json", **splits))
    for split in splits:
        for a, b in zip(one.splits[split], two.splits[split], strict=True):
            assert np.array_equal(a.variants[0], b.variants[0])


def test_the_published_npz_is_a_pickle_and_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    trap = np.empty(1, dtype=object)
    trap[0] = Trap()
    np.savez(tmp_path / "x.npz", allow_pickle=True, train=trap, valid=trap, test=trap)
    with pytest.raises(InputError, match=r"x\.npz: .*pickle.*Jsb16thSeparated\.json"):
        read_jsb(tmp_path / "x.npz")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04K\x01.", b"no zip"])
def test_a_damaged_npz_is_one_line(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz"):
        read_jsb(tmp_path / "x.npz")


def test_an_npz_of_another_layout_says_what_is_expected(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros(3))
    with pytest.raises(InputError, match="train_lengths"):
        read_jsb(tmp_path / "x.npz")
    lengths = {f"{split}_lengths": np.array([9]) for split in ("train", "valid", "test")}
    np.savez(tmp_path / "x.npz", train=[STEP], valid=[STEP], test=[STEP], **lengths)
    with pytest.raises(InputError, match="counts each piece's steps"):
        read_jsb(tmp_path / "x.npz")
