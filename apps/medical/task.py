"""The losses, the metrics and the optimiser of a medical run."""

import math

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor

from apps.medical.config import MedicalConfig, TrainConfig
from apps.medical.model import GuidedSegmenter
from apps.medical.networks import architecture, build


def dice_loss(logits: Tensor, y: Tensor) -> Tensor:
    """1 - mean over labels of 2 |p y| / (|p| + |y|), over the whole batch: logits (B, K, H, W), y (B, H, W)."""
    share = logits.softmax(1)[:, 1:]
    truth = F.one_hot(y, logits.shape[1]).movedim(-1, 1)[:, 1:].to(share.dtype)
    over = (0, 2, 3)
    both, each = (share * truth).sum(over), share.sum(over) + truth.sum(over)
    return 1 - ((2 * both + 1) / (each + 1)).mean()


def segmentation_loss(model: torch.nn.Module, x: Tensor, y: Tensor, config: TrainConfig) -> dict[str, Tensor]:
    """The loss and its parts. The guided segmenter: the cross-entropies of all eight heads summed (of the mean
    prediction alone without deep supervision), the losses of the guidance by their weights, and a Dice term for each
    head; others: cross-entropy and Dice."""
    if isinstance(model, GuidedSegmenter):
        found = model.predict(x)
        mean = torch.stack(found.refined).mean(0)
        heads = [*found.coarse, *found.refined] if config.deep_supervision else [mean]
        guidance = {"guided": found.guided, "reconstruction": found.reconstruction}
    else:
        heads, guidance = [model(x)], {}
        mean = heads[0]
    parts = {"cross_entropy": torch.stack([F.cross_entropy(head, y) for head in heads]).sum(), **guidance}
    loss = parts["cross_entropy"]
    if guidance:
        loss = loss + config.guided_weight * found.guided + config.reconstruction_weight * found.reconstruction
    if config.dice_weight:
        parts["dice"] = dice_loss(mean, y)
        loss = loss + config.dice_weight * len(heads) * parts["dice"]
    return {"loss": loss, **parts}


class SegmentationTask(lightning.LightningModule):
    """Trains any segmenter of the app; validation Dice is over all voxels of the validation slices."""

    def __init__(self, config: MedicalConfig, channels: int, classes: int) -> None:
        super().__init__()
        from torchmetrics.segmentation import DiceScore

        self.model = build(**architecture(config.model, channels, classes))
        self.config = config.train
        self.dice = DiceScore(classes, include_background=False, average="macro", input_format="index")
        self.dice.aggregation_level = "global"

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        parts = segmentation_loss(self.model, batch["x"], batch["y"], self.config)
        for name, value in parts.items():
            self.log(
                f"train/{name}",
                value.detach(),
                on_step=False,
                on_epoch=True,
                batch_size=len(batch["x"]),
                sync_dist=True,
            )
        return parts["loss"]

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        logits = self.model(batch["x"])
        self.log("valid/loss", F.cross_entropy(logits, batch["y"]), batch_size=len(batch["x"]), sync_dist=True)
        self.dice.update(logits.argmax(1).flatten()[None], batch["y"].flatten()[None])

    def on_validation_epoch_end(self) -> None:
        self.log("valid/dice", self.dice.compute().nan_to_num(), sync_dist=True)
        self.dice.reset()

    def configure_optimizers(self) -> dict:
        return optimiser(self.model, self.config)


class ClassificationTask(lightning.LightningModule):
    """Trains MEDUSA by cross-entropy on batches that hold every class alike."""

    def __init__(self, config: MedicalConfig, channels: int, classes: int) -> None:
        super().__init__()
        from torchmetrics.classification import MulticlassAccuracy

        self.model = build(**architecture(config.model, channels, classes))
        self.config = config.train
        self.accuracy = MulticlassAccuracy(classes, average="macro")

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        loss = F.cross_entropy(self.model(batch["x"]), batch["y"])
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(batch["x"]), sync_dist=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        logits = self.model(batch["x"])
        self.log("valid/loss", F.cross_entropy(logits, batch["y"]), batch_size=len(batch["x"]), sync_dist=True)
        self.accuracy(logits, batch["y"])
        self.log("valid/accuracy", self.accuracy, on_epoch=True)

    def configure_optimizers(self) -> dict:
        return optimiser(self.model, self.config)


def optimiser(model: torch.nn.Module, config: TrainConfig) -> dict:
    """Adam with the paper's betas; linear warm-up, then a cosine to a hundredth (the paper: halved every 50 epochs)."""
    adam = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
    total = config.steps * config.epochs

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / max(1, config.warmup))
        return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))))

    schedule = torch.optim.lr_scheduler.LambdaLR(adam, factor)
    return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
