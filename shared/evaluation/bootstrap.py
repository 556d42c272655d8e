"""How sure a mean is: intervals from resampling the units that were measured."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def bootstrap_interval(
    values: ArrayLike,
    weights: ArrayLike | Sequence[float] | None = None,
    *,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of the (weighted) mean of `values`.

    Units (pieces, cases, users) are drawn with replacement, each with its value and its weight: with a piece's mean
    negative log-likelihood and its number of tokens as `weights`, the interval is that of the mean per token.

    Shape: values and weights (N,). Returns (low, high); with one unit both are its value.
    Raises `ValueError` when there is no value, one is not finite, or the weights do not fit.
    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError("an interval needs a list of finite values, one for each unit")
    if w.shape != x.shape or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise ValueError("weights are one number of at least 0 for each value, not all of them 0")
    if not 0 < level < 1:
        raise ValueError(f"the level lies between 0 and 1, not at {level}")
    generator = np.random.default_rng(seed)
    means = np.empty(samples)
    # In blocks, so that memory does not grow with units times samples.
    block = max(1, 1_000_000 // x.size)
    for first in range(0, samples, block):
        drawn = generator.integers(x.size, size=(min(block, samples - first), x.size))
        total = w[drawn].sum(-1)
        # A draw of units that all have no weight has no mean; the mean of all stands in, once in a blue moon.
        mean = np.divide((w * x)[drawn].sum(-1), total, out=np.full(len(drawn), (w @ x) / w.sum()), where=total > 0)
        means[first : first + len(drawn)] = mean
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
