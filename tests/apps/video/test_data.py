"""The DAVIS layout, synthetic clips, and encoders behind their protocol."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from apps.video.davis import find_sequences, truth
from apps.video.encoders import LiteEncoder, ViTEncoder
from apps.video.masks import write_mask
from apps.video.synthetic import make_clip
from shared.encoders.vit import VisionTransformer
from shared.errors import InputError
from shared.training.device import pick_device


def layout(root: Path, between: str = "") -> Path:
    for name in ("dog", "cat"):
        for part in ("JPEGImages", "Annotations"):
            folder = root / part / between / name
            folder.mkdir(parents=True)
            for number in range(3):
                if part == "JPEGImages":
                    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(folder / f"{number:05d}.jpg")
                else:
                    write_mask(folder / f"{number:05d}.png", np.full((8, 10), number, np.uint8))
    return root


@pytest.mark.parametrize("between", ["", "480p"])
def test_davis_as_it_comes(tmp_path: Path, between: str) -> None:
    root = layout(tmp_path, between)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("dog\n")
    (root / "ImageSets" / "2017" / "train.txt").write_text(
        "/JPEGImages/480p/cat/00000.jpg /Annotations/480p/cat/00000.png\n"
        "/JPEGImages/480p/cat/00001.jpg /Annotations/480p/cat/00001.png\n"
    )
    assert [s.name for s in find_sequences(root)] == ["cat", "dog"]
    assert [s.name for s in find_sequences(root, "val")] == ["dog"]
    assert [s.name for s in find_sequences(root, "train")] == ["cat"]
    (dog,) = find_sequences(root, names=["dog"])
    assert sorted(dog.masks) == ["00000", "00001", "00002"]
    with pytest.raises(InputError, match=r"no ImageSets/\*/test.txt"):
        find_sequences(root, "test")
    with pytest.raises(InputError, match="no sequence cow"):
        find_sequences(root, names=["cow"])


def test_two_videos_of_one_name(tmp_path: Path) -> None:
    """The one would have taken the place of the other in silence."""
    for name in ("a.mp4", "a.mov"):
        (tmp_path / name).write_bytes(b"a video")
    with pytest.raises(InputError, match=r"a.mov and a.mp4 have one name"):
        find_sequences(tmp_path)


def test_void_does_not_count(tmp_path: Path) -> None:
    root = layout(tmp_path)
    labels = np.array([[0, 1, 255], [2, 2, 255]], np.uint8)
    write_mask(root / "Annotations" / "dog" / "00000.png", labels)
    (dog,) = find_sequences(root, names=["dog"])
    found, void = truth(dog, "00000")
    assert found.tolist() == [[0, 1, 0], [2, 2, 0]]
    assert void is not None
    assert void.tolist() == [[False, False, True]] * 2
    assert truth(dog, "00001")[1] is None


def test_the_real_layout(shared_data: Path) -> None:
    sequences = find_sequences(shared_data / "video" / "davis2016_train_240p")
    assert len(sequences) == 30
    assert all(len(list(s.frames.iterdir())) == len(s.masks) for s in sequences)
    labels, void = truth(sequences[0], "00000")
    assert void is None
    assert set(np.unique(labels)) == {0, 1}


def test_clips_come_from_their_seed_and_show_their_objects() -> None:
    clip, labels = make_clip(3, frames=4, objects=2, height=64, width=96)
    again, _ = make_clip(3, frames=4, objects=2, height=64, width=96)
    other, _ = make_clip(4, frames=4, objects=2, height=64, width=96)
    assert np.array_equal(clip, again)
    assert not np.array_equal(clip, other)
    assert clip.shape == (4, 64, 96, 3)
    assert labels.max() <= 2
    assert not np.array_equal(labels[0], labels[3])
    assert not make_clip(0, 2, 0, 64, 96)[1].any()


def test_encoders_keep_their_protocol() -> None:
    frames = torch.randint(0, 255, (2, 70, 100, 3), dtype=torch.uint8)
    torch.manual_seed(0)
    for encoder in (LiteEncoder(), ViTEncoder(VisionTransformer(8, 32, 2, 2, 4), "small")):
        keys, cls = encoder.keys(frames)
        assert keys.shape[0] == 2
        assert keys.shape[-1] == encoder.dim
        assert abs(keys.shape[1] - 70 / encoder.stride) <= 1
        assert cls.shape == (2, encoder.dim)
        fine = encoder.fine(frames)
        torch.testing.assert_close(fine.norm(dim=-1), torch.ones(fine.shape[:3]), atol=1e-4, rtol=0)
        assert fine.shape[1] >= keys.shape[1]
        alone, _ = encoder.keys(frames[1:])
        torch.testing.assert_close(alone, keys[1:], atol=1e-4, rtol=1e-4)
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="not available on this machine"):
        pick_device("tpu")


def test_weights_are_known_by_their_content(tmp_path: Path) -> None:
    """Two files of one name are two encoders: the keys of the one are not remembered for the other."""
    from apps.video.encoders import load_encoder
    from apps.video.remember import Remembering

    frames = torch.randint(0, 255, (1, 32, 48, 3), dtype=torch.uint8)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(VisionTransformer(16, 64, 1, 1, 2).state_dict(), tmp_path / "vit.pth")
        encoder = load_encoder(tmp_path / "vit.pth")
        with torch.inference_mode():
            found.append((encoder.name, Remembering(encoder, tmp_path).keys(frames)[0]))
    assert found[0][0] != found[1][0]
    assert not torch.allclose(found[0][1], found[1][1])


def test_salience_lies_on_the_grid_of_the_keys() -> None:
    frames = torch.randint(0, 255, (2, 70, 100, 3), dtype=torch.uint8)
    lite, vit = LiteEncoder(), ViTEncoder(VisionTransformer(16, 24, 2, 2), "small")
    for encoder in (lite, vit):
        salience = encoder.salience(frames)
        assert salience.shape == encoder.keys(frames)[0].shape[:3]
        assert (salience >= 0).all()
        assert torch.allclose(encoder.salience(frames[1:]), salience[1:], atol=1e-5)
    assert (vit.salience(frames).sum((1, 2)) < 1).all()  # the rest of its attention is on itself


def test_keys_are_remembered_by_what_a_frame_shows(tmp_path: Path) -> None:
    from apps.video.remember import Remembering

    frames = torch.randint(0, 255, (3, 48, 64, 3), dtype=torch.uint8)
    asked = []

    class Counting(LiteEncoder):
        def keys(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            asked.append(len(frames))
            return super().keys(frames)

    encoder = Remembering(Counting(), tmp_path)
    first = encoder.keys(frames[:2])
    again = encoder.keys(frames[[1, 2, 0]])
    assert asked == [2, 1]
    for one, other, true in zip(first, again, LiteEncoder().keys(frames[:2]), strict=True):
        torch.testing.assert_close(one, other[[2, 0]])
        torch.testing.assert_close(one, true, rtol=1e-3, atol=1e-3)
