"""`train`: from events to a run folder with a model that the other verbs use."""

from pathlib import Path

from apps.recommendation.config import RecommendationConfig
from apps.recommendation.data import RecommendationData
from apps.recommendation.histories import Histories
from apps.recommendation.readers import read_histories
from apps.recommendation.task import RecommendationTask, architecture
from apps.recommendation.transitions import count_transitions
from shared.report.learning_curve import learning_curve
from shared.training.checkpoint import save_model
from shared.training.run_folder import refuse_to_overwrite, start_run
from shared.training.seeds import seed_everything
from shared.training.trainer import Hardware, fit


def train(
    config: RecommendationConfig, data: Path | None, out: Path, *, seed: int, resume: bool, hardware: Hardware
) -> dict:
    """Train on `data` (None: MovieLens 100k) into the run folder `out`; returns what came of it.

    Raises InputError for data or settings that cannot be trained on, and when `out` holds another run; nothing is
    written then.
    """
    hardware.check()
    if not resume:
        refuse_to_overwrite(out)  # rather now than after all files have been read
    return train_on(read_histories(data, config.data), config, out, seed=seed, resume=resume, hardware=hardware)


def train_on(
    histories: Histories, config: RecommendationConfig, out: Path, *, seed: int, resume: bool, hardware: Hardware
) -> dict:
    """`train` on histories that have been read."""
    module = RecommendationData(
        histories,
        config.model.length,
        batch=config.train.batch,
        passes=config.train.passes,
        seed=seed,
        processes=hardware.processes,
    )
    seed_everything(seed)  # before the model is made, since its first weights are drawn
    items = len(histories.items)
    transitions = count_transitions(histories.training(), items, config.ted.span)
    steps = config.train.passes * -(-len(module.train_rows) // config.train.batch)
    task = RecommendationTask(config, items, transitions, steps)
    start_run(out, config, resume, histories.summary())
    result = fit(
        task,
        module,
        out,
        seed=seed,
        max_epochs=config.train.epochs,
        monitor="valid/ndcg@20",
        mode="max",
        patience=config.train.patience,
        hardware=hardware,
        resume=resume,
        max_minutes=config.train.minutes,
    )
    metrics = {"valid_ndcg@20": result.best, "best_epoch": result.best_epoch, "epochs": result.epochs}
    weights = save_model(
        out,
        result.best_state,
        {
            "app": "recommendation",
            "architecture": architecture(config, items),
            "vocabulary": vocabulary(histories),
            "reading": config.data.model_dump(mode="json"),
            "data": histories.summary(),
            "seed": seed,
            "metrics": metrics,
        },
    )
    curve = learning_curve(
        out,
        ("cross-entropy of the next item (nats)", {"train/loss": "training"}),
        ("full ranking", {f"valid/ndcg@{k}": f"validation NDCG@{k}" for k in (20, 10, 5)}),
    )
    return {
        "model": str(weights),
        "figure": str(curve),
        "finished": result.finished,
        **metrics,
        "data": histories.summary(),
    }


def vocabulary(histories: Histories) -> dict:
    """The items by their number less one, with what is known of them; what a model's card keeps."""
    return {
        "items": histories.items,
        "titles": histories.titles,
        "details": histories.details,
        "popularity": histories.popularity().tolist(),
    }
