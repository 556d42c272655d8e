"""Train a model in RecBole's pipeline on our histories, and rank with it as with our own."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apps.recommendation.config import RecommendationConfig
from apps.recommendation.engine.compatibility import session
from apps.recommendation.histories import Histories

NAMES = ("SASRec", "GRU4Rec", "MQSATED")
DATASET = "histories"


@dataclass(frozen=True)
class RecBoleScorer:
    """A model trained in RecBole, scoring our histories in our numbers."""

    model: Any
    column: Tensor  # (N,) RecBole's number of each of our items
    length: int
    facts: dict[str, float]

    @torch.inference_mode()
    def scores(self, rows: Sequence[np.ndarray]) -> Tensor:
        from recbole.data.interaction import Interaction

        sequences = torch.zeros(len(rows), self.length, dtype=torch.int64)
        lengths = torch.zeros(len(rows), dtype=torch.int64)
        for i, row in enumerate(rows):
            tail = row[-self.length :]
            sequences[i, : len(tail)] = self.column[torch.from_numpy(tail) - 1]
            lengths[i] = len(tail)
        device = self.model.device
        batch = Interaction({self.model.ITEM_SEQ: sequences, self.model.ITEM_SEQ_LEN: lengths}).to(device)
        return self.model.full_sort_predict(batch)[:, self.column.to(device)]


def write_atomic(histories: Histories, folder: Path) -> None:
    """Our histories as RecBole's `.inter` file. The time is the place in the history, so that its float32 keeps it."""
    path = folder / DATASET / f"{DATASET}.inter"
    path.parent.mkdir(parents=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user in range(len(histories)):
            file.writelines(f"{user}\t{item}\t{at}\n" for at, item in enumerate(histories.history(user)))


def settings_for(config: RecommendationConfig, folder: Path, *, seed: int, epochs: int) -> dict[str, Any]:
    """RecBole's configuration for its leave-one-out split in our order, full softmax, full ranking."""
    return {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "group_by": "user",
            "mode": {"valid": "full", "test": "full"},
        },
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "MAX_ITEM_LIST_LENGTH": config.model.length,
        "hidden_size": config.model.dim,
        "epochs": epochs,
        "train_batch_size": 2048,
        "eval_batch_size": 256,
        "learning_rate": 1e-3,
        "stopping_step": 5,
        "metrics": ["Hit", "NDCG"],
        "topk": [20],
        "valid_metric": "NDCG@20",
        "seed": seed,
        "reproducibility": True,
        "use_gpu": False,
        "gpu_id": "",
        "show_progress": False,
        "state": "ERROR",
        "checkpoint_dir": str(folder / "saved"),
    }


def settings_of_ours(config: RecommendationConfig) -> dict[str, Any]:
    """What `MQSATED` reads beside that: the configuration, but for the distillation's span, which is 1 in RecBole."""
    model, ted = config.model, config.ted
    return {
        "n_heads": model.heads,
        "hidden_dropout_prob": model.dropout,
        "windows": list(model.windows),
        "weights": list(model.weights),
        "ted_weight": ted.weight,
        "ted_temperature": ted.temperature,
        "weight_decay": config.train.weight_decay,
    }


@contextlib.contextmanager
def prepare_in_recbole(
    name: str, histories: Histories, config: RecommendationConfig, seed: int, epochs: int, **further: Any
) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Inside the block, in RecBole's own data and classes: (trainer, model, training data, validation data)."""
    with session() as folder:
        write_atomic(histories, folder)
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, get_trainer, init_seed

        from apps.recommendation.engine.model import mqsated

        wanted = settings_for(config, folder, seed=seed, epochs=epochs)
        wanted |= (settings_of_ours(config) if name == "MQSATED" else {}) | further
        settings = Config(model=mqsated() if name == "MQSATED" else name, dataset=DATASET, config_dict=wanted)
        init_seed(settings["seed"], settings["reproducibility"])
        train_data, valid_data, _ = data_preparation(settings, create_dataset(settings))
        make = mqsated() if name == "MQSATED" else get_model(name)
        model = make(settings, train_data.dataset).to(settings["device"])
        trainer = get_trainer(settings["MODEL_TYPE"], settings["model"])(settings, model)
        try:
            yield trainer, model, train_data, valid_data
        finally:
            trainer.tensorboard.close()


def train_in_recbole(
    name: str, histories: Histories, config: RecommendationConfig, *, seed: int, epochs: int, **further: Any
) -> RecBoleScorer:
    """Train one of `NAMES` with RecBole's own data, trainer and early stopping (validation NDCG@20), on the CPU.

    Every prefix of a history is a sample there. The best weights are kept in memory. `further` are settings of
    RecBole's that take the place of ours.
    """
    prepared = prepare_in_recbole(name, histories, config, seed, epochs, **further)
    with prepared as (trainer, model, train_data, valid_data):
        best: dict[str, Any] = {"score": -np.inf, "state": None, "epochs": 0}

        def keep(epoch: int, score: float) -> None:
            best["epochs"] = epoch + 1
            if score > best["score"]:
                best.update(score=score, state={key: value.clone() for key, value in model.state_dict().items()})

        began = time.perf_counter()
        trainer.fit(train_data, valid_data, verbose=False, saved=False, callback_fn=keep)
        seconds = time.perf_counter() - began
        if best["state"] is not None:
            model.load_state_dict(best["state"])
        names = [str(number) for number in range(1, len(histories.items) + 1)]
        numbers = train_data.dataset.token2id("item_id", names)
        facts = {
            "valid_ndcg@20": float(best["score"]),
            "epochs": best["epochs"],
            "seconds": seconds,
            "samples": len(train_data.dataset),
        }
        return RecBoleScorer(model.eval(), torch.from_numpy(np.asarray(numbers, np.int64)), config.model.length, facts)
