"""Batches of users. The order is a function of (seed, epoch) alone, so that a resumed run repeats it."""

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from apps.recommendation.batches import CHUNK, by_length, pack, pad
from apps.recommendation.histories import Histories
from shared.errors import InputError


class Users(torch.utils.data.Dataset):
    """Users by number; the batches are made of them by the loader's collation."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class RecommendationData(lightning.LightningDataModule):
    """Training: every position of every user's training part. Validation: the last but one item of every user.

    A training batch is a random set of users, packed (see `pack`). A validation batch is (inputs (B, L), targets (B,)).
    """

    def __init__(
        self, histories: Histories, length: int, *, batch: int, passes: int, seed: int, processes: int = 1
    ) -> None:
        super().__init__()
        self.train_rows = [row for row in histories.training() if len(row) > 1]
        if not self.train_rows:
            raise InputError(f"{histories.name}: no user has two events to train on; give longer histories")
        users, self.valid_targets = histories.held_out("valid")
        if not len(users):
            raise InputError(f"{histories.name}: no user has three events, so none is left to validate on; give more")
        self.valid_rows = [histories.history(user, "valid") for user in users]
        self.length, self.passes, self.seed = length, passes, seed
        self.batch, self.processes = batch, processes

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch if self.trainer else 0
        rng = np.random.default_rng((self.seed, epoch))
        count, parts = len(self.train_rows), range(self.processes)
        batches = []
        for _ in range(self.passes):
            order = rng.permutation(count)
            for users in (order[i : i + self.batch] for i in range(0, count, self.batch)):
                # Dealt out in this order. A process without a user, in a last small batch, repeats another's.
                batches += [
                    (users[part :: self.processes] if part < len(users) else users[:1]).tolist() for part in parts
                ]
        return DataLoader(Users(count), batch_sampler=batches, collate_fn=self.training_batch)

    def training_batch(self, users: list[int]) -> dict[str, Tensor]:
        return pack([self.train_rows[user] for user in users], self.length)

    def val_dataloader(self) -> DataLoader:
        size = min(CHUNK, -(-len(self.valid_rows) // self.processes))  # something for each process
        parts = [part.tolist() for part in by_length(np.array([len(row) for row in self.valid_rows]), size)]
        return DataLoader(Users(len(self.valid_rows)), batch_sampler=parts, collate_fn=self.validation_batch)

    def validation_batch(self, users: list[int]) -> tuple[Tensor, Tensor]:
        return pad([self.valid_rows[i] for i in users], self.length), torch.from_numpy(self.valid_targets[users])
