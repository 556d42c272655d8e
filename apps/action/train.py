"""`train`: from a corpus to a run folder with a model that the other verbs use."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from apps.action.config import ActionConfig
from apps.action.corpora import load_corpus, summary
from apps.action.data import ActionData, Windows, check_corpus
from apps.action.recordings import Corpus, Recording
from apps.action.task import ActionTask, architecture
from apps.action.windows import Scaling, fit_scaling, scaled
from shared.command import is_main_process
from shared.errors import InputError
from shared.io.files import read_json, write_json
from shared.report.learning_curve import learning_curve
from shared.training.checkpoint import save_model
from shared.training.run_folder import refuse_to_overwrite, start_run
from shared.training.seeds import seed_everything
from shared.training.trainer import FitResult, Hardware, fit

DATA = "data.json"  # in a run folder: what it is trained on, and what was left out of it


def train(config: ActionConfig, data: Path | None, out: Path, *, seed: int, resume: bool, hardware: Hardware) -> dict:
    """Train on `data` (None: the composed watch streams) into the run folder `out`; returns what came of it.

    Raises InputError for data or settings that cannot be trained on, and when `out` holds another run; nothing is
    written then.
    """
    hardware.check()
    if not resume:
        refuse_to_overwrite(out)
    corpus = load_corpus(data, config.data)
    parts = corpus.split(config.data.fold)
    check_corpus(corpus, parts, config.train.select)
    untimed = config.model_copy(update={"train": config.train.model_copy(update={"minutes": None})})
    if resume:
        _same_data(out, corpus)
    start_run(out, untimed, resume)
    if is_main_process():
        write_json(out / DATA, {**summary(corpus), "skipped": corpus.skipped})
    train_on, valid = (parts["train"], parts["valid"])
    if config.train.select == "last":
        train_on, valid = [*train_on, *valid], []
    result, card = fit_model(config, corpus, train_on, valid, out, seed=seed, hardware=hardware, resume=resume)
    weights = save_model(out, result.best_state, card)
    return {
        "model": str(weights),
        "figure": str(learning_curve(out, ("loss", {"train/loss": "training", "valid/loss": "validation"}))),
        "finished": result.finished,
        **card["metrics"],
        "data": summary(corpus),
        "split": {name: len(part) for name, part in parts.items()},
        "labels": list(corpus.labels),
        "skipped": corpus.skipped,
    }


def fit_model(
    config: ActionConfig,
    corpus: Corpus,
    train_on: Sequence[Recording],
    valid: Sequence[Recording],
    out: Path,
    *,
    seed: int,
    hardware: Hardware,
    resume: bool,
) -> tuple[FitResult, dict]:
    """Train on recordings; the result and the card of the model. Without `valid` the last epoch is kept."""
    scaling = fit_scaling([recording.features for recording in train_on])
    with_scores = train_on[0].semantics is not None
    semantics = fit_scaling([r.semantics for r in train_on if r.semantics is not None]) if with_scores else None
    ready, held = (scaled(part, scaling, semantics) for part in (train_on, valid))
    longest = config.model.longest
    module = ActionData(
        ready,
        held,
        corpus.labels,
        config.data,
        longest,
        batch=config.train.batch,
        seed=seed,
        processes=hardware.processes,
    )
    arguments = architecture(
        config,
        channels=ready[0].features.shape[1],
        semantics_channels=0 if semantics is None else len(semantics.mean),
        classes=len(corpus.labels),
    )
    steps = -(-len(Windows(ready, config.data, longest, corpus.labels)) // config.train.batch) * config.train.epochs
    seed_everything(seed)  # before the model is made, since its first weights are drawn
    task = ActionTask(arguments, config.train, steps)
    best = bool(valid)
    result = fit(
        task,
        module,
        out,
        seed=seed,
        max_epochs=config.train.epochs,
        monitor="valid/loss" if best else "train/epoch",
        mode="min" if best else "max",
        patience=config.train.patience if best else None,
        gradient_clip=config.train.gradient_clip,
        ema_decay=config.train.ema or None,
        hardware=hardware,
        resume=resume,
        max_minutes=config.train.minutes,
    )
    metrics = {"best_epoch": result.best_epoch, "epochs": result.epochs}
    return result, {
        "app": "action",
        "architecture": arguments,
        "labels": list(corpus.labels),
        "scored": list(corpus.scored),
        "source": asdict(corpus.source),
        "window": config.data.window,
        "whole": config.data.whole,
        "scaling": _scaling(scaling),
        "semantics_scaling": None if semantics is None else _scaling(semantics),
        "detect": config.detect.model_dump(),
        "data": summary(corpus),
        "fold": config.data.fold if corpus.folds else None,
        "seed": seed,
        "metrics": {"valid_loss": result.best, **metrics} if best else metrics,
    }


def _scaling(scaling: Scaling) -> dict:
    return {"mean": scaling.mean.tolist(), "spread": scaling.spread.tolist()}


def _same_data(run: Path, corpus: Corpus) -> None:
    path = run / DATA
    if path.exists() and (before := read_json(path))["sha256"] != corpus.sha256:
        raise InputError(f"{path}: the run began with other data ({before['name']}); resume it with the same --data")
