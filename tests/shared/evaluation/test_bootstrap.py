import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.evaluation.bootstrap import bootstrap_interval

FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, min_size=1, max_size=20), st.integers(0, 99))
def test_the_interval_lies_within_the_values_and_is_repeatable(values: list[float], seed: int) -> None:
    low, high = bootstrap_interval(values, samples=50, seed=seed)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= low <= high <= max(values) + slack
    assert (low, high) == bootstrap_interval(values, samples=50, seed=seed)


@given(st.lists(FINITE, min_size=2, max_size=9), st.floats(0.1, 10))
def test_equal_weights_are_no_weights(values: list[float], weight: float) -> None:
    plain = bootstrap_interval(values, samples=50)
    weighted = bootstrap_interval(values, [weight] * len(values), samples=50)
    assert weighted == pytest.approx(plain, rel=1e-6, abs=1e-6)


def test_it_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        low, high = bootstrap_interval(generator.normal(3.0, 2.0, 40), samples=400, seed=seed)
        hits += low <= 3.0 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_it_agrees_with_the_normal_interval_for_many_values() -> None:
    values = np.random.default_rng(1).normal(0, 1, 5000)
    low, high = bootstrap_interval(values)
    assert (high - low) == pytest.approx(2 * 1.96 / np.sqrt(5000), rel=0.08)


def test_units_count_by_their_weight() -> None:
    low, high = bootstrap_interval([0.0, 1.0], [1e9, 1.0])
    assert low == pytest.approx(0.0, abs=1e-6)
    assert high == 1.0
    assert bootstrap_interval([2.0]) == (2.0, 2.0)
    assert bootstrap_interval([2.0, 5.0], [1.0, 0.0])[0] == 2.0


@pytest.mark.parametrize(
    ("values", "weights"),
    [([], None), ([1.0, float("nan")], None), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0], [-1.0])],
)
def test_what_has_no_interval_is_refused(values: list[float], weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match=r"values|weights"):
        bootstrap_interval(values, weights)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([1.0], level=1.0)
