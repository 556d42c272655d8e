"""MQSA-TED as a model of RecBole's."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apps.recommendation.losses import next_item_loss
from apps.recommendation.model import SequenceRecommender
from apps.recommendation.task import distillation
from apps.recommendation.transitions import Teacher, count_transitions

# Settings with the paper's values; any of them may stand in a RecBole config.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 64,
    "n_heads": 1,
    "hidden_dropout_prob": 0.5,
    "windows": [1, 3],
    "weights": [0.5, 0.5],
    "ted_weight": 0.1,
    "ted_temperature": 0.1,
}


def to_left(item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
    """RecBole's sequences, padded on the right, with the padding on the left: (B, L) -> (B, L)."""
    length = item_seq.shape[1]
    at = torch.arange(length, device=item_seq.device) - (length - item_seq_len[:, None])
    return item_seq.gather(1, at.clamp(min=0)) * (at >= 0)


@functools.cache
def mqsated() -> type:
    """The class `MQSATED`, made when RecBole is first needed: call it inside `session()`."""
    from recbole.model.abstract_recommender import SequentialRecommender
    from recbole.utils import InputType

    class MQSATED(SequentialRecommender):
        """Multi-query self-attention with transition-aware embedding distillation, for RecBole's pipeline.

        Reference:
            Zhu et al. 2024, arXiv 2311.01056.
        Deviations:
            RecBole makes every prefix of a history a sample of its own: a step distils at the last item of each, which
            over an epoch is once at every input position, as in our own training.
        """

        input_type = InputType.POINTWISE

        def __init__(self, config: Any, dataset: Any) -> None:
            super().__init__(config, dataset)
            wanted = {name: value if config[name] is None else config[name] for name, value in DEFAULTS.items()}
            self.ted_weight, self.temperature = wanted["ted_weight"], wanted["ted_temperature"]
            self.model = SequenceRecommender(
                self.n_items - 1,
                wanted["hidden_size"],
                wanted["n_heads"],
                self.max_seq_length,
                wanted["windows"],
                wanted["weights"],
                wanted["hidden_dropout_prob"],
            )
            samples = dataset.inter_feat  # of the training part
            last = samples[self.ITEM_SEQ].gather(1, samples[self.ITEM_SEQ_LEN][:, None] - 1)
            pairs = torch.cat([last, samples[self.ITEM_ID][:, None]], 1).numpy().astype(np.int64)
            self.teacher = Teacher(count_transitions(list(pairs), self.n_items - 1), self.temperature)

        def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
            return self.model.last(to_left(item_seq, item_seq_len))

        def calculate_loss(self, interaction: Any) -> Tensor:
            item_seq, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
            hidden = self.forward(item_seq, length)
            loss = next_item_loss(hidden, self.model.items, interaction[self.POS_ITEM_ID] - 1)
            if self.ted_weight:
                rows = item_seq.gather(1, length[:, None] - 1).squeeze(1)
                loss = loss + self.ted_weight * distillation(self.model, self.teacher, rows, self.temperature)
            return loss

        def predict(self, interaction: Any) -> Tensor:
            hidden = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
            return (hidden * self.model.embedding(interaction[self.ITEM_ID])).sum(-1)

        def full_sort_predict(self, interaction: Any) -> Tensor:
            hidden = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
            return hidden @ self.model.embedding.weight.T

    # Found by its name, as any class of a module is.
    MQSATED.__module__, MQSATED.__qualname__ = "apps.recommendation.engine", "MQSATED"
    return MQSATED
