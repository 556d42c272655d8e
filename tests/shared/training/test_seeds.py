import random

import numpy as np
import torch

from shared.training.seeds import seed_at, seed_everything


def test_seed_everything_repeats_all_three() -> None:
    def draw() -> tuple[float, float, float]:
        seed_everything(5)
        return random.random(), np.random.random(), torch.rand(1).item()

    assert draw() == draw()


def test_a_place_has_one_seed_and_every_place_its_own() -> None:
    places = [(s, e, b, r) for s in (0, 1, 11) for e in (0, 1, 11) for b in (-1, 0, 1, 11) for r in (0, 1)]
    assert len({seed_at(*place) for place in places}) == len(places)
    assert all(0 <= seed_at(*place) < 2**63 for place in places)
    assert seed_at(0, 0, 0, 0) == 5854343820274218872  # the same in every process, version and machine
