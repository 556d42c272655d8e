"""The frozen encoder: the package's own network is the reference; real pictures tell whether the weights are real."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images

from shared.encoders.efficientnet import MEAN, STD, WIDTHS, EfficientNetLite0, _read_weights, encode


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite0:
    return EfficientNetLite0()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Two photographs, a temple and a flower: (2, 224, 224, 3) uint8."""
    images = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images]).permute(0, 3, 1, 2)
    small = F.interpolate(images[..., 106:533].float(), (224, 224), mode="bilinear", antialias=True)
    return small.round().byte().permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    net.load_state_dict(_read_weights())
    return net.eval()


@pytest.mark.parametrize("size", [(224, 224), (97, 130), (64, 32)])
def test_folded_equals_the_network_of_the_package(encoder, net, pictures, size) -> None:
    images = pictures[:, : size[0], : size[1]].permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        normalised = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        expected = net.extract_features(normalised)
    maps = encoder.maps(images, tuple(WIDTHS))
    torch.testing.assert_close(maps[32], expected, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(encoder(images), expected.mean((-2, -1)), atol=5e-4, rtol=1e-3)
    for stride, channels in WIDTHS.items():
        assert maps[stride].shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_the_weights_know_a_flower(net, encoder, pictures) -> None:
    with torch.no_grad():
        logits = net._fc(encoder(pictures))
    assert logits.argmax(-1).tolist() == [442, 985]  # of ImageNet's thousand: bell cote and daisy


def test_bytes_and_floats_are_the_same_pictures(encoder, pictures) -> None:
    floats = pictures.permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(encoder(pictures), encoder(floats), atol=1e-6, rtol=1e-6)
    assert encoder(pictures.permute(0, 3, 1, 2).double() / 255).dtype == torch.float32


def test_in_parts_as_at_once(encoder, pictures) -> None:
    # A kernel sums a batch of another size in another order, of which fifty layers of float32 can make 2e-5.
    many = pictures[:, :64, :64].repeat(3, 1, 1, 1)[:5]
    together = encoder(many)
    torch.testing.assert_close(encode(encoder, many, batch=2), together, atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1  # what two pictures differ by is far above that


def test_it_is_frozen_whatever_holds_it(encoder, pictures) -> None:
    held = torch.nn.Sequential(encoder).train()
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in held.parameters())
    assert not encoder(pictures[:, :64, :64]).requires_grad


def test_what_is_no_image_is_refused(encoder, pictures) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encoder(pictures.permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match="strides"):
        encoder.maps(pictures, (5,))
