"""Randomness that is a function of the place in a run, so that an interrupted run repeats exactly."""

import hashlib
import random
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch. Call it before a model is built, for the sake of its initial weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_at(seed: int, epoch: int, step: int, rank: int) -> int:
    """A 63-bit seed that depends on all four numbers, the same on every machine and in every Python."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class StepSeed(Callback):
    """Seeds torch before every training batch from (seed, epoch, batch, rank).

    Torch is seeded at the start of an epoch too, before Lightning asks the loader for its iterator, from whose seed
    loader workers and unseeded samplers take theirs. Numpy and `random` are not: use generators of your own there.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # A resumed run makes its first iterator right after this hook, an unbroken one after on_train_epoch_start.
        torch.manual_seed(seed_at(self.seed, trainer.current_epoch, -1, trainer.global_rank))

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        torch.manual_seed(seed_at(self.seed, trainer.current_epoch, -1, trainer.global_rank))

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(seed_at(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank))

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        torch.manual_seed(seed_at(self.seed, trainer.current_epoch, -2, trainer.global_rank))
