"""Label propagation against its plain form, and what it promises of labels, memory and motion."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.video.propagation import Propagator, plain_step, soft_labels, take_labels


@settings(max_examples=25)
@given(
    st.integers(1, 11), st.integers(1, 9), st.integers(1, 3), st.integers(1, 12), st.integers(1, 9), st.integers(0, 99)
)
def test_blocks_of_rows_equal_the_plain_form(h: int, w: int, frames: int, radius: int, top_k: int, seed: int) -> None:
    torch.manual_seed(seed)
    queries = F.normalize(torch.randn(h, w, 5).double(), dim=-1)
    keys = F.normalize(torch.randn(frames, h, w, 5).double(), dim=-1)
    values = torch.rand(frames, h, w, 3).double()
    expected = plain_step(queries, keys, values, radius, top_k, 0.1)
    got = take_labels(queries, keys, values, radius, top_k, 0.1, block=3)
    if top_k > (min(radius, h - 1) + 1) * (min(radius, w - 1) + 1) * frames:
        return  # fewer neighbours than asked for, of which a corner has the fewest: closed ones get weight 0 below
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


def test_closed_neighbours_never_count() -> None:
    """A corner with four neighbours and top_k of 9."""
    torch.manual_seed(0)
    f = F.normalize(torch.randn(6, 6, 4).double(), dim=-1)
    values = torch.rand(1, 6, 6, 2).double()
    torch.testing.assert_close(take_labels(f, f[None], values, 1, 9, 0.1), plain_step(f, f[None], values, 1, 9, 0.1))


def test_labels_follow_their_features() -> None:
    torch.manual_seed(0)
    scene = F.normalize(torch.randn(12, 12, 16), dim=-1)
    labels = torch.zeros(2, 12, 12)
    labels[1, 3:6, 3:6] = 1
    labels[0] = 1 - labels[1]
    propagator = Propagator(radius=4, top_k=3, temperature=0.02, context=2)
    propagator.begin(scene, labels)
    for step in range(1, 4):
        moved = scene.roll((step, 2 * step), (0, 1))
        out = propagator.step(moved)
        torch.testing.assert_close(out.sum(0), torch.ones(12, 12))
        inside = slice(step, None), slice(2 * step, None)  # what has not come round the edge
        assert torch.equal(out.argmax(0)[inside], labels.roll((step, 2 * step), (1, 2)).argmax(0)[inside])


def test_memory_is_the_first_frame_and_the_last_ones() -> None:
    propagator = Propagator(context=3)
    f = F.normalize(torch.randn(4, 4, 8), dim=-1)
    propagator.begin(f, torch.ones(1, 4, 4))
    for _ in range(10):
        propagator.step(f)
    assert len(propagator.last) == 3
    alone = Propagator(context=0)
    alone.begin(f, torch.ones(1, 4, 4))
    assert alone.step(f).shape == (1, 4, 4)
    assert not alone.last


def test_soft_labels_are_shares_of_cells() -> None:
    labels = torch.zeros(8, 8, dtype=torch.uint8)
    labels[:2, :4], labels[4:, 4:] = 5, 9
    soft = soft_labels(labels, [5, 9], 2, 2)
    torch.testing.assert_close(soft[:, 0, 0], torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(soft[:, 1, 1], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(soft.sum(0), torch.ones(2, 2))
