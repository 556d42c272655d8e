"""Losses over the whole catalogue that never keep the logits.

Notation: M rows (positions), N items, d width. Scores are s_mj = h_m . E_j.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2_000_000  # logits that are held at a time


class _Partition(torch.autograd.Function):
    """sum_m weight_m log(sum_j exp(h_m . E_j + shift) [j != skip_m] + exp(extra_m)); gradients come with the value.

    Each row's upstream gradient is its weight times one number, so that the gradients can be made while a chunk's
    logits are at hand: three products in all, where recomputation in the backward pass would take four.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        h: Tensor,
        items: Tensor,
        weight: Tensor,
        extra: Tensor | None,
        skip: Tensor | None,
        shift: float,
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        grad_h = torch.empty_like(h) if wanted else None
        grad_items = torch.zeros_like(items) if wanted else None
        grad_extra = torch.empty_like(extra) if wanted and extra is not None else None
        total = h.new_zeros(())
        rows = max(16, CHUNK // len(items))
        held = torch.empty(
            min(rows, len(h)), len(items), dtype=items.dtype, device=items.device
        )  # fresh memory is slow
        for start in range(0, len(h), rows):
            part = slice(start, min(start + rows, len(h)))
            logits = torch.mm(h[part], items.T, out=held[: part.stop - part.start])
            if skip is not None:
                found = torch.nonzero(skip[part] >= 0).squeeze(1)
                logits[found, skip[part][found]] = -torch.inf
            top = logits.amax(1) + shift
            if extra is not None:
                top = torch.maximum(top, extra[part])
            exped = logits.sub_((top - shift)[:, None]).exp_()
            mass = exped.sum(1)
            own = None
            if extra is not None:
                own = (extra[part] - top).exp()
                mass = mass + own
            total += (weight[part] * (top + mass.log())).sum()
            if grad_h is not None and grad_items is not None:
                scale = weight[part] / mass
                grad_h[part] = (exped @ items) * scale[:, None]
                grad_items.addmm_(exped.T, h[part] * scale[:, None])
                if grad_extra is not None and own is not None:
                    grad_extra[part] = own * scale
        ctx.save_for_backward(grad_h, grad_items, grad_extra)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_h, grad_items, grad_extra = ctx.saved_tensors
        extra = None if grad_extra is None else upstream * grad_extra
        return upstream * grad_h, upstream * grad_items, None, extra, None, None


def weighted_logsumexp(
    h: Tensor,
    items: Tensor,
    weight: Tensor,
    *,
    extra: Tensor | None = None,
    skip: Tensor | None = None,
    shift: float = 0.0,
) -> Tensor:
    """sum_m weight_m log(sum_j exp(h_m . E_j + shift) + exp(extra_m)), in chunks of rows.

    Shape:
        h (M, d), items (N, d), weight (M,) without gradient; extra (M,): one further logit of each row; skip (M,): the
        column that a row leaves out, -1 for none. Returns a scalar.
    Complexity:
        O(M N d) time, three matrix products with gradients; O(chunk) memory beside the gradients themselves.
    """
    return _Partition.apply(h.to(items.dtype), items, weight, extra, skip, shift)  # pyright: ignore


def next_item_loss(h: Tensor, items: Tensor, targets: Tensor, negatives: Tensor | None = None) -> Tensor:
    """Cross-entropy of the next item over all items, mean over positions; or over shared negatives.

    mean_m (log sum_j exp(s_mj) - s_m,target). With K negatives drawn evenly without replacement, shared by all rows:
    log(exp(s_m,target) + (N - 1) / K' sum_k exp(s_mk)), K' being the negatives that are not the row's target, which
    makes the sum an unbiased estimate (the logQ correction of an even draw).

    Shape:
        h (M, d), items (N, d), targets (M,) indices, negatives (K,) distinct indices or None -> scalar.
    Reference:
        Zhu et al. 2024, arXiv 2311.01056, section 3.4; sampled: Jean et al. 2015, arXiv 1412.2007.
    Deviations:
        K' is taken as K for all rows (it is K - 1 for those few whose target was drawn).
    """
    weight = h.new_full((len(h),), 1 / len(h), dtype=items.dtype)
    target_score = (h * items[targets]).sum(-1).to(items.dtype)
    if negatives is None:
        return weighted_logsumexp(h, items, weight) - target_score.mean()
    column = torch.full((len(items),), -1, device=h.device)
    column[negatives] = torch.arange(len(negatives), device=h.device)
    shift = math.log((len(items) - 1) / len(negatives))
    chosen = items[negatives]
    return (
        weighted_logsumexp(h, chosen, weight, extra=target_score, skip=column[targets], shift=shift)
        - target_score.mean()
    )
