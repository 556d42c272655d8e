"""The block's own promises: its size, its attention rows, no order of frames."""

import torch

from shared.attention.record import record_attention
from shared.attention.spatio_temporal import SpatioTemporalBlock


def test_it_has_the_papers_number_of_parameters() -> None:
    assert round(sum(p.numel() for p in SpatioTemporalBlock(384, 8).parameters()) / 1e6, 2) == 1.77


def test_rows_are_the_head_mean_of_the_recorded_map() -> None:
    torch.manual_seed(0)
    block, x = SpatioTemporalBlock(12, 3), torch.randn(2, 10, 12)
    with torch.no_grad(), record_attention(block) as maps:
        out = block(x)
    (weights,) = maps[""]
    torch.testing.assert_close(block.rows(x[:, :4], x), weights.mean(1)[:, :4])
    again, rows = block.with_rows(x)
    torch.testing.assert_close(again, out)
    torch.testing.assert_close(rows, weights.mean(1))


def test_rows_over_closed_keys() -> None:
    torch.manual_seed(0)
    block, x, context = SpatioTemporalBlock(12, 3), torch.randn(2, 4, 12), torch.randn(2, 7, 12)
    keep = torch.ones(2, 7, dtype=torch.bool)
    keep[0, 3:], keep[1] = False, False
    rows = block.rows(x, context, keep)
    torch.testing.assert_close(rows[0].sum(-1), torch.ones(4))
    torch.testing.assert_close(rows[:1, :, :3], block.rows(x[:1], context[:1, :3]))
    assert torch.equal(rows[1], torch.zeros(4, 7))


def test_the_order_of_tokens_means_nothing() -> None:
    torch.manual_seed(0)
    block, x, order = SpatioTemporalBlock(12, 3).double(), torch.randn(1, 10, 12).double(), torch.randperm(10)
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order], atol=1e-12, rtol=1e-12)
