"""Bags to train and validate on. What an epoch shows is a function of (seed, epoch): a resumed run repeats it."""

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from apps.wsi.bags import Bag, Bags, batches, pad, some_instances
from apps.wsi.config import TrainConfig
from shared.errors import InputError


class Instances(Dataset):
    """Bag by bag: its features, of which at most `limit` are drawn anew in each epoch, and its label."""

    def __init__(self, bags: list[Bag], limit: int, seed: int, epoch: int) -> None:
        self.bags, self.limit, self.seed, self.epoch = bags, limit, seed, epoch

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        bag = self.bags[index]
        assert bag.label is not None
        rng = np.random.default_rng((self.seed, self.epoch, index))
        return some_instances(bag.features, self.limit, rng), bag.label


def collate(items: list[tuple[np.ndarray, int]]) -> dict[str, Tensor]:
    """Bags (B, N, features), `keep` (B, N) and labels (B,)."""
    x, keep = pad([features for features, _ in items])
    return {"x": x, "keep": keep, "labels": torch.tensor([label for _, label in items])}


class BagData(lightning.LightningDataModule):
    """Training bags in batches of like sizes, in another order in each epoch; validation bags whole.

    Processes that train together share each batch: every step sees the bags that one process would see.
    """

    def __init__(
        self, data: Bags, train: np.ndarray, valid: np.ndarray, config: TrainConfig, seed: int, processes: int = 1
    ) -> None:
        super().__init__()
        if config.batch % processes:
            raise InputError(
                f"train.batch {config.batch} is not divisible by the {processes} processes; give a multiple with --set"
            )
        self.train = [data.bags[index] for index in train]
        self.valid = [data.bags[index] for index in valid]
        self.config, self.seed, self.processes = config, seed, processes

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        sizes = [min(len(bag.features), self.config.instances or 10**9) for bag in self.train]
        whole = batches(sizes, self.config.batch, np.random.default_rng((self.seed, epoch)))
        # In this order `shared_loaders` deals them out. A last batch of fewer bags than processes repeats some.
        order = [
            np.resize(b, max(len(b), self.processes))[r :: self.processes] for b in whole for r in range(self.processes)
        ]
        shown = Instances(self.train, self.config.instances, self.seed, epoch)
        return DataLoader(shown, batch_sampler=[part.tolist() for part in order], collate_fn=collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Instances(self.valid, 0, self.seed, 0), batch_size=1, collate_fn=collate)
