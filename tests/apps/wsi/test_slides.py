"""Slides: tissue, tiles, and what happens to slides that are white, small, damaged, or do not say their resolution."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch

from apps.wsi.encoders import Encoder
from apps.wsi.extract import encode_tiles
from apps.wsi.practice import write_slide
from apps.wsi.slide import open_slide
from apps.wsi.tiles import Tiling, find_tiles, tissue_share
from apps.wsi.tissue import otsu, tissue_mask
from tests.apps.wsi.conftest import SVS

PINK, WHITE = (200, 120, 170), (244, 243, 245)


def picture(height: int = 1024, width: int = 1024) -> np.ndarray:
    """Glass with a square of tissue, a quarter of it, in the middle; both with the noise of a scanner."""
    image = np.full((height, width, 3), WHITE, np.int16)
    image[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = PINK
    return (image + np.random.default_rng(0).integers(-4, 5, image.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.7), (0.0, 1.0), (0.3, 0.31)])
def test_otsu_lies_between_two_values(low: float, high: float) -> None:
    assert low < otsu(np.repeat([low, high], 50)) < high


def test_otsu_of_one_value_takes_all_of_it() -> None:
    assert otsu(np.full(50, 0.4)) == 0.0


def test_tissue_is_found_without_speckles_and_with_its_holes_filled() -> None:
    image = picture()
    image[100:106, 100:106] = PINK  # dust
    image[500:512, 500:512] = WHITE  # a small hole
    image[300:400, 300:400] = WHITE  # a lumen, which is no tissue
    mask = tissue_mask(image)
    assert not mask[90:120, 90:120].any()
    assert mask[490:520, 490:520].all()
    assert not mask[320:380, 320:380].any()
    assert mask.mean() == pytest.approx(0.25 - 100**2 / 1024**2, abs=0.01)


def test_tiles_are_whole_on_the_slide_and_on_tissue(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif", picture(), 0.25)
    slide = open_slide(tmp_path / "a.tif")
    assert slide.mpp == pytest.approx(0.25, rel=1e-4)
    tiles = find_tiles(slide, Tiling(64, 0.5, 0.5))
    assert tiles.side == pytest.approx(128, rel=1e-3)
    assert len(tiles.coords) == 16
    assert (tiles.coords >= 256 - 64).all()
    assert (tiles.coords + tiles.side <= 768 + 64).all()
    assert len(find_tiles(slide, Tiling(64, 0.5, 0.5, overlap=32)).coords) > 3 * 16
    share = tissue_share(tiles.mask, np.array([[0, 0], [320, 320], [192, 320]]), 128, slide.size)
    np.testing.assert_allclose(share, [0, 1, 0.5], atol=0.02)


def test_a_tile_holds_what_lies_there(tmp_path: Path) -> None:
    """Its colour says where each square of 64 pixels is; a tile at half the resolution is their mean."""
    image = np.zeros((512, 768, 3), np.uint8)
    for y in range(8):
        for x in range(12):
            image[y * 64 : y * 64 + 64, x * 64 : x * 64 + 64] = (x * 20, y * 30, 90)
    write_slide(tmp_path / "a.tif", image, 0.5)
    slide = open_slide(tmp_path / "a.tif")
    assert slide.region(128, 192, 64, 32).reshape(-1, 3).tolist() == [[40, 90, 90]] * 1024
    np.testing.assert_array_equal(slide.region(128, 192, 64, 64), image[192:256, 128:192])
    assert (slide.region(736, 0, 64, 64)[:, 32:] == 255).all()  # beyond the scan


def test_the_verb_writes_coordinates_that_others_read(wsi, tmp_path: Path) -> None:
    code, found = wsi("tile", SVS, "--out", tmp_path, "--json")
    assert code == 0
    assert found["slides"][0]["tiles"] == 43
    with h5py.File(tmp_path / "tiles" / "CMU-1-Small-Region.h5") as file:
        coords = file["coords"]
        assert coords.shape == (43, 2)
        assert coords.attrs["patch_size_level0"] == pytest.approx(224 * 0.5 / 0.499)
        assert (coords.attrs["level0_width"], coords.attrs["level0_height"]) == (2220, 2967)
        assert (coords[()] + coords.attrs["patch_size_level0"] <= (2220, 2967)).all()
    assert (tmp_path / "tiles" / "CMU-1-Small-Region.png").stat().st_size > 10_000


def refused(wsi, path: Path, *words: object) -> str:
    code, line = wsi("tile", path, "--out", path.parent / "out", *words)
    assert code == 2, line
    assert path.name in line
    assert "\n" not in line
    return line


def test_slides_that_cannot_be_tiled_are_told(wsi, tmp_path: Path) -> None:
    white = np.random.default_rng(0).integers(238, 248, (1024, 1024, 3), dtype=np.uint8)
    write_slide(tmp_path / "white.tif", white, 0.5)
    assert "shows no tissue (0.0 % is stained)" in refused(wsi, tmp_path / "white.tif")
    write_slide(tmp_path / "small.tif", picture(200, 300), 0.5)
    assert "is 300 x 200 pixels, smaller than a tile of 224" in refused(wsi, tmp_path / "small.tif")
    write_slide(tmp_path / "coarse.tif", picture(), 2.0)
    assert "is scanned at 2 um/px, coarser than the 0.5 asked for; give --tile-mpp 2" in refused(
        wsi, tmp_path / "coarse.tif"
    )
    (tmp_path / "text.svs").write_text("no slide")
    assert "is no slide that can be read, or damaged" in refused(wsi, tmp_path / "text.svs")
    (tmp_path / "half.svs").write_bytes(SVS.read_bytes()[:100_000])
    assert "damaged" in refused(wsi, tmp_path / "half.svs")


def test_a_slide_that_does_not_state_its_resolution(wsi, tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, picture(), tile=(256, 256), photometric="rgb", resolution=(72, 72), resolutionunit="INCH")
    assert "states no micrometres per pixel; give them with --mpp" in refused(wsi, path)
    code, found = wsi("tile", path, "--mpp", 0.5, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert found["slides"][0]["um_per_pixel"] == 0.5
    code, found = wsi("inspect", path, "--json")
    assert found["slides"][0]["fault"] == "states no um/px: use --mpp"


def damage(path: Path, tiles: list[int]) -> None:
    """Overwrites the bytes of some of a TIFF's tiles."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        places = [(page.dataoffsets[index], page.databytecounts[index]) for index in tiles]
    with path.open("r+b") as file:
        for offset, count in places:
            file.seek(offset)
            file.write(b"\xff" * count)


class Mean(torch.nn.Module):
    def forward(self, tiles):
        return tiles.float().mean((1, 2))


def test_a_damaged_tile_is_left_out_and_the_rest_goes_on(tmp_path: Path) -> None:
    """The file has one level, so that its overview cannot be read whole either."""
    path = tmp_path / "a.tif"
    write_slide(path, picture(), 0.5)
    tiling = Tiling(128, 0.5, 0.5)
    whole = find_tiles(open_slide(path), tiling)
    damage(path, [5])  # 256 .. 511 in both directions
    slide = open_slide(path)
    tiles = find_tiles(slide, tiling)
    np.testing.assert_array_equal(tiles.thumbnail[300:500, 300:500], 255)
    assert {tuple(c) for c in tiles.coords} < {tuple(c) for c in whole.coords}
    found, corrupt = encode_tiles(slide, whole, tiling, Encoder(Mean(), "mean"), 5)
    inside = ((whole.coords >= 256) & (whole.coords < 512)).all(1)
    assert corrupt == inside.sum() == 4
    np.testing.assert_array_equal(found.coords, whole.coords[~inside])
    np.testing.assert_allclose(found.features, np.broadcast_to(PINK, found.features.shape), atol=1.0)


class Tokens(torch.nn.Module):
    """Of a tile, three tokens: what a ViT yields that is saved without its head."""

    def forward(self, x):
        return x.mean((2, 3))[:, None].expand(-1, 3, -1)


class OfOneSize(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1) @ torch.ones(3 * 64 * 64, 5)


def test_an_encoder_that_cannot_be_used_is_told(wsi, tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif", picture(), 0.5)
    for module, says in ((Tokens(), "yields the shape (16, 3, 3) for 16 tiles"), (OfOneSize(), "tiles of 128 pixels")):
        torch.jit.script(module).save(str(tmp_path / "own.pt"))
        words = ("--encoder", tmp_path / "own.pt", "--tile", 128, "--device", "cpu", "--out", tmp_path / "out")
        code, line = wsi("extract", tmp_path / "a.tif", *words)
        assert code == 2
        assert "--encoder: " in line
        assert says in line
    code, line = wsi("extract", tmp_path / "a.tif", "--weights", tmp_path / "own.pt", "--out", tmp_path / "out")
    assert code == 2
    assert "is for an encoder of timm" in line


def test_a_slide_that_is_damaged_all_over_is_told(wsi, tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif", picture(), 0.5)
    damage(tmp_path / "a.tif", list(range(16)))
    assert "its overview cannot be read" in refused(wsi, tmp_path / "a.tif")


def test_a_folder_with_one_damaged_slide(wsi, tmp_path: Path) -> None:
    write_slide(tmp_path / "slides.tif", picture(), 0.5)
    folder = tmp_path / "slides"
    folder.mkdir()
    shutil.move(tmp_path / "slides.tif", folder / "good.tif")
    (folder / "bad.tif").write_bytes(b"no slide")
    code, found = wsi("tile", folder, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert [row["slide"] for row in found["slides"]] == ["good"]
    assert "bad.tif" in found["failed"][0]
    code, found = wsi("inspect", folder, "--json")
    assert ["fault" in row for row in found["slides"]] == [True, False]
    (folder / "good.tif").unlink()
    (folder / "worse.tif").write_bytes(b"nor this")
    code, line = wsi("tile", folder, "--out", tmp_path / "out")
    assert code == 1
    assert "no slide could be tiled; the first:" in line
    for file in folder.iterdir():
        file.unlink()
    assert "holds no slide; known endings" in wsi("tile", folder, "--out", tmp_path / "out")[1]
