"""The losses of BMN, written so that a batch without a positive, or without a negative, stays finite."""

import torch
import torch.nn.functional as F
from torch import Tensor

POSITIVE, HIGH, LOW = 0.9, 0.7, 0.3  # tIoU
REGRESSION = 10.0  # weight of the overlap's regression


def balanced_cross_entropy(logits: Tensor, targets: Tensor, positive: float, mask: Tensor) -> Tensor:
    """Half the mean cross-entropy of the places whose target is above `positive`, half that of the others.

    Shape: all alike; mask True where a place counts. A side without places adds 0.
    Reference: Lin et al. 2019, arXiv 1907.09702, section 3.5 (weighted binary logistic regression).
    """
    is_positive = ((targets > positive) & mask).to(logits.dtype)
    is_negative = ((targets <= positive) & mask).to(logits.dtype)
    up = (F.softplus(-logits) * is_positive).sum() / is_positive.sum().clamp(min=1)
    down = (F.softplus(logits) * is_negative).sum() / is_negative.sum().clamp(min=1)
    return 0.5 * (up + down)


def balanced_regression(predicted: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Half the mean squared error, where proposals of high, middle and low overlap count alike.

    Deviation: the paper draws as many of the middle and the low ones as there are high ones; ours all count, with the
    weight that they would be drawn with, so that nothing is left to chance.
    """
    high = (targets > HIGH) & mask
    middle = (targets <= HIGH) & (targets > LOW) & mask
    low = (targets <= LOW) & (targets > 0) & mask
    wanted = high.sum().to(predicted.dtype)
    weights = high.to(predicted.dtype)
    for part in (middle, low):
        weights = weights + part * (wanted / part.sum().clamp(min=1)).clamp(max=1)
    return 0.5 * ((predicted - targets).square() * weights).sum() / weights.sum().clamp(min=1)


def detection_loss(out: dict[str, Tensor], batch: dict[str, Tensor], class_weight: float) -> dict[str, Tensor]:
    """boundaries + 10 regression + classification + class_weight snippet classes; each, and their sum as `loss`.

    Shape: out as `BoundaryMatchingNetwork`; batch has keep (B, T), start, end (B, T), overlap, valid (B, D, T) and
    classes (B, T, K + 1). A network without proposals has the last part alone.
    """
    keep = batch["keep"]
    wrong = -(out["classes"].log_softmax(-1) * batch["classes"]).sum(-1)
    parts = {"classes": class_weight * (wrong * keep).sum() / keep.sum().clamp(min=1)}
    if "start" in out:
        parts["boundaries"] = sum(
            (balanced_cross_entropy(out[name], batch[name], 0.5, keep) for name in ("start", "end")),
            torch.zeros((), device=keep.device),
        )
        target, valid = batch["overlap"], batch["valid"]
        parts["regression"] = REGRESSION * balanced_regression(out["regression"].sigmoid(), target, valid)
        parts["classification"] = balanced_cross_entropy(out["classification"], target, POSITIVE, valid)
    return {**parts, "loss": torch.stack(list(parts.values())).sum()}
