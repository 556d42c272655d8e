"""The model: padding, packing and truncation change nothing; dropout by bytes; the ablations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.recommendation.batches import pack, pad
from apps.recommendation.model import SequenceRecommender
from shared.attention.dropout import ByteDropout


def model(**changes) -> SequenceRecommender:
    torch.manual_seed(0)
    made = SequenceRecommender(**{"items": 30, "dim": 8, "length": 10, **changes}).double().eval()
    with torch.no_grad():
        made.embedding.weight[1:] = torch.randn(30, made.embedding.embedding_dim, dtype=torch.float64)
        made.position.normal_()
    return made


ROWS = st.lists(st.lists(st.integers(1, 30), min_size=2, max_size=18), min_size=1, max_size=12)


@settings(max_examples=30)
@given(rows=ROWS, windows=st.sampled_from([(1,), (1, 3), (2, 4, 5)]))
def test_packed_rows_equal_rows_alone(rows: list[list[int]], windows: tuple[int, ...]) -> None:
    """Several users in a row see nothing of each other, and stand where they would stand alone."""
    made = model(windows=windows, weights=[1 / len(windows)] * len(windows))
    arrays = [np.array(row, np.int64) for row in rows]
    batch = pack(arrays, 10)
    with torch.no_grad():
        packed = made(batch["inputs"], batch["segments"], batch["positions"])
    found = {}
    for r in range(len(packed)):
        for number in batch["segments"][r].unique().tolist():
            if number:
                at = batch["segments"][r] == number
                key = (tuple(batch["inputs"][r, at].tolist()), tuple(batch["targets"][r, at].tolist()))
                found.setdefault(key, packed[r, at])
    for row in arrays:
        tail = row[-11:]
        with torch.no_grad():
            alone = made(pad([tail[:-1]], 10))[0]
        torch.testing.assert_close(found[tuple(tail[:-1].tolist()), tuple(tail[1:].tolist())], alone)
    assert sum(int((part > 0).sum()) for part in batch["inputs"]) == sum(min(10, len(row) - 1) for row in rows)


def test_padding_changes_nothing_and_last_is_the_last_position() -> None:
    made, row = model(), np.array([3, 9, 4, 4, 17])
    with torch.no_grad():
        short = made(pad([row], 10))
        long = made(torch.nn.functional.pad(pad([row], 10), (5, 0)))
        torch.testing.assert_close(long[:, 5:], short)
        assert torch.equal(long[:, :5], torch.zeros_like(long[:, :5]))
        torch.testing.assert_close(made.last(pad([row], 10)), short[:, -1])
        torch.testing.assert_close(made.last(pad([row, np.arange(1, 9)], 10))[0], short[0, -1])


def test_only_the_last_items_count() -> None:
    made = model()
    with torch.no_grad():
        long = made.last(pad([np.arange(1, 25)], 10))
        torch.testing.assert_close(long, made.last(pad([np.arange(15, 25)], 10)))


def test_scores_are_linear_in_the_branches() -> None:
    made = model(windows=(1, 3), weights=(0.3, 0.7))
    inputs = pad([np.array([5, 6, 7, 8])], 10)
    with torch.no_grad():
        parts = made.branches.outputs(made.inputs(inputs), inputs > 0, last=True)
        torch.testing.assert_close(sum(part[:, 0] @ made.items.T for part in parts), made.last(inputs) @ made.items.T)
        one = model(windows=(1,), weights=(1.0,))
        one.branches.branches[0].load_state_dict(made.branches.branches[0].state_dict())
        torch.testing.assert_close(one.branches(made.inputs(inputs), last=True) * 0.3, parts[0])


def test_first_weights_are_those_of_the_paper() -> None:
    made = SequenceRecommender(4000)
    assert float(made.items.std().detach()) == pytest.approx(0.01, rel=0.02)
    assert float(made.embedding.weight[0].detach().abs().max()) == 0


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_byte_dropout_drops_as_often_as_it_says(p: float) -> None:
    torch.manual_seed(0)
    dropout = ByteDropout(p)
    x = torch.ones(1000, 1001, requires_grad=True)
    out = dropout(x)
    kept = out.detach() > 0
    for byte in range(8):
        assert 1 - kept.flatten()[byte::8].float().mean() == pytest.approx(round(256 * p) / 256, abs=0.005)
    assert float(out.detach().mean()) == pytest.approx(1, abs=0.01)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    assert dropout.eval()(x) is x
    torch.manual_seed(3)
    first = dropout.train()(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)


def test_byte_dropout_refuses_what_is_no_rate() -> None:
    with pytest.raises(ValueError, match="rate"):
        ByteDropout(1.0)
