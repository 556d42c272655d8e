"""The losses and the optimiser of a video run."""

import copy

import lightning
import torch
from torch import Tensor

from apps.video.config import VideoConfig
from apps.video.losses import consistency, drawn, instance_contrast, overlap, pick_queries, transport_loss
from apps.video.model import SlotModel, TemporalModel, build


def architecture(config: VideoConfig, dim: int) -> dict:
    """The flat arguments of the model for features of `dim` channels; what a model's card keeps."""
    model = config.model
    if model.method == "attention":
        return {"dim": dim, "heads": model.heads, "ratio": model.ratio}
    return {
        "dim": dim,
        "width": model.width,
        "semantics": model.semantics,
        "instances": model.instances,
        "iterations": model.iterations,
        "reach": model.reach,
    }


class VideoTask(lightning.LightningModule):
    """Consistency of attention (SSL-UVOS), or of slots with a teacher that follows them (SMTC)."""

    def __init__(self, config: VideoConfig, dim: int) -> None:
        super().__init__()
        self.model = build(config.model.method, architecture(config, dim))
        self.train_config = config.train
        self.teacher = copy.deepcopy(self.model).requires_grad_(False) if isinstance(self.model, SlotModel) else None

    def start_from(self, tokens: Tensor) -> None:
        """Take channel statistics from tokens (N, C) of the training frames."""
        for model in (self.model, self.teacher):
            if model is not None:
                model.enter.fit(tokens)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if isinstance(self.model, TemporalModel):
            return attention_losses(self.model, batch, self.train_config.queries)
        assert self.teacher is not None
        return slot_losses(self.model, self.teacher, batch)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        losses = self.losses(batch)
        size = len(batch["keys"])
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        return sum(losses.values(), torch.zeros((), device=self.device))

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.teacher is not None:
            decay = self.train_config.ema
            with torch.no_grad():
                for mean, value in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
                    mean.lerp_(value, 1 - decay)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        losses = self.losses(batch)
        for name, value in losses.items():
            self.log(f"valid/{name}", value, batch_size=1, sync_dist=True)
        self.log("valid/loss", sum(losses.values(), torch.zeros((), device=self.device)), batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config = self.train_config
        return torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def attention_losses(model: TemporalModel, batch: dict[str, Tensor], queries: int) -> dict[str, Tensor]:
    """The two losses of SSL-UVOS on clips: keys (B, T, h, w, C), cls (B, T, C)."""
    keys = batch["keys"]
    frames, tokens = keys.shape[1], keys.shape[2] * keys.shape[3]
    out, rows = model(keys, batch["cls"])
    asked = pick_queries(drawn(batch["draw"], frames, tokens), queries)
    semantic, motion = consistency(out, rows, frames, asked)
    return {"semantic": semantic, "motion": motion}


def slot_losses(model: SlotModel, teacher: SlotModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The three losses of SMTC on clips, each of weight 1, over neighbouring frames of the clip."""
    keys = batch["keys"]
    frames = keys.shape[1]
    noise = drawn(batch["draw"], model.slots.instances, *model.slots.gaussians.mean.shape)
    seen = [model(keys[:, t], keys[:, max(0, t - 1)], noise) for t in range(frames)]
    with torch.no_grad():
        taught = [teacher(keys[:, t], keys[:, max(0, t - 1)], noise) for t in range(frames)]
    pairs = [(t, t + 1) for t in range(frames - 1)] + [(t + 1, t) for t in range(frames - 1)]
    transport = [
        transport_loss(seen[a][0], seen[b][1].semantics, taught[a][0], taught[a][1].semantics) for a, b in pairs
    ]
    contrast = [
        instance_contrast(seen[a][1].instances.flatten(1, 2), taught[b][1].instances.flatten(1, 2)) for a, b in pairs
    ]
    apart = [overlap(stages.semantic_masks) for _, stages in seen]
    return {
        "transport": torch.stack(transport).mean(),
        "overlap": torch.stack(apart).mean(),
        "contrast": torch.stack(contrast).mean(),
    }
