"""The networks: shapes, ablations, and losses that reach their weights."""

import pytest
import torch

from apps.medical.compare import ABLATION
from apps.medical.config import CONFIGS, MedicalConfig, TrainConfig
from apps.medical.medusa import MedusaClassifier
from apps.medical.model import GuidedSegmenter
from apps.medical.networks import architecture, build
from apps.medical.task import segmentation_loss
from shared.attention.record import record_attention
from shared.config import load_config


def small(**changes) -> GuidedSegmenter:
    torch.manual_seed(0)
    return GuidedSegmenter(2, 3, **{"base": 4, "width": 4, **changes})


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 30, 21, generator=generator)
    return x, torch.randint(0, 3, (2, 30, 21), generator=generator)


@pytest.mark.parametrize("entry", ABLATION)
@pytest.mark.parametrize("head", ["bilinear", "subpixel"])
def test_every_row_of_the_ablation_takes_slices_of_any_sides(entry: str, head: str) -> None:
    changes = {key: value for key, value in ABLATION[entry].items() if key != "deep"}
    assert small(head=head, **changes)(batch()[0]).shape == (2, 3, 30, 21)


def test_the_prediction_is_the_mean_of_the_refined_heads() -> None:
    model, (x, _) = small().eval(), batch()
    found = model.predict(x)
    assert len(found.coarse) == len(found.refined) == 4
    torch.testing.assert_close(model(x), sum(found.refined) / 4)


def test_the_loss_is_the_paper_s_sum() -> None:
    model, (x, y) = small().eval(), batch()
    parts = segmentation_loss(model, x, y, TrainConfig())
    expected = parts["cross_entropy"] + 0.25 * parts["guided"] + 0.1 * parts["reconstruction"]
    torch.testing.assert_close(parts["loss"], expected)
    found = model.predict(x)
    heads = [torch.nn.functional.cross_entropy(head, y) for head in (*found.coarse, *found.refined)]
    torch.testing.assert_close(parts["cross_entropy"], torch.stack(heads).sum())


@pytest.mark.parametrize("loss", ["guided", "reconstruction"])
def test_the_guided_losses_reach_the_encoders_and_what_lies_before(loss: str) -> None:
    model, (x, _) = small(), batch()
    getattr(model.predict(x), loss).backward()
    for guided in model.attention:
        for coder in guided.coders:
            assert coder.encode.weight.grad.abs().sum() > 0
        last = guided.coders[-1].decode.weight.grad  # of no part in the codes that the guided loss compares
        assert (last is not None and last.abs().sum() > 0) == (loss == "reconstruction")
    assert model.backbone.stem[0][0].weight.grad.abs().sum() > 0


def test_every_weight_gets_a_gradient_once_the_gammas_have_left_zero() -> None:
    model, (x, y) = small(), batch()
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.constant_(parameter, 0.5)
    segmentation_loss(model, x, y, TrainConfig())["loss"].backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not missing


def test_with_group_normalisation_a_slice_does_not_depend_on_its_batch() -> None:
    x = batch()[0]
    for norm, alike in (("group", True), ("batch", False)):
        model = small(norm=norm, width=8).train()
        assert torch.allclose(model(x)[0], model(x[[0, 0]])[0], atol=1e-5) == alike
    assert not [part for part in small(norm="group").modules() if isinstance(part, torch.nn.BatchNorm2d)]


def test_the_paper_s_size_builds_and_segments() -> None:
    """45 million weights with ResNet-101 and 64 channels; the paper's 58 count layers tied to one size of image."""
    config = load_config(MedicalConfig, CONFIGS / "paper.toml")
    model = build(**architecture(config.model, channels=1, classes=5)).eval()
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 45
    with torch.inference_mode():
        assert model(torch.randn(1, 1, 64, 48)).shape == (1, 5, 64, 48)


def test_medusa_has_one_body_and_a_head_for_each_scale() -> None:
    model = MedusaClassifier(2, 3, base=4, body=32).eval()
    x = batch()[0]
    with torch.no_grad(), record_attention(model) as maps:
        plain = model(x)
    assert plain.shape == (2, 3)
    assert len(maps) == 4
    assert all(w.min() >= 0 and w.max() <= 1 for captured in maps.values() for w in captured)
    model.train()(x).sum().backward()
    assert model.medusa.body.leave.weight.grad.abs().sum() > 0
    assert small(body=32)(x).shape == (2, 3, 30, 21)
