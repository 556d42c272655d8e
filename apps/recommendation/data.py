"""Batches of users. The order is a function of (seed, epoch) alone, so that a resumed run repeats it."""

from collections.abc import Iterator, Sequence

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from apps.recommendation.histories import Histories
from shared.errors import InputError

PACKED = ("inputs", "targets", "segments", "positions")
CHUNK = 128  # users that are ranked at a time: their scores should stay in the cache


def pad(rows: Sequence[np.ndarray], length: int) -> Tensor:
    """The last `length` of each row, zeros on the left, as wide as the longest needs: (B, L <= length) int64."""
    width = max(1, min(length, max((len(row) for row in rows), default=1)))
    out = np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        tail = row[-width:]
        out[i, width - len(tail) :] = tail
    return torch.from_numpy(out)


def by_length(lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Indices in parts of `size`, from short to long, so that little is padding."""
    order = np.argsort(lengths, kind="stable")
    for first in range(0, len(order), size):
        yield order[first : first + size]


class Users(torch.utils.data.Dataset):
    """Users by number; the batches are made of them by the loader's collation."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


def pack(rows: Sequence[np.ndarray], length: int) -> dict[str, Tensor]:
    """The last `length` + 1 items of each row as inputs and targets, many short rows side by side in one of `length`.

    Returns `inputs`, `targets`, `segments` (which row, from 1; 0 is padding) and `positions` (R, length), where the
    last input of each row stands at `length` - 1. What is padding is some percent, whatever the lengths.
    """
    needs = np.array([min(len(row) - 1, length) for row in rows])
    segments_of_row: list[list[int]] = []
    rooms: list[int] = []
    for i in np.argsort(-needs, kind="stable").tolist():  # first fit, the longest first
        r = next((r for r, room in enumerate(rooms) if room >= needs[i]), len(rooms))
        if r == len(rooms):
            segments_of_row.append([])
            rooms.append(length)
        segments_of_row[r].append(i)
        rooms[r] -= int(needs[i])
    out = {name: np.zeros((len(segments_of_row), length), np.int64) for name in PACKED}
    for r, members in enumerate(segments_of_row):
        at = 0
        for number, i in enumerate(members, 1):
            tail = rows[i][-length - 1 :]
            end = at + len(tail) - 1
            out["inputs"][r, at:end] = tail[:-1]
            out["targets"][r, at:end] = tail[1:]
            out["segments"][r, at:end] = number
            out["positions"][r, at:end] = np.arange(length - len(tail) + 1, length)
            at = end
    return {name: torch.from_numpy(value) for name, value in out.items()}


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
