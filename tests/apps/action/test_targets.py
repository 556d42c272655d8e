"""Targets and losses: by hand, at the edges, and finite whatever a batch holds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apps.action.boundary_matching import valid_proposals
from apps.action.losses import balanced_cross_entropy, balanced_regression, detection_loss
from apps.action.model import BoundaryMatchingNetwork
from apps.action.targets import boundary_targets, class_targets, overlap, overlap_targets


def test_overlap_by_hand() -> None:
    tiou = overlap(np.array([[0.0, 10], [5, 5]]), np.array([[5.0, 15], [0, 10], [20, 30]]))
    np.testing.assert_allclose(tiou, [[5 / 15, 1, 0], [0, 0, 0]])


def test_boundaries_peak_where_a_segment_begins_and_after_its_last_snippet() -> None:
    start, end = boundary_targets(np.array([[3.0, 8.0]]), 10)
    assert np.flatnonzero(start == 1).tolist() == [2, 3, 4]
    assert np.flatnonzero(end == 1).tolist() == [6, 7, 8]  # snippet 7 ends at 8
    last = boundary_targets(np.array([[3.0, 10.0]]), 10)[1]
    assert last[9] == 1  # the end of the last snippet is a place


def test_overlap_target_is_one_at_the_segment_itself_also_at_the_very_end() -> None:
    target = overlap_targets(np.array([[3.0, 8.0], [9.0, 10.0]]), 10, 10)
    assert target[4, 3] == 1
    assert target[0, 9] == 1
    assert target[3, 3] == pytest.approx(4 / 5)
    assert overlap_targets(np.zeros((0, 2)), 10, 4).sum() == 0


def test_class_targets_share_where_segments_overlap() -> None:
    target = class_targets(np.array([[0.0, 4.0], [2.0, 6.0]]), np.array([0, 1]), 8, 2)
    np.testing.assert_allclose(target[0], [1, 0, 0])
    np.testing.assert_allclose(target[3], [0.5, 0.5, 0])
    np.testing.assert_allclose(target[7], [0, 0, 1])


def test_both_sides_of_the_cross_entropy_count_alike() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, 0.5])
    targets = torch.tensor([1.0, 0.0, 0.0, 0.0])
    mask = torch.tensor([True, True, True, False])
    cost = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    expected = 0.5 * cost[0] + 0.5 * (cost[1] + cost[2]) / 2
    torch.testing.assert_close(balanced_cross_entropy(logits, targets, 0.9, mask), expected)


def test_regression_weighs_high_middle_and_low_overlap_alike() -> None:
    target = torch.tensor([0.9, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.0])
    wrong = torch.ones(8)
    loss = balanced_regression(target + wrong, target, torch.ones(8, dtype=torch.bool))
    torch.testing.assert_close(loss, torch.tensor(0.5))
    only_low = torch.zeros(8)
    only_low[3:7] = 1  # the four low ones weigh as much as the one high one
    loss = balanced_regression(target + only_low, target, torch.ones(8, dtype=torch.bool))
    torch.testing.assert_close(loss, torch.tensor(0.5 / 3))


def test_the_mean_loss_of_two_halves_that_share_their_counts_is_the_loss_of_the_whole() -> None:
    """What two processes do; one half has one positive, the other has several."""
    torch.manual_seed(0)
    sizes = {"keep": (4, 12), "start": (4, 12), "end": (4, 12), "classes": (4, 12, 3)}
    out = {name: torch.randn(size, dtype=torch.float64) for name, size in sizes.items() if name != "keep"}
    batch = {name: torch.rand(size, dtype=torch.float64) for name, size in sizes.items()}
    batch["keep"] = batch["keep"] < 0.8
    for name in ("classification", "regression"):
        out[name] = torch.randn(4, 6, 12, dtype=torch.float64)
    batch["overlap"] = torch.rand(4, 6, 12, dtype=torch.float64)
    batch["overlap"][:2] *= 0.7
    batch["overlap"][0, 2, 3] = 1.0
    batch["valid"] = torch.rand(4, 6, 12) < 0.9
    halves = [
        [{name: x[part] for name, x in given.items()} for given in (out, batch)] for part in (slice(2), slice(2, 4))
    ]
    counts: list[list[torch.Tensor]] = [[], []]
    for half, seen in zip(halves, counts, strict=True):
        detection_loss(*half, 1.0, lambda count, seen=seen: (seen.append(count), count)[1])  # pyright: ignore
    means = [(a + b) / 2 for a, b in zip(*counts, strict=True)]
    losses = []
    for half in halves:
        given_means = iter(means)
        losses.append(detection_loss(*half, 1.0, lambda _, given_means=given_means: next(given_means))["loss"])
    torch.testing.assert_close(sum(losses) / 2, detection_loss(out, batch, 1.0)["loss"])


@given(positives=st.integers(0, 2), kept=st.integers(0, 12), value=st.sampled_from([0.0, 80.0, -80.0]))
def test_no_batch_gives_nan(positives: int, kept: int, value: float) -> None:
    """Without a positive, with nothing but padding, and where the network is sure and wrong."""
    torch.manual_seed(0)
    model = BoundaryMatchingNetwork(4, 2, dim=8, layers=1, longest=6, bins=4, matching=4, proposal=4, semantics=4)
    keep = torch.arange(12) < kept
    spans = np.array([[2.0, 5.0], [6.0, 9.0]])[:positives]
    start, end = boundary_targets(spans, 12)
    batch = {
        "keep": keep[None],
        "start": torch.from_numpy(start)[None],
        "end": torch.from_numpy(end)[None],
        "overlap": torch.from_numpy(overlap_targets(spans, 12, 6))[None],
        "classes": torch.from_numpy(class_targets(spans, np.zeros(positives, int), 12, 2))[None],
        "valid": torch.from_numpy(valid_proposals(12, 6, kept))[None],
    }
    x = torch.full((1, 12, 4), value) + torch.randn(1, 12, 4)
    loss = detection_loss(model(x, keep=batch["keep"]), batch, 1.0)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
