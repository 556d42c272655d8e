"""The chorales inside music21, beside the canonical data set where the two hold the same piece."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apps.music import corpora
from apps.music.codecs import chorale
from apps.music.readers.bach import chorale_files, read_chorale

ROOT = Path(__file__).resolve().parents[4]
FILES = {path.stem: path for path in chorale_files()}


def test_a_chorale_is_the_one_of_the_canonical_data_set(shared_data):
    grid = read_chorale(FILES["bwv393"])
    splits = json.loads((shared_data / "music" / "Jsb16thSeparated.json").read_text())
    same = [piece for pieces in splits.values() for piece in pieces if piece == grid.tolist()]
    assert len(same) == 1


def test_a_chorale_is_within_the_voice_ranges():
    grid = read_chorale(FILES["bwv269"])
    assert grid.dtype == np.int16
    assert grid.shape[1] == 4
    assert chorale.transposition_range(chorale.encode(grid)) != (0, 0)
    assert grid[0].tolist() == [67, 62, 59, 43]  # G major


def test_another_number_of_parts_is_refused_without_parsing(tmp_path):
    assert read_chorale(FILES["bwv113.8"]).shape[1] == 4  # the one score in UTF-16
    with pytest.raises(ValueError, match="5 parts, not 4"):
        read_chorale(FILES["bwv1.6"])
    (tmp_path / "x.xml").write_text("<score-part/>" * 4)
    with pytest.raises(ValueError, match=r"music21 cannot read it|not S A T B|not one score"):
        read_chorale(tmp_path / "x.xml")


def test_the_default_corpus_names_what_it_leaves_out(tmp_path, monkeypatch):
    chosen = ["bwv1.6", "bwv269", "bwv347", "bwv274", "bwv62.6", "bwv846"]
    (tmp_path / "bwv0.mxl").write_bytes(b"damaged")
    monkeypatch.setattr(corpora, "chorale_files", lambda: [*(FILES[name] for name in chosen), tmp_path / "bwv0.mxl"])
    corpus = corpora.load_corpus(None, "chorale", cache=tmp_path / "cache", workers=1)
    place = {piece.name: split for split in corpora.SPLITS for piece in corpus.splits[split]}
    assert set(place) == {"bwv269", "bwv347", "bwv274", "bwv62.6"}
    assert place["bwv274"] == place["bwv62.6"]  # one chorale under two numbers
    assert dict(corpus.skipped).keys() == {"bwv1.6", "bwv846", "bwv0"}
    assert dict(corpus.skipped)["bwv846"] == "it has 1 parts, not 4"
    assert "not the canonical split" in corpus.split_rule


def test_the_list_of_files_needs_no_music21_import():
    code = (
        "import sys, apps.music.corpora as c; assert len(c.chorale_files()) > 400; assert 'music21' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
