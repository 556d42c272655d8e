"""Outlines that follow the image."""

import numpy as np
import torch

from apps.video.refine import decide, guided_filter, sharpen, window_mean


def test_window_means_are_those_of_their_neighbours() -> None:
    x = torch.rand(2, 7, 9)
    for dim in (-1, -2):
        found = window_mean(x, 2, dim)
        for i in range(x.shape[dim]):
            part = x.narrow(dim, max(0, i - 2), min(x.shape[dim], i + 3) - max(0, i - 2))
            torch.testing.assert_close(found.select(dim, i), part.mean(dim))


def test_a_coarse_mask_takes_the_outline_of_the_image() -> None:
    frame = np.full((64, 96, 3), 40, np.uint8)
    frame[20:45, 30:67] = (200, 90, 60)
    truth = torch.zeros(64, 96)
    truth[20:45, 30:67] = 1
    coarse = torch.nn.functional.adaptive_avg_pool2d(truth[None], (8, 12))
    soft = torch.cat([1 - coarse, coarse])

    def errors(radius: int) -> int:
        return int((torch.from_numpy(decide(sharpen(soft, frame, radius), 64, 96)) != truth).sum())

    assert errors(8) < 0.5 * errors(0)
    torch.testing.assert_close(sharpen(soft, frame, 8).sum(0), torch.ones(64, 96))


def test_labels_that_are_nowhere_the_strongest_are_left_as_they_are() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    soft = torch.tensor([0.6, 0.3, 0.1])[:, None, None].repeat(1, 5, 8)
    soft[:, 2, 3:5] = torch.tensor([0.2, 0.7, 0.1])[:, None]
    out = sharpen(soft, frame, 6)
    torch.testing.assert_close(out[2], torch.full((40, 60), 0.1))
    torch.testing.assert_close(out[1], sharpen(soft[[0, 1]], frame, 6)[1])
    torch.testing.assert_close(out.sum(0), torch.ones(40, 60))


def test_a_flat_image_only_smooths() -> None:
    labels = torch.rand(2, 16, 24)
    out = guided_filter(labels, torch.full((3, 16, 24), 0.5), 2, 1e-3)
    assert out.isfinite().all()
    assert out.max() <= labels.max()


def test_decide_takes_the_strongest_in_any_size() -> None:
    soft = torch.zeros(3, 4, 4)
    soft[0], soft[2, :2] = 0.4, 0.9
    labels = decide(soft, 9, 13)
    assert labels.shape == (9, 13)
    assert labels[0, 0] == 2
    assert labels[-1, -1] == 0
    assert decide(torch.ones(1, 2, 2), 5, 5).max() == 0
