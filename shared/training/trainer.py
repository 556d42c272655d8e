"""`fit`: one way to train for all apps, on Lightning, with a run folder that survives being killed."""

import contextlib
import json
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import safetensors.torch
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.trainer.states import TrainerStatus

from shared.command import is_main_process, progress
from shared.errors import InputError, ManyheadsError
from shared.io.files import output_folder
from shared.training.average import WeightAverage, model_of
from shared.training.callbacks import BEST, LAST, RunKeeper, TrainingProgress
from shared.training.run_folder import refuse_to_overwrite
from shared.training.seeds import StepSeed, seed_everything
from shared.training.sharing import shared_loaders


@dataclass(frozen=True)
class Hardware:
    """Where and how to compute; all of it passes through to Lightning. Raises `InputError` for what is not there."""

    device: str = "auto"  # auto, cpu, cuda, mps
    devices: int | str = "auto"  # a number, or auto: all of a kind
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda", "mps"):
            raise InputError(f"--device {self.device}: is none of auto, cpu, cuda, mps")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: this machine has no CUDA device that torch can use; use --device cpu")
        if self.device == "mps" and not torch.backends.mps.is_available():
            raise InputError("--device mps: this machine has no Apple GPU that torch can use; use --device cpu")
        if self.devices != "auto" and not (str(self.devices).isdecimal() and int(self.devices) > 0):
            raise InputError(f"--devices {self.devices}: is neither a number above 0 nor auto")

    @property
    def processes(self) -> int:
        """How many processes train together, on all machines: one for each device."""
        if self.devices != "auto":
            return int(self.devices) * self.num_nodes
        return (max(1, torch.cuda.device_count()) if self.device in ("auto", "cuda") else 1) * self.num_nodes

    def check(self) -> None:
        """Raises `InputError` for what Lightning refuses; `fit` does so too, but an app has written files by then."""
        with _quiet():
            _trainer([], self, Path(), {"max_epochs": 1, "gradient_clip": None, "accumulate": 1})


@dataclass(frozen=True)
class FitResult:
    """What training came to. Epochs count from 1."""

    best: float  # the best value of the metric that was watched
    best_epoch: int
    epochs: int  # trained in all, those before a resume too
    best_state: dict[
        str, torch.Tensor
    ]  # of task.model at the best epoch, averaged where there is an average; on the CPU
    finished: bool  # False when the time limit ended it: a resume with a larger limit goes on


def fit(
    task: lightning.LightningModule,
    data: lightning.LightningDataModule,
    run_dir: Path,
    *,
    seed: int,
    max_epochs: int,
    monitor: str,
    mode: Literal["min", "max"] = "min",
    patience: int | None = None,
    gradient_clip: float | None = None,
    ema_decay: float | None = None,
    hardware: Hardware | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    accumulate: int = 1,
) -> FitResult:
    """Trains `task.model` and keeps `run_dir`: last.ckpt, best.safetensors and metrics.jsonl after every epoch.

    Training ends after `max_epochs`, after `patience` epochs without a better `monitor`, or, cleanly at the end of an
    epoch, when the run has had `max_minutes` in all. `resume` goes on from last.ckpt, and returns the result of a run
    that is finished; what a run then does is what it had done unbroken (bit for bit on a CPU), given that the data
    module takes its order from `self.trainer.current_epoch` and its own seed: its loaders are made anew every epoch.
    With `ema_decay`, validation and the best weights are those of the moving average (see `WeightAverage`).

    With several processes only the first returns; the others end here (`SystemExit`), their work being done. Log
    validation metrics with `sync_dist=True`. How they share the loaders: `shared.training.sharing`.

    Raises `InputError` when `run_dir` holds a run and `resume` is not given, when it holds a run with other settings
    than these, and when its checkpoint is damaged; `ManyheadsError` when `monitor` never was a finite number.
    """
    settings = {
        "seed": seed,
        "max_epochs": max_epochs,
        "monitor": monitor,
        "mode": mode,
        "patience": patience,
        "gradient_clip": gradient_clip,
        "ema_decay": ema_decay,
        "accumulate": accumulate,
    }
    output_folder(run_dir)
    if not resume:
        refuse_to_overwrite(run_dir)
    average = WeightAverage(ema_decay) if ema_decay is not None else None
    keeper = RunKeeper(
        run_dir,
        monitor=monitor,
        mode=mode,
        patience=patience,
        max_epochs=max_epochs,
        max_minutes=max_minutes,
        settings=settings,
        average=average,
    )
    last = run_dir / LAST
    going_on = resume and last.exists()
    if resume and not going_on and is_main_process():
        print(f"note: {run_dir}: no checkpoint to go on from; training starts anew", file=sys.stderr)
    if going_on:
        checkpoint = _read_checkpoint(last, settings)
        keeper.load_state_dict(checkpoint["callbacks"]["RunKeeper"])
        _load_weights(task, checkpoint, average, last)
        if keeper.finished or keeper.out_of_time:
            _leave_the_first()
            keeper.restore_files(model_of(task))
            return _result(keeper)
    seed_everything(seed)
    _train(task, data, keeper, average, hardware or Hardware(), last if going_on else None, settings)
    _leave_the_first()
    # Read from the file, since with a spawning strategy this process has not trained itself.
    keeper.load_state_dict(_read_checkpoint(last, settings)["callbacks"]["RunKeeper"])
    return _result(keeper)


def _leave_the_first() -> None:
    if not is_main_process():
        sys.exit(0)


def _train(
    task: lightning.LightningModule,
    data: lightning.LightningDataModule,
    keeper: RunKeeper,
    average: WeightAverage | None,
    hardware: Hardware,
    last: Path | None,
    settings: dict[str, Any],
) -> None:
    bar = progress()
    callbacks = [StepSeed(settings["seed"]), *([average] if average is not None else []), keeper]
    if not bar.disable:
        callbacks.insert(0, TrainingProgress(bar, keeper))
    with _quiet(), bar, shared_loaders(data, settings["seed"]):
        trainer = _trainer(callbacks, hardware, keeper.folder, settings)
        handler = signal.getsignal(signal.SIGINT)
        try:
            # weights_only: a checkpoint holds tensors, numbers and text, and is not allowed to run anything.
            trainer.fit(task, datamodule=data, ckpt_path=last, weights_only=True)
        except SystemExit:
            if trainer.state.status == TrainerStatus.INTERRUPTED and not trainer.received_sigterm:
                # Lightning turns Ctrl-C into exit code 1 and leaves the signal blocked.
                raise KeyboardInterrupt from None
            raise
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, handler)


def _trainer(callbacks: list[Any], hardware: Hardware, folder: Path, settings: dict[str, Any]) -> lightning.Trainer:
    try:
        return lightning.Trainer(
            accelerator=hardware.device,
            devices=hardware.devices if hardware.devices == "auto" else int(hardware.devices),
            num_nodes=hardware.num_nodes,
            strategy=hardware.strategy,
            precision=hardware.precision,  # pyright: ignore[reportArgumentType]
            max_epochs=settings["max_epochs"],
            gradient_clip_val=settings["gradient_clip"],
            accumulate_grad_batches=settings["accumulate"],
            callbacks=callbacks,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,  # see shared_loaders
            num_sanity_val_steps=0,
            log_every_n_steps=0,  # metrics are kept by the epoch; the step's would only cost time
            logger=False,
            enable_checkpointing=True,  # by RunKeeper, which takes the place of the one that Lightning would add
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"hardware: {' '.join(str(error).split())}; change --device, --strategy or --precision"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's announcements and tips say nothing that a user of a command can act on; errors still pass."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.|torch\.utils\.data")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _read_checkpoint(last: Path, settings: dict[str, Any]) -> dict[str, Any]:
    try:
        checkpoint = torch.load(last, map_location="cpu", weights_only=True, mmap=True)
        kept = json.loads(checkpoint["callbacks"]["RunKeeper"]["settings"])
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{last}: is damaged or no checkpoint of train ({reason}); train in another folder") from None
    for name, value in settings.items():
        if kept.get(name) != value:
            raise InputError(
                f"{last}: {name} is {kept.get(name)} there, not {value}; resume with the same, or name another folder"
            )
    return checkpoint


def _load_weights(
    task: lightning.LightningModule, checkpoint: dict[str, Any], average: WeightAverage | None, last: Path
) -> None:
    try:
        task.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{last}: belongs to another model ({reason}); name another folder") from None
    if average is not None:
        average.load_state_dict(checkpoint["callbacks"]["WeightAverage"])
        average.attach(model_of(task))


def _result(keeper: RunKeeper) -> FitResult:
    if keeper.best is None:
        raise ManyheadsError(f"{keeper.folder}: {keeper.monitor} never was a finite number; try a lower learning rate")
    state = safetensors.torch.load_file(keeper.folder / BEST)
    return FitResult(keeper.best, keeper.best_epoch, keeper.epochs, state, keeper.finished)
