"""Two processes train the same model as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import cli
from apps.recommendation.config import DataConfig
from apps.recommendation.data import RecommendationData
from apps.recommendation.readers import read_histories

ROOT = Path(cli.__file__).parent


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
    rows, weights = {}, {}
    for count in (1, 2):
        out = tmp_path / f"run{count}"
        command = [
            *(sys.executable, ROOT / "cli.py", "recommendation", "train", "--data", shop, "--out", out, "--json"),
            *("--device", "cpu", "--devices", str(count), *(["--strategy", "ddp"] if count > 1 else [])),
            *(*tiny, "--set", "model.dropout=0", "--set", "train.epochs=2"),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert json.loads(done.stdout)["epochs"] == 2
        rows[count] = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        weights[count] = safetensors.torch.load_file(out / "model.safetensors")
    assert len(rows[1]) == 2
    for one, two in zip(rows[1], rows[2], strict=True):
        for name in ("train/loss", "train/ted"):
            assert two[name] == pytest.approx(one[name], rel=1e-4)
        assert two["valid/ndcg@20"] == pytest.approx(one["valid/ndcg@20"], abs=0.01)
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[2][name], value, atol=2e-3, rtol=2e-3)
