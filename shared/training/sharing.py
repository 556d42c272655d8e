"""How processes that train together share a loader: in the order that one process would have gone through it.

Lightning's own way shuffles a training loader again, whatever order its data module chose, and repeats samples in
validation so that all processes have as many; the loss curve then depends on how many processes there are.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from shared.training.seeds import seed_at


@contextlib.contextmanager
def shared_loaders(data: lightning.LightningDataModule, seed: int) -> Iterator[None]:
    """Inside the block each process gets its part of every training and validation loader of `data`."""
    names = [name for name in ("train_dataloader", "val_dataloader") if name not in vars(data)]
    for name in names:
        # A partial of the class's function, not a closure, so that the data module can go to spawned processes.
        setattr(data, name, functools.partial(_part_of, getattr(type(data), name), data, seed, name[0] == "t"))
    try:
        yield
    finally:
        for name in names:
            delattr(data, name)


def _part_of(make: Callable[[Any], Any], data: lightning.LightningDataModule, seed: int, training: bool) -> Any:
    loaders = make(data)
    trainer = data.trainer
    if trainer is None or trainer.world_size == 1:
        return loaders
    order_seed = seed_at(seed, trainer.current_epoch, -3, 0)  # the same in all processes

    def part(loader: Any) -> Any:
        if isinstance(loader, (list, tuple)):
            return type(loader)(part(one) for one in loader)
        if isinstance(loader, dict):
            return {name: part(one) for name, one in loader.items()}
        return share(loader, trainer.global_rank, trainer.world_size, order_seed, training)

    return part(loaders)


def share(loader: Any, rank: int, world: int, seed: int, training: bool) -> Any:
    """The part of `loader` that process `rank` of `world` goes through.

    Sample i goes to process i mod `world`, so that `world` batches side by side are one batch of a process alone.
    When training, the first samples are repeated to give each process as many; otherwise no sample is seen twice.
    A batch sampler's batches are dealt out whole. An iterable data set is left alone and has to part itself.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    common = {
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "generator": loader.generator,
        "prefetch_factor": loader.prefetch_factor,
        "persistent_workers": loader.persistent_workers,
    }
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        batches = _deal(list(loader.batch_sampler), rank, world, training)
        return DataLoader(loader.dataset, batch_sampler=batches, **common)
    size = len(loader.dataset)  # pyright: ignore[reportArgumentType]
    if type(loader.sampler) is SequentialSampler:
        order = list(range(size))
    elif type(loader.sampler) is RandomSampler:
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    else:
        raise ValueError(f"{type(loader.sampler).__name__}: processes can share a loader in order or shuffled alone")
    part = _deal(order, rank, world, training)
    return DataLoader(loader.dataset, batch_size=loader.batch_size, sampler=part, drop_last=loader.drop_last, **common)


def _deal(items: list[Any], rank: int, world: int, even: bool) -> list[Any]:
    if even and items:
        missing = -len(items) % world
        items = items + [items[i % len(items)] for i in range(missing)]
    return items[rank::world]
