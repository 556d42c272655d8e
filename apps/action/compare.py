"""`compare`: the same network with and without each attention, at equal budget, over folds and seeds."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from apps.action.config import ActionConfig
from apps.action.corpora import load_corpus, summary
from apps.action.data import check_corpus
from apps.action.detector import made
from apps.action.evaluate import detect_all, given_grouping
from apps.action.metrics import LOOSE, STRICT, average_recall, labels_in, mean_average_precision
from apps.action.model import BoundaryMatchingNetwork
from apps.action.proposals import Detection
from apps.action.recordings import Corpus
from apps.action.train import fit_model
from shared.errors import InputError
from shared.io.files import output_folder, read_json, write_json, write_text
from shared.training.trainer import Hardware

MODELS: dict[str, dict[str, Any]] = {
    "frames": {"attention": "none", "proposals": False},
    "bmn": {"attention": "none"},
    "bmn+se": {"attention": "se"},
    "bmn+csa": {"attention": "csa"},
    "bmn+se+csa": {"attention": "se+csa"},
}
PAIRS = (("bmn+se", "bmn"), ("bmn+csa", "bmn"), ("bmn+csa", "bmn+se"), ("bmn+se+csa", "bmn"))  # gain of, against
ROWS, RESULT = "rows.jsonl", "comparison.json"


def compare(
    config: ActionConfig, data: Path | None, out: Path, *, models: list[str], seeds: int, folds: int, hardware: Hardware
) -> dict:
    """Train each model on each fold's other folds, for each seed, and score it on that fold; all with `config`.

    The last epoch is taken, so that nothing is selected on the test fold. What is done is kept in `rows.jsonl`, and a
    run that was ended goes on; seeds are outermost, so that it is even over the models whenever it ends. `folds` 0:
    all; data that name their own subsets are one, trained on `train` and `valid`. Raises InputError for an unknown
    model, more folds than there are, no recordings to test on, and a folder with other settings or other data.
    """
    unknown = [name for name in models if name not in MODELS]
    if unknown:
        raise InputError(f"--models {unknown[0]}: is unknown; choose of {', '.join(MODELS)}")
    corpus = load_corpus(data, config.data)
    there = corpus.fold_count or 1
    if folds > there:
        raise InputError(f"--folds {folds}: {corpus.name} has {there}; name no more")
    parts = corpus.split(0)
    check_corpus(corpus, parts, "last")
    if not parts["test"]:
        raise InputError(f"{corpus.name}: its test split is empty; name recordings to compare on")
    output_folder(out)
    _same_settings(out, config, corpus)
    rows = _read_rows(out)
    done = {(row["model"], row["fold"], row["seed"]) for row in rows}
    for seed in range(seeds):
        for fold in range(folds or there):
            for name in models:
                if (name, fold, seed) not in done:
                    rows.append(_one(config, corpus, out, name, fold, seed, hardware))
                    write_text(out / ROWS, "".join(json.dumps(row) + "\n" for row in rows))
    result = {"data": summary(corpus), "settings": config.model_dump(mode="json"), **summarise(corpus, rows)}
    write_json(out / RESULT, result)
    picture(out / "comparison.png", result)
    return {**result, "written": str(out / RESULT)}


def _same_settings(out: Path, config: ActionConfig, corpus: Corpus) -> None:
    path = out / "settings.json"
    now = {"config": config.model_dump(mode="json"), "data": corpus.sha256}
    if path.exists() and read_json(path) != now:
        raise InputError(f"{path}: the comparison there has other settings or data; name another folder with --out")
    write_json(path, now)


def _read_rows(out: Path) -> list[dict]:
    path = out / ROWS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _one(
    config: ActionConfig, corpus: Corpus, out: Path, name: str, fold: int, seed: int, hardware: Hardware
) -> dict[str, Any]:
    model = config.model.model_copy(update=MODELS[name])
    mine = config.model_copy(update={"model": model})
    parts = corpus.split(fold)
    work = out / "work"
    shutil.rmtree(work, ignore_errors=True)
    train_on = [*parts["train"], *parts["valid"]]
    result, card = fit_model(mine, corpus, train_on, [], work, seed=seed, hardware=hardware, resume=False)
    network = BoundaryMatchingNetwork(**card["architecture"])
    network.load_state_dict(result.best_state)
    found, proposals, _ = detect_all(made(network.eval(), card, work), parts["test"])
    shutil.rmtree(work, ignore_errors=True)
    return {
        "model": name,
        "fold": fold,
        "seed": seed,
        "detections": {key: [[d.start, d.end, d.label, d.score] for d in value[:200]] for key, value in found.items()},
        "area": average_recall({r.name: r.segments for r in parts["test"]}, proposals)["area"],
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def summarise(corpus: Corpus, rows: list[dict]) -> dict:
    """A line for each model, over all folds' recordings together, the mean over seeds; and paired differences."""
    by_seed: dict[str, dict[int, dict]] = {}
    folds = {row["fold"] for row in rows}
    tested = [recording for fold in sorted(folds) for recording in corpus.split(fold)["test"]]
    truth = {recording.name: recording.segments for recording in tested}
    wanted = len(folds)
    for name in dict.fromkeys(row["model"] for row in rows):
        for seed in sorted({row["seed"] for row in rows if row["model"] == name}):
            mine = [row for row in rows if row["model"] == name and row["seed"] == seed]
            if len(mine) < wanted:
                continue  # a seed counts when all of its folds are there
            found = {key: [Detection(*d) for d in value] for row in mine for key, value in row["detections"].items()}
            loose, per_class = mean_average_precision(truth, found, LOOSE)
            strict, _ = mean_average_precision(truth, found, STRICT)
            by_seed.setdefault(name, {})[seed] = {
                "map": loose,
                "loose": float(loose.mean()),
                "strict": float(strict.mean()),
                "area": float(np.mean([row["area"] for row in mine])),
                "classes": np.array([per_class[label].mean() for label in labels_in(truth)]),
                "parameters": mine[0]["parameters"],
            }
    table = [_line(name, list(seeds.values())) for name, seeds in by_seed.items()]
    given = given_grouping(corpus, tested)
    if given is not None:
        map_given, _ = mean_average_precision(truth, given, LOOSE)
        table.insert(0, {"model": "given scores, grouped", "seeds": None, "average_map_03_07": float(map_given.mean())})
    return {"models": table, "differences": differences(by_seed)}


def _line(name: str, seeds: list[dict]) -> dict[str, Any]:
    loose = np.array([seed["loose"] for seed in seeds])
    mean = np.mean([seed["map"] for seed in seeds], 0)
    return {
        "model": name,
        "seeds": len(seeds),
        "average_map_03_07": float(loose.mean()),
        "spread": float(loose.std(ddof=1)) if len(loose) > 1 else None,
        **{f"map_at_{threshold:.1f}": float(value) for threshold, value in zip(LOOSE, mean, strict=True)},
        "average_map_05_095": float(np.mean([seed["strict"] for seed in seeds])),
        "area_under_ar_an": float(np.mean([seed["area"] for seed in seeds])) if name != "frames" else None,
        "parameters": seeds[0]["parameters"],
    }


def differences(by_seed: dict[str, dict[int, dict]]) -> list[dict]:
    """What each model gains over plain BMN, and over squeeze-and-excitation, in average mAP: the mean over classes and
    shared seeds, with an interval from drawing both again.
    """
    lines = []
    for name, base in PAIRS:
        shared = sorted(set(by_seed.get(name, {})) & set(by_seed.get(base, {})))
        if not shared:
            continue
        gains = np.stack([by_seed[name][s]["classes"] - by_seed[base][s]["classes"] for s in shared])
        low, high = crossed_interval(gains)
        line = {"model": name, "against": base, "seeds": len(shared), "gain": float(gains.mean())}
        lines.append({**line, "low": low, "high": high})
    return lines


def crossed_interval(gains: np.ndarray, samples: int = 4000) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean of gains (seeds, classes).

    Seeds and classes are drawn with replacement, each by themselves: a class that gains does so with every seed, and
    pairs drawn one by one would look more sure than they are. With one seed, only the classes vary.
    Reference: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2).
    """
    rng = np.random.default_rng(0)
    seeds, classes = (rng.integers(size, size=(samples, size)) for size in gains.shape)
    means = gains[seeds[:, :, None], classes[:, None, :]].mean((1, 2))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def picture(path: Path, result: dict) -> None:
    """Average mAP of each model as a bar, with the spread over seeds."""
    from shared.report.figures import COLOURS, new_figure, save_figure

    rows = result["models"][::-1]
    figure = new_figure(7, 0.9 + 0.4 * len(rows))
    axes = figure.subplots()
    for at, row in enumerate(rows):
        colour = COLOURS[0] if "csa" in row["model"] else COLOURS[5]
        axes.barh(at, 100 * row["average_map_03_07"], color=colour, xerr=100 * (row.get("spread") or 0), ecolor="#555")
    axes.set_yticks(range(len(rows)), [row["model"] for row in rows])
    axes.set(xlabel="average mAP at tIoU 0.3 to 0.7 (%)", title=result["data"]["name"])
    axes.grid(axis="y", visible=False)
    save_figure(figure, path)
