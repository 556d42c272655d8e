"""A task small enough to train in a test, with everything whose state a resume must keep: dropout, Adam, a schedule."""

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset


class TinyModel(torch.nn.Module):
    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(16, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)[..., 0]


class TinyTask(lightning.LightningModule):
    def __init__(self, dropout: float = 0.2, rate: float = 1e-2) -> None:
        super().__init__()
        self.model = TinyModel(dropout)
        self.rate = rate

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = (self.model(batch[0]) - batch[1]).square().mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("valid/loss", (self.model(batch[0]) - batch[1]).square().mean(), sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class TinyData(lightning.LightningDataModule):
    """Its order is a function of the epoch, in the data set, so that processes share it as they should."""

    def __init__(self, size: int = 64, batch: int = 8, seed: int = 0, workers: int = 0) -> None:
        super().__init__()
        self.batch, self.seed, self.workers = batch, seed, workers
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(size, 4, generator=generator)
        self.y = torch.sin(self.x.sum(-1))

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        generator = torch.Generator().manual_seed(self.seed * 1000 + self.trainer.current_epoch)
        order = torch.randperm(len(self.x), generator=generator)
        data = TensorDataset(self.x[order], self.y[order])
        return DataLoader(data, batch_size=self.batch, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(self.x[:32], self.y[:32]), batch_size=self.batch)
