"""The losses of BMN, written so that a batch without a positive, or without a negative, stays finite.

Each is a sum over a count of places. `shared` is given the counts and returns their mean over the processes that train
together, so that the mean of their losses is the loss of one process with the whole batch; alone it is left out.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

POSITIVE, HIGH, LOW = 0.9, 0.7, 0.3  # tIoU
REGRESSION = 10.0  # weight of the overlap's regression
NONE = 1e-6  # in place of a count of nothing: the sum over it is 0, and a mean count may be below 1

Shared = Callable[[Tensor], Tensor]


def alone(counts: Tensor) -> Tensor:
    return counts


def balanced_cross_entropy(
    logits: Tensor, targets: Tensor, positive: float, mask: Tensor, shared: Shared = alone
) -> Tensor:
    """Half the mean cross-entropy of the places whose target is above `positive`, half that of the others.

    Shape: all alike; mask True where a place counts. A side without places adds 0.
    Reference: Lin et al. 2019, arXiv 1907.09702, section 3.5 (weighted binary logistic regression).
    """
    is_positive = ((targets > positive) & mask).to(logits.dtype)
    is_negative = ((targets <= positive) & mask).to(logits.dtype)
    sums = torch.stack([(F.softplus(-logits) * is_positive).sum(), (F.softplus(logits) * is_negative).sum()])
    counts = shared(torch.stack([is_positive.sum(), is_negative.sum()]))
    return 0.5 * (sums / counts.clamp(min=NONE)).sum()


def balanced_regression(predicted: Tensor, targets: Tensor, mask: Tensor, shared: Shared = alone) -> Tensor:
    """Half the mean squared error, where proposals of high, middle and low overlap count alike.

    Deviation: the paper draws as many of the middle and the low ones as there are high ones; ours all count, with the
    weight that they would be drawn with, so that nothing is left to chance.
    """
    high = (targets > HIGH) & mask
    middle = (targets <= HIGH) & (targets > LOW) & mask
    low = (targets <= LOW) & (targets > 0) & mask
    counts = shared(torch.stack([high.sum(), middle.sum(), low.sum()]).to(predicted.dtype))
    share = (counts[0] / counts.clamp(min=NONE)).clamp(max=1)  # of each kind that counts
    weights = high * share[0] + middle * share[1] + low * share[2]
    return 0.5 * ((predicted - targets).square() * weights).sum() / (counts * share).sum().clamp(min=NONE)


def detection_loss(
    out: dict[str, Tensor], batch: dict[str, Tensor], class_weight: float, shared: Shared = alone
) -> dict[str, Tensor]:
    """boundaries + 10 regression + classification + class_weight snippet classes; each, and their sum as `loss`.

    Shape: out as `BoundaryMatchingNetwork`; batch has keep (B, T), start, end (B, T), overlap, valid (B, D, T) and
    classes (B, T, K + 1). A network without proposals has the last part alone.
    """
    # Counts of thousands of places, and sums over them, are coarse in halves.
    out = {name: value.to(batch["classes"].dtype) for name, value in out.items()}
    keep = batch["keep"]
    wrong = -(out["classes"].log_softmax(-1) * batch["classes"]).sum(-1)
    count = shared(keep.sum().to(wrong.dtype))
    parts = {"classes": class_weight * (wrong * keep).sum() / count.clamp(min=NONE)}
    if "start" in out:
        parts["boundaries"] = sum(
            (balanced_cross_entropy(out[name], batch[name], 0.5, keep, shared) for name in ("start", "end")),
            torch.zeros((), device=keep.device),
        )
        target, valid = batch["overlap"], batch["valid"]
        parts["regression"] = REGRESSION * balanced_regression(out["regression"].sigmoid(), target, valid, shared)
        parts["classification"] = balanced_cross_entropy(out["classification"], target, POSITIVE, valid, shared)
    return {**parts, "loss": torch.stack(list(parts.values())).sum()}
