"""`train`: from a corpus to a run folder with a model that the other verbs use."""

from pathlib import Path

from apps.music.config import MusicConfig
from apps.music.corpora import read_corpus, summary
from apps.music.data import MusicData
from apps.music.model import MusicTransformer
from apps.music.player import load
from apps.music.task import MusicTask, architecture
from shared.errors import InputError
from shared.report.learning_curve import learning_curve
from shared.training.callbacks import LAST
from shared.training.checkpoint import load_weights, save_model
from shared.training.run_folder import refuse_to_overwrite, start_run
from shared.training.seeds import seed_everything
from shared.training.trainer import Hardware, fit


def train(config: MusicConfig, data: Path | None, out: Path, *, seed: int, resume: bool, hardware: Hardware) -> dict:
    """Train on `data` (None: music21's chorales) into the run folder `out`; returns what came of it.

    Raises InputError for data or settings that cannot be trained on, and when `out` holds another run; nothing is
    written then.
    """
    hardware.check()
    if not resume:
        refuse_to_overwrite(out)  # rather now than after all files have been read
    corpus = read_corpus(data, config.data.codec, config.data.stretches)
    module = MusicData(
        corpus,
        config.data,
        batch=config.train.batch,
        steps=config.train.steps,
        seed=seed,
        processes=hardware.processes,
    )
    seed_everything(seed)  # before the model is made, since its first weights are drawn
    task = MusicTask(config)
    if config.train.start and not (resume and (out / LAST).exists()):
        start_from(task.model, Path(config.train.start), config.data.codec)
    skipped = [f"{name}: {reason}" for name, reason in corpus.skipped]
    start_run(out, config, resume, {**summary(corpus), "skipped": skipped})
    result = fit(
        task,
        module,
        out,
        seed=seed,
        max_epochs=config.train.epochs,
        monitor="valid/nll",
        patience=config.train.patience,
        gradient_clip=config.train.gradient_clip,
        ema_decay=config.train.ema or None,
        hardware=hardware,
        resume=resume,
        max_minutes=config.train.minutes,
    )
    metrics = {"valid_nll": result.best, "best_epoch": result.best_epoch, "epochs": result.epochs}
    weights = save_model(
        out,
        result.best_state,
        {
            "app": "music",
            "codec": config.data.codec,
            "architecture": architecture(config),
            "length": config.data.length,
            "data": summary(corpus),
            "seed": seed,
            "start": config.train.start and Path(config.train.start).name,
            "metrics": metrics,
        },
    )
    curve = learning_curve(
        out,
        (
            "NLL per token (nats)",
            {"train/nll": "training (with dropout and augmentation)", "valid/nll": "validation"},
        ),
    )
    return {
        "model": str(weights),
        "figure": str(curve),
        "finished": result.finished,
        **metrics,
        "data": summary(corpus),
        "skipped": skipped,
    }


def start_from(model: MusicTransformer, path: Path, codec: str) -> None:
    """Take the first weights from a trained model. Raises InputError when its codec or its sizes are others."""
    player = load(path, "cpu")
    if codec != player.codec.NAME:
        raise InputError(f"{path}: speaks the codec {player.codec.NAME}, not {codec}; set data.codec or train.start")
    load_weights(model, player.model.state_dict(), path)
