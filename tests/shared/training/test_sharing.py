from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

from shared.training.sharing import share


def items(loader: DataLoader) -> list[list[int]]:
    return [batch[0].tolist() for batch in loader]


def loader_of(size: int, **options) -> DataLoader:
    return DataLoader(TensorDataset(torch.arange(size)), **options)


@given(size=st.integers(1, 40), world=st.integers(1, 5), batch=st.integers(1, 6))
def test_batches_side_by_side_are_one_process_batches(size: int, world: int, batch: int) -> None:
    parts = [items(share(loader_of(size, batch_size=batch), rank, world, 0, True)) for rank in range(world)]
    alone = items(loader_of(size, batch_size=batch * world))
    assert len({len(part) for part in parts}) == 1
    for number, whole in enumerate(alone):
        together = sorted(item for part in parts for item in part[number])
        if len(whole) == batch * world:
            assert together == whole
        else:
            assert set(whole) <= set(together)
            assert len(together) < len(whole) + world


@given(size=st.integers(1, 40), world=st.integers(1, 5), batch=st.integers(1, 6))
def test_validation_sees_each_sample_once(size: int, world: int, batch: int) -> None:
    parts = [items(share(loader_of(size, batch_size=batch), rank, world, 0, False)) for rank in range(world)]
    assert sorted(item for part in parts for one in part for item in one) == list(range(size))


def test_shuffled_loaders_have_one_order_for_all() -> None:
    def order(seed: int) -> list[int]:
        parts = [items(share(loader_of(12, batch_size=1, shuffle=True), rank, 3, seed, True)) for rank in range(3)]
        return [part[i][0] for i in range(4) for part in parts]

    assert sorted(order(1)) == list(range(12))
    assert order(1) == order(1)
    assert order(1) != order(2)


def test_whole_batches_of_a_batch_sampler_are_dealt_out() -> None:
    loader = loader_of(6, batch_sampler=[[0, 1, 2], [3], [4, 5]])
    assert [items(share(loader, rank, 2, 0, True)) for rank in range(2)] == [[[0, 1, 2], [4, 5]], [[3], [0, 1, 2]]]
    assert [items(share(loader, rank, 2, 0, False)) for rank in range(2)] == [[[0, 1, 2], [4, 5]], [[3]]]


def test_options_stay_and_what_cannot_be_shared_is_told() -> None:
    part = share(loader_of(9, batch_size=2, drop_last=True, collate_fn=len), 0, 2, 0, False)
    assert (part.batch_size, part.drop_last, part.collate_fn) == (2, True, len)
    with pytest.raises(ValueError, match="SubsetRandomSampler"):
        share(loader_of(9, sampler=SubsetRandomSampler([1, 2])), 0, 2, 0, True)

    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

    stream = DataLoader(Stream())
    assert share(stream, 0, 2, 0, True) is stream
