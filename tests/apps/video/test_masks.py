"""Masks as other programs write and read them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from apps.video.masks import PALETTE, decode_rle, encode_rle, overlay, read_mask, resize_labels, write_mask
from shared.errors import InputError


def test_a_written_mask_is_a_palette_png_with_davis_colours(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "a.png", labels)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), labels)
        assert image.convert("RGB").getpixel((1, 0)) == (128, 0, 0)
        assert image.convert("RGB").getpixel((2, 0)) == (0, 128, 0)
    assert PALETTE[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert np.array_equal(read_mask(tmp_path / "a.png"), labels)


def save(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(values, mode).save(path)
    return path


def test_the_kinds_of_masks_that_people_have(tmp_path: Path) -> None:
    binary = np.zeros((4, 6), np.uint8)
    binary[1:3, 2:4] = 255
    assert np.array_equal(read_mask(save(tmp_path / "davis16.png", binary)), binary // 255)
    grey = binary // 255 * 7
    assert np.array_equal(read_mask(save(tmp_path / "grey.png", grey)), grey)
    assert np.array_equal(read_mask(save(tmp_path / "sixteen.png", grey.astype(np.uint16))), grey)
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[0, 0], colours[1:3, 2:4] = (0, 0, 200), (200, 10, 0)
    found = read_mask(save(tmp_path / "colours.png", colours))
    assert found[3, 5] == 0
    assert len(np.unique(found)) == 3
    Image.fromarray(binary).convert("1").save(tmp_path / "bits.png")
    assert np.array_equal(read_mask(tmp_path / "bits.png"), binary // 255)


def test_black_and_white_as_image_programs_save_it(tmp_path: Path) -> None:
    """With smooth outlines, in RGB, as a JPEG, or on a transparent ground: one object, not one for each shade."""
    y, x = np.mgrid[:80, :120]
    far = np.hypot(y - 40.3, x - 60.7)
    smooth = (np.clip(20.5 - far, 0, 1) * 255).round().astype(np.uint8)
    inside = smooth >= 128
    assert len(np.unique(smooth)) > 12
    for name, values in (("l.png", smooth), ("rgb.png", np.repeat(smooth[..., None], 3, 2)), ("l.jpg", smooth)):
        found = read_mask(save(tmp_path / name, values))
        assert set(np.unique(found)) == {0, 1}, name
        assert (found.astype(bool) != inside).mean() < 0.01, name
    clear = np.full((80, 120, 4), 255, np.uint8)
    clear[..., 3] = smooth
    assert np.array_equal(read_mask(save(tmp_path / "clear.png", clear)), smooth > 0)
    two = np.select([far < 10, far < 20], [255, 128]).astype(np.uint8)  # two objects, each with a shade
    assert set(np.unique(read_mask(save(tmp_path / "two.png", two)))) == {0, 128, 255}


def test_masks_that_cannot_be_used_get_one_line(tmp_path: Path) -> None:
    many = np.arange(300, dtype=np.uint16).reshape(15, 20)
    high = np.full((4, 4), 1000, np.uint16)
    rainbow = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    (tmp_path / "text.png").write_text("hello")
    for path, says in (
        (save(tmp_path / "many.png", many), "holds 299 labels"),
        (save(tmp_path / "high.png", high), "number the objects 1 to 255"),
        (save(tmp_path / "rainbow.png", rainbow), "room for 255"),
        (tmp_path / "text.png", "is damaged or no image"),
        (tmp_path / "missing.png", "no such file"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            read_mask(path)
        assert path.name in str(caught.value)


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_run_lengths_round_trip(mask: np.ndarray) -> None:
    assert np.array_equal(decode_rle(encode_rle(mask)), mask)


def test_run_lengths_are_those_of_pycocotools() -> None:
    """The strings are what `pycocotools.mask.encode` 2.0.11 makes of these masks."""
    y, x = np.mgrid[:60, :80]
    far = np.hypot(y - 25, x - 40)
    disk = r"\a1;_14M2M4M2O0O2N2O0O2O00000000000000000001N101N2N101N3L3N3LZ^1"
    ring = (
        r"\a1;_14M2M4M2O0O2NAUO0j0NZO0e00]O0b00^O0b0O@0`00@0`00@0`00@0`00@0`00@0`00@0`01^O0b00^O0c00[O0f02VO0k0?2N101N3"
        r"L3N3LZ^1"
    )
    for mask, counts in (
        (far < 15, disk),
        ((far < 15) & (far >= 8), ring),
        (np.zeros((4, 5), bool), "d0"),
        (np.ones((4, 5), bool), "0d0"),
    ):
        assert encode_rle(mask) == {"size": list(mask.shape), "counts": counts}
        assert np.array_equal(decode_rle(encode_rle(mask)), mask)


def test_resizing_labels_invents_none() -> None:
    labels = np.array([[0, 3], [7, 0]], np.uint8)
    bigger = resize_labels(labels, 6, 4)
    assert bigger.shape == (6, 4)
    assert np.array_equal(bigger, np.kron(labels, np.ones((3, 2), np.uint8)))
    assert np.array_equal(resize_labels(bigger, 2, 2), labels)


def test_an_overlay_tints_objects_only() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 1
    out = overlay(np.full((20, 20, 3), 100, np.uint8), labels)
    assert out[0, 0].tolist() == [100, 100, 100]
    assert out[10, 10].tolist() == [114, 50, 50]
    assert out[5, 5].tolist() == [255, 255, 255]
