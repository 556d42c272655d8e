"""A trained model with its items: what every verb that uses one works with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from apps.recommendation.batches import by_length, pad
from apps.recommendation.config import DataConfig
from apps.recommendation.histories import Histories
from apps.recommendation.model import SequenceRecommender
from apps.recommendation.readers import read_histories
from apps.recommendation.transitions import Transitions
from shared.errors import InputError
from shared.training.checkpoint import load_model, load_weights
from shared.training.device import pick_device

ENCODED = 1024  # histories that are encoded at a time


@dataclass(frozen=True)
class Recommender:
    """A model in evaluation, its card, and its items by number less one."""

    path: Path
    card: dict
    model: SequenceRecommender
    items: list[str]
    number: dict[str, int]  # from 1
    titles: dict[str, str]
    details: dict[str, str]
    popularity: np.ndarray

    @property
    def device(self) -> torch.device:
        return self.model.position.device

    @property
    def length(self) -> int:
        return self.model.length

    def title(self, number: int) -> str:
        """What a reader of a list wants to see: the title, or the id where there is none."""
        name = self.items[number - 1]
        return self.titles.get(name, name)

    @torch.inference_mode()
    def encode(self, rows: Sequence[np.ndarray]) -> Tensor:
        """The vector that scores the items, for each history of at least one item: (n, dim), in the order of `rows`."""
        out = torch.empty(len(rows), self.model.items.shape[1], device=self.device)
        for part in by_length(np.array([min(len(row), self.length) for row in rows]), ENCODED):
            inputs = pad([rows[i] for i in part], self.length).to(self.device)
            out[torch.from_numpy(part).to(self.device)] = self.model.last(inputs)
        return out

    @torch.inference_mode()
    def scores(self, rows: Sequence[np.ndarray]) -> Tensor:
        """The scores of all items for each history: (n, N)."""
        return self.encode(rows) @ self.model.items.T


@dataclass(frozen=True)
class Popularity:
    """POP: items by how often they stand in the training part, whatever the history."""

    counts: np.ndarray

    def scores(self, rows: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(self.counts.astype(np.float32)).repeat(len(rows), 1)


@dataclass(frozen=True)
class Markov:
    """Items by how often they came after the history's last item; those that never did, by popularity."""

    transitions: Transitions
    counts: np.ndarray

    def scores(self, rows: Sequence[np.ndarray]) -> Tensor:
        out = np.tile((self.counts / (self.counts.max(initial=0) + 1)).astype(np.float32), (len(rows), 1))
        for i, row in enumerate(rows):
            if len(row):
                to, count = self.transitions.row(int(row[-1]))
                out[i, to - 1] += count
        return torch.from_numpy(out)


def load(path: Path, device: str = "auto") -> Recommender:
    """A model of `train`. Raises InputError for what is none (see `load_model`), and for a card without its items."""
    if not path.exists():
        raise InputError(
            f"{path}: no such model; train one (manyheads recommendation train --out {path}) or name it by --checkpoint"
        )
    state, card = load_model(path, "recommendation")
    vocabulary = card.get("vocabulary") or {}
    items = vocabulary.get("items")
    try:
        model = SequenceRecommender(**card["architecture"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the card's architecture builds no model ({error}); use the card of train") from None
    if not isinstance(items, list) or len(items) != card["architecture"]["items"]:
        raise InputError(f"{path}: the card does not name the model's items; use the card of train")
    load_weights(model, {name: value.float() for name, value in state.items()}, path)
    return Recommender(
        path,
        card,
        model.eval().to(pick_device(device)),
        items,
        {name: number for number, name in enumerate(items, 1)},
        vocabulary.get("titles") or {},
        vocabulary.get("details") or {},
        np.array(vocabulary.get("popularity") or [0] * len(items)),
    )


def read_for(recommender: Recommender, data: Path | None) -> tuple[Histories, int]:
    """The histories of `data`, read as the model's own were and numbered as its items are, and how many events were
    left out because the model does not know their item. Raises InputError where none is left."""
    reading = DataConfig.model_validate(recommender.card.get("reading") or {})
    if reading.titles and not Path(reading.titles).exists():
        # The file of titles has stayed where the model was trained; the card has them.
        reading = reading.model_copy(update={"titles": None})
    return renumber(read_histories(data, reading), recommender)


def renumber(histories: Histories, recommender: Recommender) -> tuple[Histories, int]:
    """Histories with the model's numbers, without items that it does not know, and how many events that were."""
    if histories.items == recommender.items:
        return histories, 0
    new = np.array([recommender.number.get(name, 0) for name in histories.items])
    flat = new[histories.flat - 1]
    known = flat > 0
    if not known.any():
        raise InputError(f"{histories.name}: holds no item that the model knows; name the model's own events by --data")
    user = np.repeat(np.arange(len(histories)), histories.lengths)[known]
    start = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(histories)))])
    changed = Histories(
        histories.name,
        histories.users,
        recommender.items,
        flat[known],
        start,
        recommender.titles,
        recommender.details,
        histories.notes,
    )
    return changed, int((~known).sum())


def facts(path: Path) -> dict:
    """What a model is, for people: its card without the lists of items."""
    recommender = load(path, "cpu")
    card = {key: value for key, value in recommender.card.items() if key != "vocabulary"}
    parameters = sum(parameter.numel() for parameter in recommender.model.parameters())
    return {
        "model": str(path),
        "parameters": parameters,
        "titles": len(recommender.titles),
        "first_items": recommender.items[:5],
        **card,
    }
