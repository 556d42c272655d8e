"""`compare`: simple baselines, the ablations, MQSA-TED and RecBole's models on the same split, in one table."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.recommendation.config import RecommendationConfig
from apps.recommendation.evaluate import Ranking, Scorer, over_seeds, protocol, rank
from apps.recommendation.histories import Histories
from apps.recommendation.readers import read_histories
from apps.recommendation.recommender import Markov, Popularity, load
from apps.recommendation.train import train_on
from apps.recommendation.transitions import count_transitions
from shared.evaluation.bootstrap import bootstrap_interval
from shared.io.files import output_folder, write_json
from shared.training.trainer import Hardware

SHOWN = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@20", "ndcg@20", "mrr@10", "coverage@10")
OURS = ("sasrec", "mqsa", "mqsa-ted")
NAMES = {"pop": "POP", "markov": "last-item Markov", "sasrec": "SASRec-CE", "mqsa": "MQSA", "mqsa-ted": "MQSA-TED"}


@dataclass(frozen=True)
class Plan:
    """What to compare, and how: `engine` is own, recbole or both."""

    engine: str
    seeds: Sequence[int]
    recbole_epochs: int
    split: str
    seen: bool
    resume: bool
    device: str


def variant(config: RecommendationConfig, name: str) -> RecommendationConfig:
    """The configuration of one of `OURS`: the same budget, without distillation (mqsa), with one branch (sasrec)."""
    if name == "mqsa-ted":
        return config
    config = config.model_copy(update={"ted": config.ted.model_copy(update={"weight": 0.0})})
    if name == "mqsa":
        return config
    single = config.model.model_copy(update={"windows": (1,), "weights": (1.0,)})
    return config.model_copy(update={"model": single})


def compare(config: RecommendationConfig, data: Path | None, out: Path, plan: Plan) -> dict:
    """Train and rank every model with every seed; the table has mean and standard deviation over seeds.

    Runs lie in `out`, one folder each; with `resume`, those that are finished are used and others gone on with. The
    difference of MQSA-TED to MQSA and of MQSA to SASRec-CE comes with a bootstrap interval over users (each user's
    mean over seeds). Raises InputError as `train` does.
    """
    histories = read_histories(data, config.data)
    output_folder(out)
    rankings: dict[str, list[Ranking]] = {}

    def add(name: str, scorer: Scorer, title: str) -> None:
        """Rank, and write the table so far: a comparison takes hours, and may be cut short."""
        rankings.setdefault(name, []).append(rank(scorer, histories, plan.split, seen=plan.seen, title=title))
        write_json(out / "comparison.json", _table(rankings, histories, plan))

    counts = histories.popularity()
    add("pop", Popularity(counts), "POP")
    add("markov", Markov(count_transitions(histories.training(), len(histories.items)), counts), "Markov")
    if plan.engine != "recbole":
        for seed in plan.seeds:
            for name in OURS:
                _tell(f"{name}, seed {seed}")
                run = out / f"{name}-seed{seed}"
                _train(variant(config, name), histories, run, seed, plan)
                add(name, load(run, plan.device), run.name)
    if plan.engine != "own":
        from apps.recommendation.engine import NAMES as ENGINE_NAMES
        from apps.recommendation.engine import train_in_recbole

        for seed in plan.seeds:
            for name in ENGINE_NAMES:
                _tell(f"{name} in RecBole, seed {seed}")
                scorer = train_in_recbole(name, histories, config, seed=seed, epochs=plan.recbole_epochs)
                add(f"RecBole {name}", scorer, name)
    figure = out / "comparison.png"
    picture(figure, rankings)
    written = out / "comparison.json"
    return {**_table(rankings, histories, plan), "figure": str(figure), "written": str(written)}


def _table(rankings: dict[str, list[Ranking]], histories: Histories, plan: Plan) -> dict:
    return {
        "protocol": protocol(plan.split, plan.seen),
        "data": histories.summary(),
        "seeds": list(plan.seeds),
        "table": [_row(NAMES.get(name, name), found) for name, found in rankings.items()],
        "differences": _differences(rankings),
    }


def _train(config: RecommendationConfig, histories: Histories, run: Path, seed: int, plan: Plan) -> None:
    resume = plan.resume and (run / "config.toml").exists()  # one that is finished comes back at once
    train_on(histories, config, run, seed=seed, resume=resume, hardware=Hardware(plan.device))


def _row(name: str, rankings: list[Ranking]) -> dict:
    spread = over_seeds([ranking.means() for ranking in rankings])
    row: dict = {"model": name, "runs": len(rankings)}
    for metric in SHOWN:
        row[metric] = round(spread[metric]["mean"], 4)
        if len(rankings) > 1 and metric in ("hr@5", "ndcg@5", "hr@10", "ndcg@10"):
            row[f"{metric} sd"] = round(spread[metric]["sd"], 4)
    return row


def _differences(rankings: dict[str, list[Ranking]]) -> list[dict]:
    rows = []
    for better, worse in (("mqsa-ted", "mqsa"), ("mqsa", "sasrec"), ("mqsa-ted", "sasrec")):
        if better in rankings and worse in rankings:
            for metric in ("hr@5", "ndcg@10"):
                gain = _mean_over_runs(rankings[better], metric) - _mean_over_runs(rankings[worse], metric)
                low, high = bootstrap_interval(gain)
                rows.append(
                    {
                        "difference": f"{NAMES[better]} - {NAMES[worse]}",
                        "metric": metric,
                        "mean": float(gain.mean()),
                        "low_95": low,
                        "high_95": high,
                    }
                )
    return rows


def _mean_over_runs(rankings: list[Ranking], metric: str) -> np.ndarray:
    return np.mean([ranking.metrics[metric] for ranking in rankings], axis=0)


def picture(path: Path, rankings: dict[str, list[Ranking]]) -> None:
    """Bars of HR@10 and NDCG@10 for each model, every run a dot."""
    from shared.report.figures import new_figure, save_figure

    figure = new_figure(8, 1.2 + 0.4 * len(rankings))
    names = [NAMES.get(name, name) for name in rankings][::-1]
    for place, metric in enumerate(("hr@10", "ndcg@10"), 1):
        axes = figure.add_subplot(1, 2, place)
        values = [[ranking.means()[metric] for ranking in found] for found in rankings.values()][::-1]
        axes.barh(names, [float(np.mean(of_model)) for of_model in values])
        for height, of_model in enumerate(values):
            axes.plot(of_model, [height] * len(of_model), "o", markersize=3, color="black")
            axes.annotate(
                f"{np.mean(of_model):.4f}", (max(of_model), height), (6, 0), textcoords="offset points", va="center"
            )
        axes.set_title(metric.upper())
        axes.margins(x=0.22)
        if place == 2:
            axes.set_yticklabels([])
    save_figure(figure, path)


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"compare: {text}", file=sys.stderr, flush=True)
