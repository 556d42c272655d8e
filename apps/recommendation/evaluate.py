"""`evaluate`: where held-out items stand when all items are ranked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from apps.recommendation.batches import CHUNK, by_length, pad
from apps.recommendation.histories import Histories
from apps.recommendation.ranking import count_ranks, means, metrics_of, top_k
from apps.recommendation.recommender import load, read_for
from apps.recommendation.transitions import count_transitions
from shared.command import progress
from shared.errors import InputError
from shared.evaluation.bootstrap import bootstrap_interval
from shared.io.files import output_folder, write_json

COVERED = 10  # coverage is the share of items among anybody's first ten


class Scorer(Protocol):
    """Anything that scores all items for histories: (n, N)."""

    def scores(self, rows: Sequence[np.ndarray]) -> Tensor: ...


@dataclass(frozen=True)
class Ranking:
    """How a scorer ranked: for each user with a held-out item, in the order of `Histories.held_out`."""

    metrics: dict[str, np.ndarray]  # (n,) each
    coverage: float

    def means(self, rows: np.ndarray | None = None) -> dict[str, float]:
        return {**means(self.metrics, rows), **({"coverage@10": self.coverage} if rows is None else {})}


@torch.inference_mode()
def rank(scorer: Scorer, histories: Histories, split: str, *, seen: bool, title: str = "users") -> Ranking:
    """Rank the held-out item of every user among all items, those of the history left out unless `seen`.

    Raises InputError when no user has a held-out item.
    """
    users, targets = histories.held_out(split)
    if not len(users):
        raise InputError(f"{histories.name}: no user has three events, so none is held out; give longer histories")
    rows = [histories.history(user, split) for user in users]
    above, beside = np.zeros(len(rows), int), np.zeros(len(rows), int)
    covered = np.zeros(len(histories.items), bool)
    parts = list(by_length(np.array([len(row) for row in rows]), CHUNK))
    with progress() as bar:
        for part in bar.track(parts, description=title):
            mine = [rows[i] for i in part]
            scores = scorer.scores(mine)
            known = None if seen else pad(mine, max(len(row) for row in mine)).to(scores.device)
            a, b = count_ranks(scores, torch.from_numpy(targets[part]).to(scores.device), known)
            above[part], beside[part] = a.cpu().numpy(), b.cpu().numpy()
            if known is not None:
                hide(scores, known)
            best = top_k(scores, min(COVERED, scores.shape[1]))[1]
            covered[best.flatten().cpu().numpy()] = True
    return Ranking(metrics_of(above, beside), float(covered.mean()))


def hide(scores: Tensor, known: Tensor) -> None:
    """Give the items in `known` (B, L), 0 being none, the lowest score, in place."""
    row, column = torch.nonzero(known, as_tuple=True)
    scores[row, known[row, column] - 1] = -torch.inf


def evaluate(
    paths: list[Path], data: Path | None, split: str, out: Path, *, seen: bool, seed: int, device: str
) -> dict:
    """Full ranking of the held-out items, with an interval over users, by history length and by transition frequency.

    The first of `paths` is the model; the others are the same with other seeds: the result then has mean and standard
    deviation over all. Raises InputError for data without held-out items.
    """
    first = load(paths[0], device)
    histories, unknown = read_for(first, data)
    output_folder(out)
    rankings = []
    for path in paths:
        model = first if path is paths[0] else load(path, device)
        mine = histories if model.items == first.items else read_for(model, data)[0]
        rankings.append(rank(model, mine, split, seen=seen, title=path.name))
    ranking = rankings[0]
    result = {
        "model": str(first.path),
        "protocol": protocol(split, seen),
        "data": histories.summary(),
        "users": len(next(iter(ranking.metrics.values()))),
        "metrics": ranking.means(),
        "interval_95": {
            name: list(bootstrap_interval(ranking.metrics[name], seed=seed)) for name in ("hr@10", "ndcg@10")
        },
        "by_history_length": by_history_length(ranking, histories, split),
        "by_transition_frequency": by_transition_frequency(ranking, histories, split),
    }
    if unknown:
        result["events_of_unknown_items"] = unknown
    if (trained := (first.card.get("data") or {}).get("sha256")) != histories.sha256:
        result["note"] = (
            f"the model was trained on other data ({(first.card.get('data') or {}).get('name', 'not named')}, "
            f"sha256 {str(trained)[:8]}): held-out items may be among what it has learned"
        )
    if len(paths) > 1:
        result["over_seeds"] = over_seeds([one.means() for one in rankings])
    write_json(out / "evaluation.json", result)
    return {**result, "written": str(out / "evaluation.json")}


def protocol(split: str, seen: bool) -> str:
    """How the figures came about, in a sentence."""
    item = "last" if split == "test" else "last but one"
    history = "items of the history may be ranked" if seen else "items of the history are left out of the ranking"
    return f"leave-one-out: the {item} item of each user among all items (no sampling); {history}"


def over_seeds(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (n - 1) of each metric over runs."""
    return {
        name: {
            "mean": float(np.mean([row[name] for row in rows])),
            "sd": float(np.std([row[name] for row in rows], ddof=1)) if len(rows) > 1 else 0.0,
        }
        for name in rows[0]
    }


def by_history_length(ranking: Ranking, histories: Histories, split: str) -> list[dict]:
    """A row for users of like history length (the items known when ranking)."""
    users, _ = histories.held_out(split)
    lengths = np.array([len(histories.history(user, split)) for user in users])
    return _slices(ranking, lengths, (1, 5, 10, 20, 50), "items in the history")


def by_transition_frequency(ranking: Ranking, histories: Histories, split: str) -> list[dict]:
    """A row for users whose step from the last known item to the held-out one is as frequent in training."""
    users, targets = histories.held_out(split)
    last = np.array([histories.history(user, split)[-1] for user in users])
    transitions = count_transitions(histories.training(), len(histories.items))
    return _slices(ranking, transitions.counts(last, targets), (0, 1, 2, 5), "times the transition was seen")


def _slices(ranking: Ranking, values: np.ndarray, edges: Sequence[int], label: str) -> list[dict]:
    rows = []
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        inside = np.flatnonzero((values >= low) & (values < (high or np.inf)))
        if len(inside):
            span = f"{low} or more" if high is None else str(low) if high == low + 1 else f"{low} to {high - 1}"
            metrics = ranking.means(inside)
            rows.append({label: span, "users": len(inside), **{k: metrics[k] for k in ("hr@10", "ndcg@10", "mrr@10")}})
    return rows
