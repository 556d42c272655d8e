"""The loss, the metrics and the optimiser of a run."""

import math
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor

from apps.wsi.config import TrainConfig
from apps.wsi.model import bag_loss, build_model


class BagTask(lightning.LightningModule):
    """The loss of `bag_loss` in training; the bag's cross-entropy and accuracy in validation."""

    def __init__(self, architecture: dict[str, Any], config: TrainConfig, steps: int) -> None:
        super().__init__()
        self.model = build_model(architecture)
        self.config, self.steps = config, steps

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        loss = bag_loss(self.model(batch["x"], batch["keep"]), batch["labels"]).mean()
        count = len(batch["labels"])
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=count, sync_dist=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        # Bags come one at a time: without padding a long one is read in chunks.
        logits = self.model(batch["x"], None if batch["keep"].all() else batch["keep"]).bag
        correct = (logits.argmax(-1) == batch["labels"]).float().mean()
        self.log("valid/loss", F.cross_entropy(logits, batch["labels"]), batch_size=len(logits), sync_dist=True)
        self.log("valid/accuracy", correct, batch_size=len(logits), sync_dist=True)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )

        def factor(step: int) -> float:
            return 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
