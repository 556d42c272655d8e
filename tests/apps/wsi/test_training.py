"""Training: it beats chance on bags that it has not seen, goes on after a kill, and two processes are one."""

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from apps.wsi.bags import Bag, Bags
from apps.wsi.config import TrainConfig
from apps.wsi.data import BagData
from tests.command_line import in_another_process, sets, train_in_processes

SMALL = ("model.width=16", "model.hidden=8", "model.branches=3", "train.batch=4", "train.learning_rate=0.01")


def training(out: Path, *words: object) -> list[object]:
    return ["train", "--out", out, "--device", "cpu", "--json", *sets(*SMALL), *words]


def data_of(folder: Path) -> tuple[object, ...]:
    return "--data", folder / "features", "--labels", folder / "labels.csv"


def test_a_small_training_beats_chance_on_bags_that_it_has_not_seen(wsi, tmp_path: Path) -> None:
    settings = sets(*SMALL, "train.epochs=12", "model.fraction=0.25")
    words = ("train", "--data", "digits", "--out", tmp_path, "--device", "cpu", "--json", *settings)
    code, found = wsi(*words)
    assert code == 0
    assert found["valid_auroc"] > 0.8  # 40 bags of groups of images that were not trained on; chance is 0.5
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["classes"] == ["no nine", "nine"]
    assert card["data"]["bags"] == 200
    assert (tmp_path / "learning_curve.png").exists()
    code, line = wsi(*words)
    assert code == 2
    assert "--resume" in line
    code, line = wsi(*words[:2], "musk1", *words[3:], "--resume")
    assert code == 2
    assert "the run began with other data (digits)" in line


def test_a_run_does_not_go_on_with_other_slides_to_validate_on(wsi, bags_folder: Path, tmp_path: Path) -> None:
    """Whose labels have changed their column split: it went on, and trained on what it had validated on."""
    table = (bags_folder / "labels.csv").read_text()
    settings = [w for one in (*SMALL, "train.epochs=2") for w in ("--set", one)]
    for words, wanted in (((), 0), (("--resume",), 2)):
        (tmp_path / "labels.csv").write_text(table)
        data = ("--data", bags_folder / "features", "--labels", tmp_path / "labels.csv", "--device", "cpu")
        code, line = wsi("train", *data, "--out", tmp_path / "run", *settings, *words)
        assert code == wanted, line
        table = table.replace("patient-00,train", "patient-00,test").replace("patient-01,train", "patient-01,test")
    assert "the run began with other slides to validate on; resume it with the same --labels" in line


def order(processes: int, count: int = 22, batch: int = 4) -> list[list[int]]:
    rng = np.random.default_rng(0)
    bags = [Bag(str(i), np.zeros((rng.integers(1, 50), 3), np.float32), i % 2, str(i)) for i in range(count)]
    data = Bags("bags", tuple(bags), ("a", "b"), "")
    made = BagData(data, np.arange(count), np.arange(2), TrainConfig(batch=batch), 0, processes)
    return list(made.train_dataloader().batch_sampler)


def test_processes_share_each_batch_of_one_process() -> None:
    alone, both = order(1), order(2)
    assert len(both) == 2 * len(alone)
    for step, batch in enumerate(alone):
        assert sorted(both[2 * step] + both[2 * step + 1]) == sorted(batch)


def test_no_process_is_without_a_bag() -> None:
    assert all(order(4, count=22, batch=4))
    assert len(order(4, count=22, batch=4)) == 4 * len(order(1, count=22, batch=4))


def test_a_killed_run_resumes_to_the_same_weights(wsi, bags_folder: Path, tmp_path: Path) -> None:
    data = data_of(bags_folder)
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    words = (*data, *sets("train.epochs=40", "train.patience=40"))
    process = subprocess.Popen(in_another_process("wsi", *training(killed, *words)), stdout=subprocess.DEVNULL)
    metrics, limit = killed / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        if metrics.exists() and len(metrics.read_text().splitlines()) >= 3:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "model.safetensors").exists()  # it was in the midst of it
    for out, more in ((killed, ("--resume",)), (unbroken, ())):
        code, found = wsi(*training(out, *words, *more))
        assert code == 0, found
    mine, other = (safetensors.torch.load_file(run / "model.safetensors") for run in (killed, unbroken))
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=1e-5)  # processes may differ in their threads
    rows = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (killed, unbroken)
    ]
    assert len(rows[0]) == 40
    losses = [[row["train/loss"] for row in curve] for curve in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(bags_folder: Path, tmp_path: Path) -> None:
    """Without masking, whose draws belong to a process; the batch divides the 32 training bags evenly."""
    labels = tmp_path / "labels.csv"
    lines = (bags_folder / "labels.csv").read_text().splitlines()
    parts = [*(["train"] * 32), *(["valid"] * 8)]
    rows = [f"{line.rsplit(',', 1)[0]},{part}" for line, part in zip(lines[1:], parts, strict=True)]
    labels.write_text("\n".join([lines[0], *rows]))
    settings = sets(*SMALL, "model.top=0", "train.epochs=4", "train.batch=8")
    words = ("--data", bags_folder / "features", "--labels", labels, *settings)
    one, two = (train_in_processes(count, tmp_path / f"run{count}", "wsi", *words) for count in (1, 2))
    assert len(one) == len(two) == 4
    for name in ("train/loss", "valid/loss"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-3)
