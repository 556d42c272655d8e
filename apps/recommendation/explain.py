"""`explain`: why an item is recommended, in numbers that add up."""

from pathlib import Path

import numpy as np
import torch

from apps.recommendation.batches import pad
from apps.recommendation.histories import Histories
from apps.recommendation.recommend import find_item, index_of, numbers_of, recommend_rows
from apps.recommendation.recommender import Recommender, read_for
from shared.attention.record import record_attention
from shared.errors import InputError
from shared.io.files import output_folder, write_json


def explain(
    recommender: Recommender,
    data: Path | None,
    out: Path,
    user: str | None,
    items: str | None,
    item: str | None,
    top: int,
) -> dict:
    """The score of `item` (None: the first recommended) split by branch, which is exact, as scores are linear in the
    branches; the `top` items of the history that each branch attends to; and how many users of the training data went
    directly from each of them to the item. Raises InputError for an unknown user or item and an empty history.
    """
    histories, _ = read_for(recommender, data)
    if user is not None:
        row = histories.history(index_of(histories, user))
    else:
        row, _ = numbers_of(recommender, (items or "").split(","))
    if not len(row):
        raise InputError("explain: no item of the history is known to the model, so there is nothing to explain")
    output_folder(out)
    number = find_item(recommender, item) if item is not None else _first(recommender, row)
    row = row[-recommender.length :]
    scores, attention = branch_scores(recommender, row, number)
    went = users_that_went(histories, number)
    windows, weights = recommender.card["architecture"]["windows"], recommender.card["architecture"]["weights"]
    branches = [
        {"branch": _branch(window), "asks_with": _asks(window), "weight": weight, "score": score}
        for window, weight, score in zip(windows, weights, scores, strict=True)
    ]
    order = np.argsort(-attention.mean(0), kind="stable")[:top]
    history = []
    for place in order:
        line: dict = {"item": recommender.items[row[place] - 1], "title": recommender.title(int(row[place]))}
        line["steps_back"] = int(len(row) - 1 - place)
        line |= {f"attention_{_branch(w)}": float(attention[b, place]) for b, w in enumerate(windows)}
        history.append({**line, "users_that_went_from_it": int(went.get(int(row[place]), 0))})
    result = {
        "item": recommender.items[number - 1],
        "title": recommender.title(number),
        "score": float(sum(scores)),
        "rank_among_all_items": _rank(recommender, row, number),
        "branches": branches,
        "history": history,
        "sentence": sentence(recommender, row, number, went),
    }
    figure = out / "explanation.png"
    picture(figure, recommender, row, number, branches, attention, went)
    write_json(out / "explanation.json", result)
    return {**result, "figure": str(figure), "written": str(out / "explanation.json")}


@torch.inference_mode()
def branch_scores(recommender: Recommender, row: np.ndarray, number: int) -> tuple[list[float], np.ndarray]:
    """What each branch adds to an item's score, and its attention (branches, L) at the last position."""
    model = recommender.model
    inputs = pad([row], model.length).to(recommender.device)
    with record_attention(model) as maps:
        parts = model.branches.outputs(model.inputs(inputs), inputs > 0, last=True)
    scores = [float(part[0, 0] @ model.items[number - 1]) for part in parts]
    attention = [maps[f"branches.branches.{b}.attention"][0][0].mean(0)[-1].cpu().numpy() for b in range(len(parts))]
    return scores, np.array(attention)


def sentence(recommender: Recommender, row: np.ndarray, number: int, went: dict[int, int]) -> str:
    """How many users went the most trodden way from an item of the history to this one; of several, the latest."""
    counts = np.array([went.get(int(item), 0) for item in row])
    title = recommender.title(number)
    if not counts.any():
        return f"Nobody went from an item of the history directly to {title} in the training data."
    best = len(row) - 1 - int(counts[::-1].argmax())
    people = "1 user" if counts[best] == 1 else f"{counts[best]} users"
    return f"{people} went from {recommender.title(int(row[best]))} directly to {title} in the training data."


def users_that_went(histories: Histories, number: int) -> dict[int, int]:
    """How many users went directly from each item to this one, in the training part."""
    before: dict[int, int] = {}
    for row in histories.training():
        for item in np.unique(row[:-1][row[1:] == number]):
            before[int(item)] = before.get(int(item), 0) + 1
    return before


def _first(recommender: Recommender, row: np.ndarray) -> int:
    """What `recommend` puts first: nothing of the whole history, though the model reads only the end of it."""
    best, _, count = recommend_rows(recommender, [row], 1, seen=False)
    if not count[0]:
        raise InputError("explain: the history holds every item, so none is recommended; name one by --item")
    return int(best[0, 0])


@torch.inference_mode()
def _rank(recommender: Recommender, row: np.ndarray, number: int) -> int:
    scores = recommender.scores([row])[0]
    return int((scores > scores[number - 1]).sum()) + 1


def _branch(window: int) -> str:
    return "short" if window == 1 else f"long_{window}"


def _asks(window: int) -> str:
    return "the last item" if window == 1 else f"the mean of the last {window} items"


def picture(
    path: Path,
    recommender: Recommender,
    row: np.ndarray,
    number: int,
    branches: list[dict],
    attention: np.ndarray,
    went: dict[int, int],
) -> None:
    """The history from old to new with each branch's attention, and the score as a stack of branches."""
    from shared.report.figures import COLOURS, new_figure, save_figure

    shown = min(15, len(row))
    names = [f"{_short(recommender.title(int(i)))}  ({went.get(int(i), 0)} went on)" for i in row[-shown:]]
    figure = new_figure(9, 1.6 + 0.3 * shown)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [4, 1]})
    thick = 0.8 / len(branches)
    for b, branch in enumerate(branches):
        heights = np.arange(shown) + (b - (len(branches) - 1) / 2) * thick
        left.barh(heights, attention[b, -shown:], thick, label=f"asking with {branch['asks_with']}")
    left.set_yticks(range(shown), names)
    left.set(
        xlabel="attention",
        title="History, the newest on top, and how many training users went on\nto "
        + _short(recommender.title(number), 60),
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    below = 0.0
    for b, branch in enumerate(branches):
        right.bar(["score"], [branch["score"]], bottom=below if branch["score"] >= 0 else 0, color=COLOURS[b])
        right.annotate(
            f"{branch['score']:.2f}", (0, below + branch["score"] / 2), ha="center", va="center", color="white"
        )
        below += max(0.0, branch["score"])
    right.set_title(f"score {sum(branch['score'] for branch in branches):.2f}")
    save_figure(figure, path)


def _short(text: str, most: int = 36) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
