"""What happens at the end of each epoch: the checkpoint, the best weights, metrics.jsonl and the decision to stop."""

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import safetensors
import safetensors.torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor, nn

from shared.errors import ManyheadsError
from shared.io.files import replacing, to_json, write_text
from shared.training.average import WeightAverage, model_of, shipped_weights

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LAST, BEST, METRICS = "last.ckpt", "best.safetensors", "metrics.jsonl"


class RunKeeper(Checkpoint):
    """Keeps a run folder after every epoch, in an order that survives a kill between any two writes.

    First `last.ckpt`, which holds everything (this object's state too), then what can be made from it again:
    `best.safetensors` and `metrics.jsonl`. Being a `Checkpoint`, it runs after all other callbacks.
    """

    def __init__(
        self,
        folder: Path,
        *,
        monitor: str,
        mode: str,
        patience: int | None,
        max_epochs: int,
        max_minutes: float | None,
        settings: dict[str, Any],
        average: WeightAverage | None,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode is min or max, not {mode}")
        self.folder = folder
        self.monitor = monitor
        self.sign = 1 if mode == "min" else -1
        self.patience = patience
        self.max_epochs = max_epochs
        self.max_minutes = max_minutes
        self.settings = settings
        self.average = average
        self.best: float | None = None
        self.best_epoch = 0  # counted from 1; 0 while there is none
        self.history: list[dict[str, Any]] = []
        self.finished = False
        self._began = 0.0

    @property
    def epochs(self) -> int:
        return len(self.history)

    @property
    def out_of_time(self) -> bool:
        """Whether the minutes of all epochs so far, those before a resume too, have reached the limit."""
        return self.max_minutes is not None and sum(row["seconds"] for row in self.history) >= 60 * self.max_minutes

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs):
            # Lightning steps it after the last hook in which an epoch can be saved: a resumed run would lack a step.
            raise ValueError("ReduceLROnPlateau cannot be resumed exactly; use a schedule of steps or epochs")
        if trainer.is_global_zero and self.epochs:
            self.restore_files(model_of(pl_module))

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # The first process decides for all: clocks differ, and so does a metric logged without sync_dist.
        row = trainer.strategy.broadcast(self._row(trainer))
        self._judge(row)
        trainer.should_stop = trainer.should_stop or self.finished or trainer.strategy.broadcast(self.out_of_time)
        if trainer.is_global_zero:
            with replacing(self.folder / LAST) as partial:
                trainer.save_checkpoint(partial)
            self._write_metrics()
            if self.best_epoch == self.epochs:
                self._write_best(shipped_weights(model_of(pl_module), self.average))
        else:
            trainer.save_checkpoint(self.folder / LAST)  # writes nothing here, but all processes have to take part

    def _row(self, trainer: lightning.Trainer) -> dict[str, Any]:
        metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        if self.monitor not in metrics:
            raise ValueError(f"{self.monitor} is to be watched but was not logged; logged: {', '.join(metrics)}")
        return {
            "epoch": self.epochs + 1,
            "step": trainer.global_step,
            **metrics,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.monotonic() - self._began, 3),
        }

    def _judge(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        value = row[self.monitor]
        if math.isfinite(value) and (self.best is None or self.sign * value < self.sign * self.best):
            self.best, self.best_epoch = value, self.epochs
        waited = self.epochs - self.best_epoch
        self.finished = self.epochs >= self.max_epochs or (self.patience is not None and waited >= self.patience)

    def restore_files(self, model: nn.Module) -> None:
        """Writes again what a kill after `last.ckpt` may have prevented; the model has that checkpoint's weights."""
        self._write_metrics()
        if self.best_epoch and best_epoch_in(self.folder) != self.best_epoch:
            if self.best_epoch != self.epochs:
                raise ManyheadsError(
                    f"{self.folder / BEST}: the weights of epoch {self.best_epoch} are gone; train in another folder"
                )
            self._write_best(shipped_weights(model, self.average))

    def _write_metrics(self) -> None:
        write_text(self.folder / METRICS, "".join(to_json(row) + "\n" for row in self.history))

    def _write_best(self, state_dict: dict[str, Tensor]) -> None:
        with replacing(self.folder / BEST) as partial:
            partial.write_bytes(safetensors.torch.save(state_dict, {"epoch": str(self.best_epoch)}))

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": json.dumps(self.history),  # text, since the checkpoint is read with weights_only
            "finished": self.finished,
            "settings": json.dumps(self.settings),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.best_epoch = state_dict["best_epoch"]
        self.history = json.loads(state_dict["history"])
        self.finished = state_dict["finished"]


def best_epoch_in(folder: Path) -> int | None:
    """The epoch that `best.safetensors` says it is from; None where there is no such file."""
    try:
        with safetensors.safe_open(folder / BEST, "pt") as file:
            return int((file.metadata() or {})["epoch"])
    except (OSError, KeyError, safetensors.SafetensorError):
        return None


class TrainingProgress(Callback):
    """A bar over all steps of the run with the time left; add it only where there is a terminal."""

    def __init__(self, progress: "Progress", keeper: RunKeeper) -> None:
        self.progress = progress
        self.keeper = keeper
        self._bar: TaskID | None = None

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        steps = trainer.num_training_batches
        if self._bar is None and math.isfinite(steps):
            total = int(steps) * self.keeper.max_epochs
            self._bar = self.progress.add_task("", total=total, completed=int(steps) * self.keeper.epochs)
        self._describe()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None:
            self.progress.advance(self._bar)

    def _describe(self) -> None:
        text = f"epoch {self.keeper.epochs + 1} of at most {self.keeper.max_epochs}"
        if self.keeper.history:
            last = self.keeper.history[-1][self.keeper.monitor]
            best = f", best {self.keeper.best:.4f}" if self.keeper.best is not None else ""
            text += f", {self.keeper.monitor} {last:.4f}{best}"
        if self._bar is not None:
            self.progress.update(self._bar, description=text)
