"""Two processes train the same model as one."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.command_line import sets, train_in_processes


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(clips: Path, tiny: list[str], tmp_path: Path) -> None:
    """Their losses share counts (see `losses`), so what is left is the order of float32 sums: 1e-4 of the losses and
    2e-3 of the weights, which Adam's division by small gradients widens. Without dropout, whose masks belong to a
    process.
    """
    words = ("--data", clips, *sets(*tiny, "train.epochs=2", "train.select=last"))
    one, two = ([row["train/loss"] for row in train_in_processes(count, tmp_path / f"run{count}", "action", *words)]
                for count in (1, 2))  # fmt: skip
    assert len(one) == 2
    assert two == pytest.approx(one, rel=1e-4)
    first, second = (safetensors.torch.load_file(tmp_path / f"run{count}" / "model.safetensors") for count in (1, 2))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-3, rtol=2e-3)
