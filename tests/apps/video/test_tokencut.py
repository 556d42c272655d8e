"""The cut against a dense eigenproblem, and on scenes whose object is known."""

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F

from apps.video.config import TokencutConfig
from apps.video.foreground import CELL, cut, fit_palette, fit_rule, object_side, salient
from apps.video.motion import camera_motion, displacement, own_motion
from apps.video.tokencut import second_eigenvector, tokencut


def scene(top: int = 2, left: int = 3, noise: float = 0.2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys (8, 10, 16) with a square of other features, and where it is."""
    torch.manual_seed(0)
    ground, thing = torch.randn(2, 16)
    torch.manual_seed(seed)
    mask = torch.zeros(8, 10, dtype=torch.bool)
    mask[top : top + 3, left : left + 3] = True
    return torch.where(mask[..., None], thing, ground) + noise * torch.randn(8, 10, 16), mask


def test_the_second_eigenvector_is_that_of_the_normalised_cut() -> None:
    torch.manual_seed(0)
    points = torch.randn(30, 5)
    edges = (F.normalize(points) @ F.normalize(points).T > 0.2).float().clamp_min(1e-5)
    degree = torch.diag(edges.sum(1))
    _, vectors = scipy.linalg.eigh((degree - edges).double().numpy(), degree.double().numpy())
    ours, theirs = second_eigenvector(edges).double().numpy(), vectors[:, 1]
    assert abs(np.dot(ours, theirs)) / np.linalg.norm(ours) / np.linalg.norm(theirs) > 1 - 1e-6


def test_an_object_is_cut_out_of_one_frame_and_of_three() -> None:
    keys, mask = scene()
    assert torch.equal(tokencut(keys[None])[0], mask)
    frames = [scene(2, left, seed=left) for left in (2, 3, 4)]
    joint = tokencut(torch.stack([k for k, _ in frames]))
    assert torch.equal(joint, torch.stack([m for _, m in frames]))


def test_displacement_and_camera() -> None:
    torch.manual_seed(0)
    world = torch.randn(1, 24, 14, 18).cumsum(2).cumsum(3)[0].permute(1, 2, 0)
    before, now = world[:, 2:16], world[:, 1:15]  # what was at x is now at x + 1: it was one cell to the left
    moved = displacement(now, before, 3, 0.01, 1)
    assert moved[3:-3, 3:-3, 1].median().round() == -1
    assert moved[3:-3, 3:-3, 0].median().round() == 0
    field = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 9), indexing="ij"), -1)
    whole = 0.5 + 0.3 * field
    disturbed = whole.clone()
    disturbed[2:4, 2:4] += 3
    torch.testing.assert_close(camera_motion(disturbed), whole, atol=0.1, rtol=0)
    assert own_motion(now, now).abs().max() < 1e-6


def test_the_more_salient_part_is_the_object_also_when_it_is_the_larger() -> None:
    foreground = torch.zeros(1, 6, 6, dtype=torch.bool)
    foreground[:, :2] = True
    salience = torch.rand(1, 6, 6)
    salience[:, 2:, 1:5] += 2
    assert torch.equal(object_side(foreground, salience), ~foreground)
    nothing = torch.zeros_like(foreground)
    assert torch.equal(object_side(nothing, salience), nothing)
    assert torch.equal(object_side(~nothing, salience), nothing)


def test_cut_and_salience_point_at_the_object() -> None:
    frames, masks = (torch.stack(part) for part in zip(*(scene(2, left, 0.2, left) for left in (1, 3, 5)), strict=True))
    salience = masks.float() + 0.1 * torch.rand(masks.shape)
    assert torch.equal(salient(salience, 1.5), masks)
    assert not salient(torch.ones(2, 3, 4), 1.5).any()
    for settings in ({}, {"frames": 3}, {"frames": 2, "motion": 0.2}):
        assert torch.equal(cut(frames, frames, salience, TokencutConfig(**settings)), masks), settings


def test_one_rule_for_all_frames_outvotes_a_wrong_mask() -> None:
    keys, masks = (torch.stack(part) for part in zip(*(scene(2, left, 0.3, left) for left in range(1, 7)), strict=True))
    wrong = masks.clone()
    wrong[0] = masks[3]
    rule = fit_rule(keys, wrong)
    assert 0.5 < rule.contrast < 1
    assert fit_rule(keys, torch.rand(masks.shape) > 0.9).contrast < 0.3  # what looks like all the rest
    for one, mask in zip(keys, masks, strict=True):
        soft = rule.label(one)
        torch.testing.assert_close(soft.sum(0), torch.ones(8, 10))
        assert torch.equal(soft[1] > 0.5, mask)
    none = fit_rule(keys, torch.zeros_like(masks))
    assert none.contrast == 0
    assert not (none.label(keys[0])[1] > 0.5).any()


def test_objects_of_different_colours_are_told_apart() -> None:
    frames = torch.full((2, 8 * CELL, 10 * CELL, 3), 128, dtype=torch.uint8)
    soft = torch.zeros(2, 2, 8, 10)
    soft[:, 0] = 1
    for top, left, colour in ((1, 1, (220, 30, 30)), (1, 6, (30, 30, 220)), (5, 3, (30, 200, 60))):
        noise = torch.randint(-20, 20, (2, 2 * CELL, 3 * CELL, 3))
        rows, columns = slice(top * CELL, (top + 2) * CELL), slice(left * CELL, (left + 3) * CELL)
        frames[:, rows, columns] = (torch.tensor(colour) + noise).clamp(0, 255).byte()
        soft[:, 1, top : top + 2, left : left + 3], soft[:, 0, top : top + 2, left : left + 3] = 1, 0
    palette = fit_palette(frames, list(soft), 3, seed=0)
    assert palette is not None
    labels = palette.label(frames[0], soft[0])
    torch.testing.assert_close(labels.sum(0), torch.ones(8, 10))
    hard = labels.argmax(0)
    parts = [hard[1:3, 1:4], hard[1:3, 6:9], hard[5:7, 3:6]]
    assert all(len(part.unique()) == 1 for part in parts)
    assert len({int(part[0, 0]) for part in parts} | {0}) == 4
    nothing = torch.stack([torch.ones(8, 10), torch.zeros(8, 10)])
    assert fit_palette(frames, [nothing, nothing], 3, seed=0) is None
