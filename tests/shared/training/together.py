"""Run by test_trainer: `together.py REPOSITORY RUN DEVICES` trains in that many processes on the CPU."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[3]), str(Path(__file__).parent)]

from tiny import TinyData, TinyTask  # noqa: E402

from shared.training.seeds import seed_everything  # noqa: E402
from shared.training.trainer import Hardware, fit  # noqa: E402


def train(run: Path, devices: int) -> None:
    seed_everything(0)
    result = fit(
        TinyTask(dropout=0.0),  # dropout differs between processes, as it should
        TinyData(batch=16 // devices),
        run,
        seed=0,
        max_epochs=3,
        monitor="valid/loss",
        gradient_clip=1.0,
        ema_decay=0.9,
        hardware=Hardware("cpu", devices, strategy="ddp" if devices > 1 else "auto"),
    )
    print("finished", result.epochs)


if __name__ == "__main__":
    train(Path(sys.argv[2]), int(sys.argv[3]))
