"""Features written in each layout read back as they were, and files of others are read as their makers write them."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from apps.wsi.classic import read_csv
from apps.wsi.layouts import Features, find_features, read_features, write_features, write_single
from apps.wsi.read import read_data
from shared.errors import InputError


def slide(name: str = "one", count: int = 7, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    coords = rng.integers(0, 5000, (count, 2)).astype(np.float64)
    features = rng.normal(size=(count, 12)).astype(np.float16).astype(np.float32)  # ACMIL's file is in float16
    return Features(name, features, coords, 448.9, "px", 0.25, "net", "tumour")


@pytest.mark.parametrize("layout", ["trident", "clam", "stamp", "acmil"])
def test_a_layout_reads_back_as_it_was_written(layout: str, tmp_path: Path) -> None:
    slides = [slide("one"), slide("two", 3, seed=1)]
    if layout == "acmil":
        where = write_single(slides, tmp_path / "all.h5")
    else:
        written = [path for one in slides for path in write_features(one, tmp_path, layout)]
        assert all(path.exists() for path in written)
        where = tmp_path
    found = [one for path in find_features(where) for one in read_features(path)]
    assert [one.name for one in found] == ["one", "two"]
    for one, wanted in zip(found, slides, strict=True):
        np.testing.assert_array_equal(one.features, wanted.features)
        assert one.features.dtype == np.float32
        scale = wanted.mpp if layout == "stamp" else 1.0
        assert one.unit == ("um" if layout == "stamp" else "px")
        np.testing.assert_allclose(one.coords, wanted.coords * scale)
        assert one.tile == pytest.approx(wanted.tile * scale)
        assert one.mpp == (None if layout == "stamp" else 0.25)
        assert one.encoder == (None if layout == "acmil" else "net")
        assert one.label == ("tumour" if layout == "acmil" else None)
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


def test_features_too_large_for_half_precision_stay_what_they_are(tmp_path: Path) -> None:
    large = replace(slide(), features=slide().features * 1e6)
    write_single([large], tmp_path / "all.h5")
    (found,) = read_features(tmp_path / "all.h5")
    np.testing.assert_array_equal(found.features, large.features)


def test_clams_tensors_find_their_places_beside_them(tmp_path: Path) -> None:
    write_features(slide(), tmp_path, "clam")
    (found,) = read_features(tmp_path / "pt_files" / "one.pt")
    np.testing.assert_array_equal(found.coords, slide().coords)
    torch.save(torch.zeros(3, 12), tmp_path / "pt_files" / "one.pt")
    with pytest.raises(InputError, match=r"has 3 features and .* 7; extract it again"):
        next(read_features(tmp_path / "pt_files" / "one.pt"))


def test_files_as_the_others_write_them(tmp_path: Path) -> None:
    """Written out by hand from what the tools' own code writes: names, shapes, attributes."""
    with h5py.File(tmp_path / "trident.h5", "w") as file:
        file.create_dataset("features", data=np.ones((1, 4, 6), np.float32)).attrs["encoder"] = "uni_v1"
        coords = file.create_dataset("coords", data=np.arange(8).reshape(1, 4, 2) * 512)
        coords.attrs.update({"patch_size_level0": 512, "patch_size": 256, "target_magnification": 20, "overlap": 0})
    with h5py.File(tmp_path / "stamp.h5", "w") as file:
        file["feats"], file["coords"] = np.ones((4, 6), np.float16), np.arange(8).reshape(4, 2) * 256.0
        file.attrs.update({"extractor": "ctranspath", "unit": "um", "tile_size_um": 256.0, "tile_size_px": 224})
    with h5py.File(tmp_path / "acmil.h5", "w") as file:
        for name in ("normal_001", "tumor_001"):
            group = file.create_group(name)
            group["feat"], group["coords"] = np.ones((4, 6), np.float16), np.zeros((4, 2))
            group.attrs["label"] = name.split("_")[0]
    trident, stamp = next(read_features(tmp_path / "trident.h5")), next(read_features(tmp_path / "stamp.h5"))
    assert (trident.features.shape, trident.tile, trident.unit, trident.encoder) == ((4, 6), 512, "px", "uni_v1")
    assert (stamp.features.shape, stamp.tile, stamp.unit, stamp.encoder) == ((4, 6), 256, "um", "ctranspath")
    data = read_data(tmp_path / "acmil.h5")  # whose labels are in the file
    assert data.classes == ("normal", "tumor")
    assert data.labels.tolist() == [0, 1]


def test_a_folder_with_two_encoders_is_told(tmp_path: Path) -> None:
    for name in ("uni", "net"):
        write_features(replace(slide(), encoder=name), tmp_path, "trident")
    with pytest.raises(InputError, match="features of 2 encoders; name one folder: features_net, features_uni"):
        find_features(tmp_path)
    assert len(find_features(tmp_path / "features_uni")) == 1


def test_stamp_needs_to_know_the_resolution(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the STAMP layout needs coords and um/px"):
        write_features(replace(slide(), mpp=None), tmp_path, "stamp")


def test_a_mil_table(tmp_path: Path) -> None:
    rows = [(1, 7, 0.5, 2), (0, 3, 1, 1), (1, 7, 4, 4), (0, 9, 0, 0)]
    (tmp_path / "bags.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    data = read_csv(tmp_path / "bags.csv")
    assert [bag.name for bag in data.bags] == ["7", "3", "9"]
    assert data.labels.tolist() == [1, 0, 0]
    assert data.bags[0].features.tolist() == [[0.5, 2], [4, 4]]


def test_labels_of_clam_and_names_with_endings(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_features(slide(name), tmp_path, "trident")
    (tmp_path / "labels.csv").write_text("case_id,slide_id,label\np1,a.svs,1\np1,b,0\n", encoding="utf-8-sig")
    data = read_data(tmp_path, tmp_path / "labels.csv")
    assert data.labels.tolist() == [1, 0]
    assert set(data.patients) == {"p1"}


def test_labels_of_a_spreadsheet_and_of_every_kind_of_slide(wsi, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_features(slide(name), tmp_path, "trident")
    (tmp_path / "labels.csv").write_text("slide;label;split\na.svslide;1;train\nb.dcm;0;\n", encoding="utf-8-sig")
    data = read_data(tmp_path, tmp_path / "labels.csv")
    assert data.labels.tolist() == [1, 0]
    (tmp_path / "features_net" / "b.h5").rename(tmp_path / "features_net" / "b.svs.h5")
    code, found = wsi("inspect", tmp_path, "--labels", tmp_path / "labels.csv", "--json")
    assert (found["without_label"], found["without_file"]) == ([], [])
    (tmp_path / "labels.csv").write_bytes("slide,label\na,Kröte\n".encode("latin-1"))
    code, line = wsi("inspect", tmp_path, "--labels", tmp_path / "labels.csv")
    assert code == 2
    assert "is not text in UTF-8; save it as a CSV (UTF-8)" in line


@pytest.mark.parametrize("between", ["clam", "stamp", "acmil"])
def test_converted_there_and_back_is_the_same(wsi, tmp_path: Path, between: str) -> None:
    for one in (slide("one"), slide("two", 3, seed=1)):
        write_features(one, tmp_path / "start", "trident")
    (tmp_path / "labels.csv").write_text("slide,label\none,tumour\ntwo,normal\n")
    words = ("--labels", tmp_path / "labels.csv", "--json")
    code, there = wsi("convert", tmp_path / "start", "--layout", between, "--out", tmp_path / "there", *words)
    assert code == 0
    back = ("convert", there["written"], "--layout", "trident", "--out", tmp_path / "back")
    if between == "stamp":
        code, line = wsi(*back)
        assert code == 2
        assert "its coords are in micrometres; say what a pixel is with --mpp" in line
    assert wsi(*back, "--mpp", 0.25, "--json")[0] == 0
    name = "unknown" if between == "acmil" else "net"  # ACMIL's file does not name the encoder
    for file in (tmp_path / "start" / "features_net").iterdir():
        (before,), (after,) = read_features(file), read_features(tmp_path / "back" / f"features_{name}" / file.name)
        np.testing.assert_array_equal(after.features, before.features)
        np.testing.assert_array_equal(after.coords, before.coords)
        assert (after.tile, after.mpp) == (pytest.approx(before.tile), 0.25)
    if between == "acmil":
        assert read_data(Path(there["written"])).classes == ("normal", "tumour")


def test_a_mil_table_of_slides_reads_back(wsi, tmp_path: Path) -> None:
    for one in (slide("one"), slide("two", 3, seed=1)):
        write_features(one, tmp_path / "start", "trident")
    (tmp_path / "labels.csv").write_text("slide,label\none,tumour\ntwo,normal\n")
    words = ("convert", tmp_path / "start", "--layout", "csv", "--out", tmp_path / "table")
    assert "its slides have no labels; give --labels" in wsi(*words)[1]
    _, found = wsi(*words, "--labels", tmp_path / "labels.csv", "--json")
    assert found["classes"] == ["normal", "tumour"]
    data = read_csv(tmp_path / "table" / "bags.csv")
    assert data.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(data.bags[0].features, slide("one").features)
    assert json.loads((tmp_path / "table" / "bags.json").read_text())["bags"] == ["one", "two"]
