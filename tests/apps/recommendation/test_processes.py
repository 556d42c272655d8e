"""Two processes train the same model as one."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from apps.recommendation.config import DataConfig
from apps.recommendation.data import RecommendationData
from apps.recommendation.readers import read_histories
from tests.command_line import sets, train_in_processes


@pytest.mark.parametrize("batch", [16, 17])  # 120 users: the last batch has 8, and 1
def test_the_parts_of_two_processes_are_the_batches_of_one(shop: Path, batch: int) -> None:
    histories = read_histories(shop, DataConfig(user="customer", item="product"))
    loaders = [
        RecommendationData(histories, 12, batch=batch, passes=2, seed=3, processes=processes).train_dataloader()
        for processes in (1, 2)
    ]
    one, two = (list(loader.batch_sampler) for loader in loaders)  # pyright: ignore[reportArgumentType]
    assert len(two) == 2 * len(one)
    for whole, first, second in zip(one, two[::2], two[1::2], strict=True):
        assert set(first) | set(second) == set(whole)
        assert len(whole) == 1 or not set(first) & set(second)
    np.testing.assert_array_equal(np.bincount(np.concatenate(one)), 2)


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(shop: Path, tiny: list[str], tmp_path: Path) -> None:
    """Each process's mean counts by its positions, so what is left is the order of float32 sums: 1e-4 of the losses and
    2e-3 of the weights, which Adam's division by small gradients widens. Without dropout, whose masks belong to a
    process.
    """
    words = ("--data", shop, *tiny, *sets("model.dropout=0", "train.epochs=2"))
    one, two = (train_in_processes(count, tmp_path / f"run{count}", "recommendation", *words) for count in (1, 2))
    assert len(one) == len(two) == 2
    for name in ("train/loss", "train/ted"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-4)
    ndcg = [[row["valid/ndcg@20"] for row in rows] for rows in (one, two)]
    assert ndcg[1] == pytest.approx(ndcg[0], abs=0.01)
    first, second = (safetensors.torch.load_file(tmp_path / f"run{count}" / "model.safetensors") for count in (1, 2))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-3, rtol=2e-3)
