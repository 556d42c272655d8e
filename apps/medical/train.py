"""`train`: from a folder of scans to a run folder with a model that the other verbs use."""

from pathlib import Path
from typing import Any

from apps.medical.cases import find_cases
from apps.medical.config import MedicalConfig
from apps.medical.data import Dataset, SegmentationData, input_channels, read_dataset
from apps.medical.networks import architecture
from apps.medical.task import SegmentationTask
from shared.report.learning_curve import learning_curve
from shared.training.checkpoint import save_model
from shared.training.run_folder import refuse_to_overwrite, start_run
from shared.training.seeds import seed_everything
from shared.training.trainer import Hardware, fit


def train(
    config: MedicalConfig, data: Path | None, out: Path, *, seed: int, resume: bool, hardware: Hardware
) -> dict[str, Any]:
    """Train on `data` (None: the embedded CT) into the run folder `out`; returns what came of it.

    Raises InputError for data or settings that cannot be trained on, and when `out` holds another run; nothing is
    written then.
    """
    if not resume:
        refuse_to_overwrite(out)  # rather now than after all files have been read
    if config.model.kind == "medusa":
        from apps.medical.classes import train_classifier

        return train_classifier(config, data, out, seed=seed, resume=resume, hardware=hardware)
    return train_on(config, load(config, data), out, seed=seed, resume=resume, hardware=hardware)


def load(config: MedicalConfig, data: Path | None) -> Dataset:
    """All cases of `data`, read and split. Raises InputError as `find_cases` and `read_dataset`."""
    cases, names = find_cases(data, config.data)
    return read_dataset(cases, names, config.data, data.name if data is not None else "the embedded CT")


def train_on(
    config: MedicalConfig, dataset: Dataset, out: Path, *, seed: int, resume: bool, hardware: Hardware
) -> dict[str, Any]:
    """`train` with data that has been read."""
    hardware.check()
    module = SegmentationData(
        dataset,
        config.data,
        batch=config.train.batch,
        steps=config.train.steps,
        seed=seed,
        processes=hardware.processes,
    )
    channels, classes = input_channels(dataset.channels, config.data), len(dataset.labels) + 1
    seed_everything(seed)
    task = SegmentationTask(config, channels, classes)
    result = run(task, module, config, dataset, out, "valid/dice", seed=seed, resume=resume, hardware=hardware)
    metrics = {"valid_dice": result.best, "best_epoch": result.best_epoch, "epochs": result.epochs}
    card = {
        "app": "medical",
        "architecture": architecture(config.model, channels, classes),
        "labels": list(dataset.labels),
        "preprocessing": config.data.model_dump(mode="json"),
        "data": dataset.summary(),
        "split": names_of(dataset),
        "seed": seed,
        "metrics": metrics,
    }
    weights = save_model(out, result.best_state, card)
    figure = learning_curve(
        out,
        ("loss", {"train/loss": "training, all terms"}),
        ("Dice", {"valid/dice": "validation slices"}),
    )
    return {"model": str(weights), "figure": str(figure), "finished": result.finished, **metrics, "data": card["data"]}


def run(task, module, config: MedicalConfig, dataset: Dataset, out: Path, monitor: str, *, seed, resume, hardware):
    """The run folder and `fit`, the same for segmentation and classification."""
    start_run(out, config, resume, {**dataset.summary(), "cases": names_of(dataset)})
    return fit(
        task,
        module,
        out,
        seed=seed,
        max_epochs=config.train.epochs,
        monitor=monitor,
        mode="max",
        patience=config.train.patience,
        gradient_clip=config.train.gradient_clip,
        ema_decay=config.train.ema or None,
        hardware=hardware,
        resume=resume,
        max_minutes=config.train.minutes,
    )


def names_of(dataset: Dataset) -> dict[str, list[str]]:
    return {split: [one.case.name for one in cases] for split, cases in dataset.splits.items()}
