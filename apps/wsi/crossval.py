"""`cross-validate`: several models on the same folds, repeated, with intervals and paired tests."""

from pathlib import Path

import numpy as np

from apps.wsi.bags import Bags
from apps.wsi.config import WsiConfig, variant
from apps.wsi.folds import predict_bags, train_folds
from apps.wsi.metrics import (
    attention_measures,
    draws,
    fit_temperature,
    interval,
    metrics,
    pairs,
    patient_interval,
    sign_flip,
    softmax,
    weighted_auroc,
)
from apps.wsi.model import architecture
from apps.wsi.splits import folds
from shared.command import progress
from shared.errors import InputError
from shared.io.files import output_folder, read_json, write_json

WITH_TRUTH = ("instance_auroc", "coverage")  # what can be measured where the true instances are known
SETTINGS, RESULT = "settings.json", "cross_validation.json"


def cross_validate(
    data: Bags,
    config: WsiConfig,
    names: list[str],
    out: Path,
    *,
    count: int,
    repeats: int,
    seed: int,
    resume: bool,
    reference: str = "gated-abmil",
    block: int = 5,
) -> dict:
    """Predictions for every bag by models that were not trained on its patient, of every model in `names`.

    The folds of a repeat are the same for all models; up to `block` repeats train at once. Epochs are fixed and the
    class is the most probable one: no test fold chooses anything. What is done is kept in `out` after each block, and
    `resume` goes on from there, with more models or repeats than before if they are asked for.
    """
    split = np.stack([folds(data, count, seed * 1000 + repeat) for repeat in range(repeats)])
    _prepare(data, config, out, count=count, seed=seed, resume=resume)
    write_json(out / "folds.json", {"bags": [bag.name for bag in data.bags], "folds": split})
    with progress() as bar:
        for name in names:
            task = bar.add_task(name, total=repeats)
            for first in range(0, repeats, block):
                part = range(first, min(first + block, repeats))
                missing = [repeat for repeat in part if not _file(out, name, repeat).exists()]
                if missing:
                    _train_block(data, variant(config, name), name, split, part, missing, out, seed)
                bar.update(task, completed=min(first + block, repeats))
    return summarise(data, split, names, out, reference)


def _file(out: Path, name: str, repeat: int) -> Path:
    return out / "predictions" / f"{name}-{repeat}.json"


def _prepare(data: Bags, config: WsiConfig, out: Path, *, count: int, seed: int, resume: bool) -> None:
    settings = {
        "data": data.sha256,
        "config": {**config.model_dump(mode="json"), "model": config.model.model_dump(exclude={"kind"}, mode="json")},
        "folds": count,
        "seed": seed,
    }
    path = output_folder(out) / SETTINGS
    if path.exists():
        if not resume:
            raise InputError(f"{out}: holds a cross-validation; go on with it by --resume, or name another --out")
        before = read_json(path)
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise InputError(f"{path}: {changed[0]} was another one there; resume with the same, or name another --out")
    write_json(path, settings)


def _train_block(
    data: Bags,
    config: WsiConfig,
    name: str,
    split: np.ndarray,
    part: range,
    missing: list[int],
    out: Path,
    seed: int,
) -> None:
    """Train the repeats in `part` together, all of them, since they share their draws; write those that are missing."""
    count = int(split.max()) + 1
    members = np.stack([split[repeat] != fold for repeat in part for fold in range(count)])
    # The first repeat of the block is in the seed, so that two blocks do not begin with the same weights.
    models = train_folds(
        architecture(config.model, data.features, len(data.classes)),
        data.bags,
        members,
        config.train,
        seed * 1000 + part.start,
    )
    for at, repeat in enumerate(part):
        if repeat not in missing:
            continue
        logits = np.zeros((len(data.bags), len(data.classes)))
        measures: list[dict] = [{} for _ in data.bags]
        for fold in range(count):
            test = np.flatnonzero(split[repeat] == fold)
            found, weights = predict_bags(models[at * count + fold], [data.bags[index] for index in test])
            logits[test] = found
            for index, one in zip(test, weights, strict=True):
                measures[index] = attention_measures(one, data.bags[index].truth)
        write_json(_file(out, name, repeat), {"model": name, "repeat": repeat, "logits": logits, "attention": measures})


def summarise(data: Bags, split: np.ndarray, names: list[str], out: Path, reference: str) -> dict:
    """The table, from what lies in `out`: means over repeats, 95 % intervals over patients, tests against a model."""
    labels, patients, repeats = data.labels, data.patients, len(split)
    drawn = draws(patients.tolist())
    rows, kept = [], {}
    for name in names:
        files = [read_json(_file(out, name, repeat)) for repeat in range(repeats)]
        logits = np.array([file["logits"] for file in files])
        raw, scaled = softmax(logits), np.stack([_scaled(one, split[r], labels) for r, one in enumerate(logits)])
        each = [metrics(one, labels) for one in raw]
        right = (raw.argmax(2) == labels).mean(0)
        matrix = pairs(raw, labels)
        areas = weighted_auroc(matrix, labels, drawn)
        attention = _per_bag(files)
        kept[name] = (right, areas, attention)
        row = {
            "model": name,
            "accuracy": float(right.mean()),
            "accuracy_95": patient_interval(right, patients.tolist()),
            "auroc": float(np.mean([one["auroc"] for one in each])),
            "auroc_95": interval(areas),
            "accuracy_between_repeats": float(np.std([one["accuracy"] for one in each])),
            **{key: float(np.mean([one[key] for one in each])) for key in ("balanced_accuracy", "macro_f1")},
            "calibration_error": float(np.mean([one["calibration_error"] for one in each])),
            "calibration_error_scaled": float(np.mean([metrics(one, labels)["calibration_error"] for one in scaled])),
        }
        row |= {key: float(np.nanmean(values)) for key, values in attention.items()}
        rows.append(row)
    if reference in kept:
        for row in rows:
            if row["model"] != reference:
                row |= _against(kept[row["model"]], kept[reference], patients.tolist())
    result = {
        "data": data.summary(),
        "folds": int(split.max()) + 1,
        "repeats": repeats,
        "reference": reference if reference in kept else None,
        "models": rows,
    }
    write_json(out / RESULT, result)
    return {**result, "figure": str(_figure(rows, data.name, out)), "written": str(out / RESULT)}


def _per_bag(files: list[dict]) -> dict[str, np.ndarray]:
    """What was measured of the attention, mean over repeats (bags,); NaN for bags without a truth, or left out."""
    found = {}
    for key in ("top10_mass", "overlap", *WITH_TRUTH):
        values = np.array([[one.get(key, np.nan) for one in file["attention"]] for file in files])
        if np.isfinite(values).any():
            found[key] = values.mean(0)
    return found


def _scaled(logits: np.ndarray, fold: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities of each fold at the temperature that fits the predictions of the other folds."""
    found = np.zeros_like(logits)
    for one in np.unique(fold):
        temperature = fit_temperature(logits[fold != one], labels[fold != one])
        found[fold == one] = softmax(logits[fold == one], temperature)
    return found


def _against(mine: tuple, other: tuple, patients: list[str]) -> dict:
    """The difference to the reference on the same folds; p by flipping signs of whole patients."""
    difference, areas = mine[0] - other[0], mine[1] - other[1]
    found = {
        "accuracy_difference": float(difference.mean()),
        "accuracy_difference_95": patient_interval(difference, patients),
        "accuracy_p": sign_flip(difference, patients),
        "auroc_difference_95": interval(areas),
    }
    for key in WITH_TRUTH:
        if key in mine[2] and key in other[2]:
            values = mine[2][key] - other[2][key]
            known = np.isfinite(values)
            owners = [patient for patient, one in zip(patients, known, strict=True) if one]
            found[f"{key}_difference"] = float(values[known].mean())
            found[f"{key}_difference_95"] = patient_interval(values[known], owners)
            found[f"{key}_p"] = sign_flip(values[known], owners)
    return found


def _figure(rows: list[dict], name: str, out: Path) -> Path:
    from shared.report.figures import COLOURS, new_figure, save_figure

    figure = new_figure(8, 0.6 + 0.42 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key in ((left, "accuracy"), (right, "auroc")):
        for at, row in enumerate(reversed(rows)):
            low, high = row[f"{key}_95"]
            axes.plot([low, high], [at, at], color=COLOURS[0], linewidth=2)
            axes.plot(row[key], at, "o", color=COLOURS[1])
        axes.set(xlabel=f"{key.replace('auroc', 'AUROC')}, 95 % interval over patients", title=name)
        axes.set_yticks(range(len(rows)), [row["model"] for row in reversed(rows)])
    path = out / "cross_validation.png"
    save_figure(figure, path)
    return path
