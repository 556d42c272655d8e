"""The loss, the metric and the optimiser of a recommendation run."""

import math

import lightning
import torch
from torch import Tensor

from apps.recommendation.config import RecommendationConfig
from apps.recommendation.losses import next_item_loss
from apps.recommendation.model import SequenceRecommender
from apps.recommendation.ranking import count_ranks, metrics_of
from apps.recommendation.transitions import Teacher, Transitions


def architecture(config: RecommendationConfig, items: int) -> dict:
    """The flat arguments of `SequenceRecommender` for a configuration; what a model's card keeps."""
    model = config.model.model_dump()
    return {"items": items, **model, "windows": list(model["windows"]), "weights": list(model["weights"])}


def distillation(model: SequenceRecommender, teacher: Teacher, rows: Tensor, temperature: float) -> Tensor:
    """The TED loss: mean over `rows` (M,) of the cross-entropy of softmax(dropout(E_i sqrt(d)) E^T / tau)."""
    return teacher(rows, model.items, model.dropout(model.scaled(rows)) / temperature)


def among_processes(count: int, device: torch.device) -> Tensor | float:
    """What a mean over `count` positions weighs in the mean over processes, so that this is one over all positions."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1.0
    total = torch.tensor(float(count), device=device)
    torch.distributed.all_reduce(total)
    return count * torch.distributed.get_world_size() / total


class RecommendationTask(lightning.LightningModule):
    """Cross-entropy of every next item plus lambda times TED; validation by full ranking, history filtered."""

    def __init__(self, config: RecommendationConfig, items: int, transitions: Transitions, steps: int) -> None:
        super().__init__()
        self.config, self.steps = config, steps
        self.model = SequenceRecommender(**architecture(config, items))
        # In a list, so that what is made of the training data is no part of a checkpoint.
        self.teacher = [Teacher(transitions, config.ted.temperature)] if config.ted.weight else []

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        real = batch["inputs"] > 0
        hidden = self.model(batch["inputs"], batch["segments"], batch["positions"])[real]
        items, train, ted = self.model.items, self.config.train, self.config.ted
        negatives = None
        if 0 < train.negatives < len(items):
            negatives = torch.randperm(len(items), device=items.device)[: train.negatives]
        loss = next_item_loss(hidden, items, batch["targets"][real] - 1, negatives)
        self._log("train/loss", loss.detach(), len(hidden))
        loss = loss * among_processes(len(hidden), loss.device)
        if self.teacher:
            rows = batch["inputs"][real]
            if ted.share < 1:
                rows = rows[torch.randperm(len(rows), device=rows.device)[: max(1, round(ted.share * len(rows)))]]
            distilled = distillation(self.model, self.teacher[0].to(rows.device), rows, ted.temperature)
            self._log("train/ted", distilled.detach(), len(rows))
            loss = loss + ted.weight * distilled * among_processes(len(rows), loss.device)
        return loss

    def _log(self, name: str, value: Tensor | float, count: int) -> None:
        """Log a mean over `count`; an epoch's is the mean over all of them, in all processes."""
        # A float, since Lightning averages counts over processes, and would lose a whole number's half.
        size: int = float(count)  # pyright: ignore[reportAssignmentType]
        self.log(name, value, on_epoch=True, on_step=False, batch_size=size, sync_dist=True)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        inputs, targets = batch
        scores = self.model.last(inputs) @ self.model.items.T
        above, beside = count_ranks(scores, targets, inputs)
        for name, values in metrics_of(above.cpu().numpy(), beside.cpu().numpy()).items():
            if name in ("hr@5", "hr@10", "ndcg@5", "ndcg@10", "ndcg@20"):
                self._log(f"valid/{name}", float(values.mean()), len(targets))

    def configure_optimizers(self) -> dict:
        train = self.config.train
        optimizer = torch.optim.Adam(
            self.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay, fused=True
        )
        total = self.steps * train.epochs

        def factor(step: int) -> float:
            return 1.0 if train.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
