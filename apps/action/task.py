"""The loss, the metric and the optimiser of an action run."""

import math

import lightning
import torch
from torch import Tensor

from apps.action.config import ActionConfig, TrainConfig
from apps.action.losses import detection_loss
from apps.action.model import BoundaryMatchingNetwork


def architecture(config: ActionConfig, channels: int, semantics_channels: int, classes: int) -> dict:
    """The flat arguments of `BoundaryMatchingNetwork`; what a model's card keeps."""
    return {
        "channels": channels,
        "classes": classes,
        "semantics_channels": semantics_channels,
        **config.model.model_dump(),
    }


class ActionTask(lightning.LightningModule):
    """Loss of boundaries, proposals and snippet classes; see `detection_loss`."""

    def __init__(self, arguments: dict, config: TrainConfig, steps: int) -> None:
        super().__init__()
        self.model = BoundaryMatchingNetwork(**arguments)
        self.train_config, self.total = config, steps

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.model(batch["x"], batch.get("semantics"), batch["keep"])

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        loss = detection_loss(self(batch), batch, self.train_config.class_weight, self._shared)["loss"]
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(batch["x"]), sync_dist=True)
        return loss

    def _shared(self, counts: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(counts, reduce_op="mean")  # pyright: ignore[reportReturnType]

    def on_train_epoch_end(self) -> None:
        # What is watched when no epoch is selected: it rises, so the last one is kept.
        self.log("train/epoch", float(self.current_epoch + 1), sync_dist=True)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        out, keep = self(batch), batch["keep"]
        for name, value in detection_loss(out, batch, self.train_config.class_weight).items():
            self.log(f"valid/{name}", value, batch_size=len(keep), sync_dist=True)
        right = (out["classes"].argmax(-1) == batch["classes"].argmax(-1))[keep].float().mean()
        self.log("valid/accuracy", right, batch_size=int(keep.sum()), sync_dist=True)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.train_config.learning_rate, weight_decay=self.train_config.weight_decay
        )
        warmup = min(20, max(1, self.total // 10))

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / warmup)
            return rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.total)))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
