"""Practice slides: labelled, parted by band, the same for a seed, and marred where the truth says."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from apps.wsi.practice import BANDS, TEST, practice, write_slide
from apps.wsi.qupath import read_regions
from apps.wsi.slide import open_slide
from shared.errors import InputError

SIZE = 1400


def source(path: Path, shown: slice = slice(0, SIZE)) -> Path:
    """Tissue in a broad column, of a texture that differs from place to place."""
    rng = np.random.default_rng(0)
    image = np.full((SIZE, SIZE, 3), 244, np.uint8)
    image[shown, 300:1100] = (np.array((200, 120, 170)) + rng.integers(-30, 30, (SIZE, 800, 1)))[shown]
    write_slide(path, image, 0.5)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("practice")
    practice(source(folder / "source.tif"), folder / "out", 24, 0, None)
    return folder


def test_half_are_marred_and_no_band_is_in_two_parts(made: Path) -> None:
    with (made / "out" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((made / "out" / "slides").iterdir())) == 24
    assert sum(row["label"] == "marred" for row in rows) == 12
    parts = {row["patient"]: set() for row in rows}
    for row in rows:
        parts[row["patient"]].add(row["split"])
    assert len(parts) == BANDS
    assert {f"band-{band + 1}" for band in TEST} == {name for name, split in parts.items() if split == {"test"}}
    assert all(len(split) == 1 for split in parts.values())


def test_the_whole_slide_is_marred_where_the_truth_says_and_nowhere_else(made: Path) -> None:
    before, after = (
        np.asarray(open_slide(path).handle.read_region((0, 0), 0, (SIZE, SIZE)).convert("RGB")).astype(int)
        for path in (made / "source.tif", made / "out" / "whole.tif")
    )
    changed = np.abs(after - before).sum(-1) > 60
    truth = read_regions(made / "out" / "truth.geojson", (SIZE, SIZE), longest=SIZE)
    assert changed.sum() > 5000
    assert (changed & ~truth).mean() < 0.002
    assert not changed[: SIZE * min(TEST) // BANDS].any()  # the bands that are trained on
    names = {
        one["properties"]["classification"]["name"]
        for one in json.loads((made / "out" / "truth.geojson").read_text())["features"]
    }
    assert names == {"ink", "out of focus"}


def test_a_seed_gives_the_same_slides(made: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        practice(made / "source.tif", tmp_path / str(seed), 6, seed, None)
    first = [(made / "out" / "slides" / "practice-005.tif").read_bytes()]
    first += [(tmp_path / str(seed) / "slides" / "practice-005.tif").read_bytes() for seed in (0, 1)]
    assert first[0] == first[1]
    assert first[0] != first[2]


def test_slides_that_practice_cannot_be_cut_from(wsi, small_slide: Path, tmp_path: Path) -> None:
    code, line = wsi("practice", small_slide, "--out", tmp_path / "out")
    assert code == 2
    assert "is 700 x 600 pixels; give a region of at least 1300 x 1300" in line
    path = source(tmp_path / "bare.tif", slice(200, 400))
    with pytest.raises(InputError, match="shows too little tissue in its part 1 of 6"):
        practice(path, tmp_path / "out", 24, 0, None)


def test_a_region_in_the_hole_of_another_stays(tmp_path: Path) -> None:
    def square(low: int, high: int) -> list[list[int]]:
        return [[low, low], [high, low], [high, high], [low, high], [low, low]]

    island, ring = [square(40, 60)], [square(0, 100), square(20, 80)]
    shapes = [{"geometry": {"type": "Polygon", "coordinates": rings}} for rings in (island, ring)]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": shapes}))
    found = read_regions(tmp_path / "a.geojson", (100, 100), longest=100)
    assert found[50, 50]
    assert found[10, 10]
    assert not found[30, 30]
