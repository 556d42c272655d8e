"""`compare`: our model, its ablations and MONAI's networks, trained one like the other on the same folds."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from apps.medical.config import MedicalConfig
from apps.medical.evaluate import score, summary
from apps.medical.segmenter import load as load_segmenter
from apps.medical.train import load, train_on
from shared.errors import InputError
from shared.evaluation.bootstrap import bootstrap_interval
from shared.io.files import output_folder, read_json, write_json
from shared.training.trainer import Hardware

# Each row of the ablation adds one part to the row before; the last is the whole model.
ABLATION: dict[str, dict[str, Any]] = {
    "no-attention": {"position": False, "channel": False, "steps": 1, "guidance": "none", "deep": False},
    "position": {"position": True, "channel": False, "steps": 1, "guidance": "none", "deep": False},
    "channel": {"position": False, "channel": True, "steps": 1, "guidance": "none", "deep": False},
    "both": {"position": True, "channel": True, "steps": 1, "guidance": "none", "deep": False},
    "two-steps": {"position": True, "channel": True, "steps": 2, "guidance": "none", "deep": False},
    "guidance": {"position": True, "channel": True, "steps": 2, "deep": False},
    "guided": {},
    "matrix": {"guidance": "matrix"},
    "released": {"guidance": "product", "channel_form": "released"},
}
BASELINES = ("unet", "attention-unet", "segresnet")
ENTRIES = (*ABLATION, *BASELINES)


def entry_config(config: MedicalConfig, entry: str) -> MedicalConfig:
    """The configuration of one entry: `config` but for what the entry is about. InputError for an unknown one."""
    if entry not in ENTRIES:
        raise InputError(f"--entry {entry}: is none of {', '.join(ENTRIES)}")
    changes = dict(ABLATION.get(entry, {}))
    deep = changes.pop("deep", True)
    kind = entry if entry in BASELINES else "guided"
    model = config.model.model_copy(update={"kind": kind, **changes})
    train = config.train.model_copy(update={"deep_supervision": deep and config.train.deep_supervision})
    return config.model_copy(update={"model": model, "train": train})


def compare(
    config: MedicalConfig, data: Path | None, out: Path, *, entries: list[str], seeds: list[int], hardware: Hardware
) -> dict[str, Any]:
    """Train every entry with every seed for the same number of steps on the same split, and evaluate all on the test.

    What is trained already is not trained again: a comparison that was stopped goes on. Raises InputError as `train`.
    """
    configs = {entry: entry_config(config, entry) for entry in entries}
    output_folder(out)
    dataset = load(config, data)
    rows = []
    for entry, one in configs.items():
        for seed in seeds:
            folder = out / f"{entry}-seed{seed}"
            kept = folder / "test.json"
            if not kept.exists():
                train_on(one, dataset, folder, seed=seed, resume=True, hardware=hardware)
                segmenter = load_segmenter(folder, hardware.device)
                measured = score(segmenter, dataset.splits["test"], tta=False)
                lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
                seconds = sum(json.loads(line)["seconds"] for line in lines)
                size = sum(p.numel() for p in segmenter.models[0].parameters())
                facts = {"entry": entry, "seed": seed, "parameters": size, "seconds": seconds}
                write_json(kept, facts | {"cases": measured, **summary(measured, list(dataset.labels), seed)})
            rows.append(read_json(kept))
    table = [_row(entry, [row for row in rows if row["entry"] == entry]) for entry in entries]
    steps = config.train.steps * config.train.epochs
    result = {"data": dataset.summary(), "steps": steps, "batch": config.train.batch, "seeds": seeds, "entries": table}
    write_json(out / "comparison.json", result)
    from apps.medical.report import comparison_page

    page = comparison_page(out, result)
    return {**result, "written": [str(out / "comparison.json"), str(page)]}


def _row(entry: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over seeds, its spread, and an interval over cases (each case's mean over seeds and organs)."""
    dice = [run["mean_dice"] for run in runs]
    by_case: dict[str, list[float]] = {}
    for run in runs:
        for row in run["cases"]:
            if row["dice"] is not None:
                by_case.setdefault(row["case"], []).append(row["dice"])
    low, high = bootstrap_interval([float(np.mean(values)) for values in by_case.values()])
    organs = {}
    for run in runs:
        for organ in run["organs"]:
            organs.setdefault(organ["organ"], []).append(organ)
    return {
        "entry": entry,
        "parameters": runs[0]["parameters"],
        "seconds": round(float(np.mean([run["seconds"] for run in runs])), 1),
        "mean_dice": float(np.mean(dice)),
        "sd_over_seeds": float(np.std(dice, ddof=1)) if len(dice) > 1 else None,
        "interval_95": f"{low:.4f} to {high:.4f}",
        **{f"dice_{name}": float(np.mean([one["dice"] for one in found])) for name, found in organs.items()},
        "hd95_mm": float(np.mean([one["hd95_mm"] for found in organs.values() for one in found])),
    }
