"""Which item followed which, from training data alone, and the teacher that is made of it.

Notation: M rows (input positions), N items, nnz transitions that occur, d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apps.recommendation.losses import weighted_logsumexp


@dataclass(frozen=True)
class Transitions:
    """How often item `to` came after item `of`: a sparse matrix by rows. Items count from 1, as in sequences.

    Row i is `to[start[i - 1] : start[i]]`, in ascending order, with its `count`.
    """

    start: np.ndarray  # (N + 1,)
    to: np.ndarray  # (nnz,) from 1
    count: np.ndarray  # (nnz,)

    @property
    def items(self) -> int:
        return len(self.start) - 1

    def row(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """The items that came after `item` and how often."""
        part = slice(self.start[item - 1], self.start[item])
        return self.to[part], self.count[part]

    def counts(self, of: np.ndarray, to: np.ndarray) -> np.ndarray:
        """How often each `to` came after its `of`: (M,), 0 where it never did."""
        keys = np.repeat(np.arange(self.items), np.diff(self.start)) * (self.items + 1) + self.to
        wanted = (np.asarray(of, np.int64) - 1) * (self.items + 1) + np.asarray(to, np.int64)
        if not len(keys):
            return np.zeros(len(wanted), np.int64)
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        return np.where(keys[at] == wanted, self.count[at], 0)


def count_transitions(sequences: Sequence[np.ndarray], items: int, span: int = 1) -> Transitions:
    """Count directed transitions between items at most `span` steps apart, in every sequence.

    Shape: sequences of items from 1 to `items`.
    Reference: Zhu et al. 2024, arXiv 2311.01056, section 3.3.
    """
    keys = [np.zeros(0, np.int64)]
    for step in range(1, span + 1):
        long = [np.asarray(row, np.int64) for row in sequences if len(row) > step]
        if long:
            keys.append(np.concatenate([(row[:-step] - 1) * (items + 1) + row[step:] for row in long]))
    unique, count = np.unique(np.concatenate(keys), return_counts=True)
    of, to = np.divmod(unique, items + 1)
    start = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=items))])
    return Transitions(start, to, count)


class Teacher(torch.nn.Module):
    """What the transitions say of the next item, as a distribution that is never written out.

    teacher_i = softmax(W_i / tau) over all N items, W_i the row of counts divided by its maximum. With
    w = exp(W / tau) - 1, which is 0 where there is no transition, and Z_i = N + sum_j w_ij:
    cross-entropy(teacher_i, softmax(s_i)) = logsumexp(s_i) - (sum_j s_ij + sum_j w_ij s_ij) / Z_i.

    Shape:
        `forward(rows, embedding, queries)`: rows (M,) items from 1, embedding (N, d), queries (M, d) with scores
        s = queries E^T (tau is in the queries) -> scalar, the mean over rows.
    Reference:
        Zhu et al. 2024, arXiv 2311.01056, section 3.3 (transition-aware embedding distillation).
    Deviations:
        None in the value: the closed form is exact. The paper's code builds the (N, N) matrix.
    Complexity:
        O(M N d) time for the logsumexp, O(M d + nnz of the rows) for the rest; memory O(nnz), never O(N^2).
    """

    start: Tensor
    successor: Tensor
    weight: Tensor
    mass: Tensor

    def __init__(self, transitions: Transitions, tau: float) -> None:
        super().__init__()
        rows = np.repeat(np.arange(transitions.items), np.diff(transitions.start))
        highest = np.zeros(transitions.items)
        np.maximum.at(highest, rows, transitions.count)
        weight = np.expm1(transitions.count / highest[rows] / tau)
        mass = transitions.items + np.bincount(rows, weight, minlength=transitions.items)
        # Not persistent: it is made of the training data, and is no part of a model.
        self.register_buffer("start", torch.from_numpy(transitions.start.astype(np.int64)), persistent=False)
        self.register_buffer("successor", torch.from_numpy(transitions.to.astype(np.int64)), persistent=False)
        self.register_buffer("weight", torch.from_numpy((weight / mass[rows]).astype(np.float32)), persistent=False)
        self.register_buffer("mass", torch.from_numpy(mass.astype(np.float32)), persistent=False)

    def forward(self, rows: Tensor, embedding: Tensor, queries: Tensor) -> Tensor:
        first = self.start[rows - 1]
        length = self.start[rows] - first
        owner = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), length)
        within = torch.arange(len(owner), device=rows.device) - torch.repeat_interleave(
            length.cumsum(0) - length, length
        )
        at = first[owner] + within
        # sum_j w_ij E_j first, so that each row needs a single product with its query.
        context = embedding.sum(0) / self.mass[rows - 1, None].to(embedding.dtype)
        known = self.weight[at, None].to(embedding.dtype) * embedding[self.successor[at] - 1]
        context = context.index_add(0, owner, known)
        even = torch.full((len(rows),), 1 / len(rows), dtype=embedding.dtype, device=rows.device)
        return weighted_logsumexp(queries, embedding, even) - (queries * context).sum(-1).mean()
