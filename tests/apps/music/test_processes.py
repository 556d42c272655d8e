"""Two processes train the same model as one."""

import json
from pathlib import Path

import pytest

from tests.command_line import sets, train_in_processes


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(tiny: list[str], chorales_json: Path, tmp_path: Path) -> None:
    """Without dropout, whose masks belong to a process. What is left: a step's loss is the mean over each process's
    tokens, and shorter crops make these unequally many.
    """
    words = ("--data", chorales_json, *sets(*tiny, "model.dropout=0", "train.epochs=2", "train.steps=10"))
    one, two = (train_in_processes(count, tmp_path / f"run{count}", "music", *words) for count in (1, 2))
    assert len(one) == len(two) == 2
    for name in ("train/nll", "valid/nll"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-3)
    cards = [json.loads((tmp_path / f"run{count}" / "model.json").read_text()) for count in (1, 2)]
    assert cards[1]["metrics"]["valid_nll"] == pytest.approx(cards[0]["metrics"]["valid_nll"], rel=1e-3)
