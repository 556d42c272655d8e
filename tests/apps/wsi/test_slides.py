"""Slides: tissue, tiles, and what happens to slides that are white, small, damaged, or do not say their resolution."""

import numpy as np
import pytest

from apps.wsi.tissue import otsu


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.7), (0.0, 1.0), (0.3, 0.31)])
def test_otsu_lies_between_two_values(low: float, high: float) -> None:
    assert low < otsu(np.repeat([low, high], 50)) < high


def test_otsu_of_one_value_takes_all_of_it() -> None:
    assert otsu(np.full(50, 0.4)) == 0.0
