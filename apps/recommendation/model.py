"""The model: items in order in, a vector out that scores every item."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared.attention.dropout import ByteDropout
from shared.attention.multi_query import MultiLQuery


class SequenceRecommender(nn.Module):
    """Multi-query self-attention over a user's last items, against tied item embeddings. It knows no users.

    x = dropout(E[items] sqrt(d) + P) on real items, 0 on padding; h = sum_i weight_i branch_i(x); score_j = h . E_j.

    Shape:
        `forward(sequences)`: (B, L) items from 1, padded with 0 on the left, L <= length -> h (B, L, dim). Several
        short histories may share a row: `segments` (B, L) numbers them from 1, `positions` (B, L) says where each item
        stands in its own, `length - 1` being the last.
        `last(sequences)` -> (B, dim), h at the last position alone. `items` (N, dim): the embeddings, item 1 first.
    Reference:
        Zhu et al. 2024, MQSA-TED, arXiv 2311.01056, sections 3.1 to 3.4. With windows (1,): SASRec of one block (Kang
        and McAuley 2018, arXiv 1808.09781).
    Deviations:
        A batch may be shorter than `length`; its last item then still stands at the last position (exact, since
        padding counts for nothing).
    Complexity:
        O(L^2 d) time a branch; the scores of all items O(N d).
    """

    def __init__(
        self,
        items: int,
        dim: int = 64,
        heads: int = 1,
        length: int = 50,
        windows: Sequence[int] = (1, 3),
        weights: Sequence[float] = (0.5, 0.5),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(items + 1, dim, padding_idx=0)
        self.position = nn.Parameter(torch.empty(length, dim))
        self.dropout = ByteDropout(dropout)
        self.branches = MultiLQuery(dim, heads, windows, weights, dropout)
        nn.init.normal_(self.embedding.weight, 0, 0.01)
        nn.init.normal_(self.position, 0, 0.01)
        with torch.no_grad():
            self.embedding.weight[0] = 0

    @property
    def items(self) -> Tensor:
        return self.embedding.weight[1:]

    def scaled(self, items: Tensor) -> Tensor:
        """E[items] sqrt(d): an item as the model reads it."""
        return self.embedding(items) * math.sqrt(self.embedding.embedding_dim)

    def inputs(self, sequences: Tensor, positions: Tensor | None = None) -> Tensor:
        place = self.position[-sequences.shape[1] :] if positions is None else self.position[positions]
        return self.dropout(self.scaled(sequences) + place) * (sequences > 0)[..., None]

    def forward(self, sequences: Tensor, segments: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        return self.branches(self.inputs(sequences, positions), sequences > 0 if segments is None else segments)

    def last(self, sequences: Tensor) -> Tensor:
        return self.branches(self.inputs(sequences), sequences > 0, last=True)[:, 0]
