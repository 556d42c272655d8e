"""What slot attention promises beyond the contract: slots are a set, tokens are shared out, the stages are nested."""

import torch

from shared.attention.slot import GaussianSlots, SlotAttention, TwoStageSlots, compete


def test_permuted_slots_give_permuted_slots_and_masks() -> None:
    torch.manual_seed(0)
    module, x, noise = SlotAttention(8, 4).double(), torch.randn(2, 9, 8).double(), torch.randn(2, 4, 8).double()
    order = torch.tensor([2, 0, 3, 1])
    slots, masks = module.with_masks(x, noise)
    moved, moved_masks = module.with_masks(x, noise[:, order])
    torch.testing.assert_close(moved, slots[:, order], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(moved_masks, masks[:, order], atol=1e-12, rtol=1e-12)


def test_permuted_gaussians_and_instances_give_permuted_slots() -> None:
    """Slots that have a Gaussian each are a set with it; instances of a semantic are a set among themselves."""
    torch.manual_seed(0)
    x, order = torch.randn(2, 9, 8).double(), torch.tensor([2, 0, 3, 1])
    two = TwoStageSlots(8, 4, 3).double()
    noise, one = torch.randn(2, 3, 4, 8).double(), torch.randn(2, 4, 8).double()
    before, alone = two.stages(x, noise), two.gaussians(x, one)
    other = two.stages(x, noise[:, [1, 2, 0]])
    torch.testing.assert_close(other.instances, before.instances[:, :, [1, 2, 0]], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(other.semantics, before.semantics, atol=1e-12, rtol=1e-12)
    with torch.no_grad():
        for parameter in (two.gaussians.mean, two.gaussians.log_sigma):
            parameter.copy_(parameter[order].clone())
    moved = two.stages(x, noise[:, :, order])
    torch.testing.assert_close(two.gaussians(x, one[:, order]), alone[:, order], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(moved.semantic_masks, before.semantic_masks[:, order], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(moved.instances, before.instances[:, order], atol=1e-12, rtol=1e-12)


def test_permuted_tokens_change_no_slot() -> None:
    torch.manual_seed(0)
    x, order = torch.randn(2, 9, 8).double(), torch.randperm(9)
    for module, shape in ((SlotAttention(8, 4), (4,)), (GaussianSlots(8, 4), (4,)), (TwoStageSlots(8, 4, 3), (3, 4))):
        module, noise = module.double(), torch.randn(2, *shape, 8).double()
        torch.testing.assert_close(module(x[:, order], noise), module(x, noise), atol=1e-12, rtol=1e-12)


def test_every_open_token_is_shared_out_once_and_a_closed_one_to_nobody() -> None:
    torch.manual_seed(0)
    keep = torch.ones(2, 9, dtype=torch.bool)
    keep[0, 5:] = False
    stages = TwoStageSlots(8, 4, 3).stages(torch.randn(2, 9, 8), keep=keep)
    torch.testing.assert_close(stages.semantic_masks.sum(1), keep.float())
    torch.testing.assert_close(stages.instance_masks.sum((1, 2)), keep.float())
    torch.testing.assert_close(stages.instance_masks.sum(2), stages.semantic_masks)  # instances part their semantic


def test_without_noise_gaussian_slots_start_at_their_means() -> None:
    torch.manual_seed(0)
    module, x = GaussianSlots(8, 4), torch.randn(2, 9, 8)
    torch.testing.assert_close(module(x), module(x, torch.zeros(2, 4, 8)))
    assert not torch.allclose(module(x), module(x, torch.ones(2, 4, 8)))


def test_slots_find_two_kinds_of_tokens() -> None:
    """Two directions, two slots near them: each wins its own, and becomes their mean."""
    a, b = torch.eye(4)[0] * 6, torch.eye(4)[1] * 6
    tokens = torch.stack([a, b, a, b, b])
    update, share, weights = compete(torch.stack([a, b]), tokens, tokens)
    assert (share[0] > 0.99).tolist() == [True, False, True, False, False]
    torch.testing.assert_close(update, torch.stack([a, b]), atol=1e-4, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2))


def test_a_slot_that_nobody_chose_stays_finite() -> None:
    update, _, weights = compete(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4, 3), torch.zeros(2, 4))
    assert torch.equal(update, torch.zeros(2, 3))
    assert torch.equal(weights, torch.zeros(2, 4))
