"""The loss, the metric and the optimiser of a music run."""

import math

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor

from apps.music.codecs import get_codec
from apps.music.config import MusicConfig, TrainConfig
from apps.music.data import counted
from apps.music.model import MusicTransformer


def architecture(config: MusicConfig) -> dict:
    """The flat arguments of `MusicTransformer` for a configuration; what a model's card keeps."""
    codec = get_codec(config.data.codec)
    model = config.model.model_dump()
    labels = model.pop("labels")
    raster = config.data.codec == "chorale"
    return {
        "vocab": codec.VOCAB_SIZE,
        "voices": len(codec.VOICES) if raster else 1,
        "labels": labels and raster,
        "source_vocab": codec.VOCAB_SIZE if config.data.accompany else 0,
        **model,
        "relations": list(config.model.relations),
    }


def token_nll(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Negative log-likelihood of each next token in nats: logits (B, L, V) -> (B, L)."""
    return F.cross_entropy(logits.flatten(0, 1), batch["tokens"][:, 1:].flatten(), reduction="none").view(
        logits.shape[:2]
    )


def predict_batch(model: MusicTransformer, batch: dict[str, Tensor]) -> Tensor:
    """Logits (B, L, V) for a batch whose `tokens` are (B, L + 1)."""
    clock = batch.get("clock")
    return model(
        batch["tokens"][:, :-1],
        batch["start"],
        clock=None if clock is None else clock[:, :-1],
        source=batch.get("source"),
        source_keep=batch.get("source_keep"),
        source_clock=batch.get("source_clock"),
    )


class MusicTask(lightning.LightningModule):
    """Cross-entropy over all tokens with EOS; validation NLL a token of music, without EOS, as the paper counts."""

    def __init__(self, config: MusicConfig) -> None:
        super().__init__()
        self.model = MusicTransformer(**architecture(config))
        self.train_config = config.train
        self.codec = get_codec(config.data.codec)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        nll = token_nll(predict_batch(self.model, batch), batch)
        real = batch["tokens"][:, 1:] != self.codec.PAD
        loss = nll[real].mean()
        self.log(
            "train/nll", loss.detach(), on_step=False, on_epoch=True, batch_size=len(batch["tokens"]), sync_dist=True
        )
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        targets, music = batch["tokens"][:, 1:], counted(batch, self.codec)
        logits = predict_batch(self.model, batch)
        nll, count = token_nll(logits, batch)[music], int(music.sum())
        correct = (logits.argmax(-1) == targets)[music].float()
        if not count:  # a last window may hold nothing new but EOS
            return
        self.log("valid/nll", nll.mean(), batch_size=count, sync_dist=True)
        self.log("valid/accuracy", correct.mean(), batch_size=count, sync_dist=True)

    def configure_optimizers(self) -> dict:
        optimizer = build_optimizer(self.model, self.train_config)
        total, warmup = self.train_config.steps * self.train_config.epochs, self.train_config.warmup

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, warmup))
            return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def build_optimizer(model: MusicTransformer, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only. The paper: Adam with the inverse square root schedule of Vaswani et
    al. 2017."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
