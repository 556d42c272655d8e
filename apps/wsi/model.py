"""The models: from the instances of bags to class scores, with the attention that led there."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention.branch import BranchAttention, branch_overlap
from shared.attention.functional import attend, merge_heads, plain_attention, split_heads

FUSED = 1024  # longer bags take the fused kernel, which cannot be stacked over folds, and which short ones do not need


class Scores(NamedTuple):
    """What a model says of B bags: logits of the bag (B, classes) and of its branches (B, M, classes), and the weights
    of the instances in each branch (B, M, N), which sum to 1."""

    bag: Tensor
    branches: Tensor
    weights: Tensor


class Embedding(nn.Module):
    """Instances to their inner width: relu(R ((x - centre) / scale) + b).

    Shape: (B, N, features) -> (B, N, width). Centre and scale are set from the training instances, else 0 and 1.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, features: int, width: int, *, bias: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.reduce = nn.Linear(features, width, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.reduce.weight / self.scale, self.reduce.bias
        if torch.is_autocast_enabled(x.device.type):  # in half precision the two halves of a fold would not cancel out
            x = x - self.centre
        else:  # folded into the bias: the bag, which may be large, is not copied
            centre = weight @ self.centre
            bias = -centre if bias is None else bias - centre
        return self.dropout(F.relu_(F.linear(x, weight, bias)))


class ACMIL(nn.Module):
    """Attention-challenging MIL, gated: branches that attend by themselves, each with a classifier, one for the bag.

    h_n = relu(R x_n),  z_m = sum_n a_mn h_n (see `BranchAttention`),  branch: W_m z_m + b_m,  bag: W mean_m z_m + b

    Shape:
        x (B, N, features), `keep` (B, N) False for padding -> `Scores`.
    Reference:
        Zhang et al. 2024, Attention-Challenging Multiple Instance Learning, arXiv 2311.07125, section 3; one branch
        without masking: Ilse et al. 2018, Attention-based deep MIL, arXiv 1802.04712.
    Deviations:
        Features can be standardised (`Embedding`). `bias` of the first layer is CLAM's; ACMIL has none. A single branch
        has no classifier of its own, as in the authors' code.
    Complexity:
        O(N features width); memory does not grow with N beyond the weights (see `BranchAttention`).
    """

    def __init__(
        self,
        features: int,
        classes: int,
        width: int = 512,
        hidden: int = 128,
        *,
        branches: int = 5,
        gated: bool = True,
        top: int = 10,
        masked: float = 0.6,
        fraction: float = 1.0,
        bernoulli: bool = False,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = Embedding(features, width, bias=bias, dropout=dropout)
        self.attention = BranchAttention(
            width, branches, hidden, gated=gated, top=top, masked=masked, fraction=fraction, bernoulli=bernoulli
        )
        self.bag = nn.Linear(width, classes)
        self.heads = BranchHeads(width, classes, branches) if branches > 1 else None

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Scores:
        pooled, weights = self.attention.pool(x, keep, embed=self.embedding)
        bag = self.bag(pooled.mean(1))
        return Scores(bag, bag[:, None] if self.heads is None else self.heads(pooled), weights)


class BranchHeads(nn.Module):
    """A linear classifier for each branch: W_m z_m + b_m.

    Shape: (B, M, width) -> (B, M, classes).
    """

    def __init__(self, width: int, classes: int, branches: int) -> None:
        super().__init__()
        reach = width**-0.5
        self.weight = nn.Parameter(torch.empty(branches, classes, width).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.empty(branches, classes).uniform_(-reach, reach))

    def forward(self, z: Tensor) -> Tensor:
        return torch.einsum("bmw,mkw->bmk", z, self.weight) + self.bias


class PoolMIL(nn.Module):
    """Mean or maximum of the embedded instances, then a linear classifier: the baselines without attention.

    Shape: as `ACMIL`, with one branch; the weights are 1 / N, or the share of channels whose maximum an instance holds.
    """

    def __init__(self, features: int, classes: int, width: int, *, pooling: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = Embedding(features, width, dropout=dropout)
        self.bag = nn.Linear(width, classes)
        self.pooling = pooling

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Scores:
        h = self.embedding(x)
        keep = torch.ones_like(h[..., 0], dtype=torch.bool) if keep is None else keep
        if self.pooling == "mean":
            weights = keep / keep.sum(-1, keepdim=True).clamp_min(1)
            pooled = (weights[..., None] * h).sum(1)
        else:
            h = h.masked_fill(~keep[..., None], torch.finfo(h.dtype).min)
            pooled = h.amax(1)
            holds = (h == pooled[:, None]) & keep[..., None]
            weights = (holds / holds.sum(1, keepdim=True).clamp_min(1)).mean(-1)
        bag = self.bag(pooled)
        return Scores(bag, bag[:, None], weights[:, None])


class TransMIL(nn.Module):
    """A class token that reads the bag through layers of self-attention.

    Shape: as `ACMIL`, with one branch; the weights are those of the class token in the last layer, mean over heads.
    Reference: Shao et al. 2021, TransMIL, arXiv 2106.00908, section 3.
    Deviations: exact attention instead of Nystrom's; no convolutional position encoding, since bags need no grid.
    Complexity: O(N^2 width) time a layer.
    """

    def __init__(
        self, features: int, classes: int, width: int, *, heads: int = 4, layers: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding = Embedding(features, width, bias=True, dropout=dropout)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers + 1))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width, bias=False) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.bag = nn.Linear(width, classes)
        self.heads = heads

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Scores:
        h = self.embedding(x)
        h = torch.cat([self.token.expand(len(h), 1, -1), h], 1)
        mask = None if keep is None else F.pad(keep, (1, 0), value=True)[:, None, None, :]
        weights = h[:, :1, 1:].mean(-1)
        for norm, qkv, out in zip(self.norms, self.qkv, self.out, strict=False):
            q, k, v = (split_heads(part, self.heads) for part in qkv(norm(h)).chunk(3, -1))
            logits = (q[:, :, :1] @ k[:, :, 1:].mT).squeeze(2) / q.shape[-1] ** 0.5  # of the class token
            if keep is not None:
                logits = logits.masked_fill(~keep[:, None], torch.finfo(logits.dtype).min)
            weights = logits.softmax(-1).mean(1, keepdim=True)
            long = h.shape[1] > FUSED
            attended = attend(q, k, v, mask=mask) if long else plain_attention(q, k, v, mask=mask)[0]
            h = h + out(merge_heads(attended))
        bag = self.bag(self.norms[-1](h[:, 0]))
        return Scores(bag, bag[:, None], weights)


def build_model(architecture: dict[str, Any]) -> nn.Module:
    """The module of a model's card: `kind` and flat arguments."""
    arguments = dict(architecture)
    kind = arguments.pop("kind")
    if kind == "transmil":
        return TransMIL(**arguments)
    return ACMIL(**arguments) if kind == "acmil" else PoolMIL(**arguments, pooling=kind)


def architecture(config: Any, features: int, classes: int) -> dict[str, Any]:
    """What `build_model` needs, of a `ModelConfig` (or anything with its fields)."""
    wanted = {
        "acmil": ("width", "hidden", "branches", "gated", "top", "masked", "fraction", "bernoulli", "dropout"),
        "mean": ("width", "dropout"),
        "max": ("width", "dropout"),
        "transmil": ("width", "heads", "layers", "dropout"),
    }[config.kind]
    return {
        "kind": config.kind,
        "features": features,
        "classes": classes,
        **{name: getattr(config, name) for name in wanted},
    }


def bag_loss(scores: Scores, labels: Tensor) -> Tensor:
    """The loss of each bag: cross-entropy of the bag, mean cross-entropy of its branches, and their overlap.

    L = CE(bag) + mean_m CE(branch m) + mean_{m<k} cos(a_m, a_k); of one branch only CE(bag)

    Shape: labels (B,) -> (B,). Reference: Zhang et al. 2024, arXiv 2311.07125, equation 6 (all three unweighted).
    """
    loss = F.cross_entropy(scores.bag, labels, reduction="none")
    branches = scores.branches.shape[1]
    if branches == 1:
        return loss
    each = F.cross_entropy(scores.branches.flatten(0, 1), labels.repeat_interleave(branches), reduction="none")
    return loss + each.view(-1, branches).mean(1) + branch_overlap(scores.weights)
