"""`recommend` and `similar`: the next items for a user, for a list of items, or for everybody."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from apps.recommendation.batches import by_length, pad
from apps.recommendation.evaluate import hide
from apps.recommendation.histories import Histories
from apps.recommendation.ranking import top_k
from apps.recommendation.recommender import Recommender, read_for
from apps.recommendation.tables import write_rows
from shared.errors import InputError
from shared.io.files import input_file, output_folder, write_json

SERVED = 128  # users whose scores are held at a time: small enough to stay near the processor
FALLBACK = "no known item in the history: the most popular items"


@dataclass(frozen=True)
class Wish:
    """What may be recommended and how much: `seen` lets items of the history come up again; `allow` and `deny` are
    files of item ids, one a line."""

    top: int = 10
    seen: bool = False
    allow: Path | None = None
    deny: Path | None = None


def recommend(
    recommender: Recommender,
    data: Path | None,
    out: Path,
    user: str | None,
    items: str | None,
    wish: Wish,
    kind: str,
) -> dict:
    """Recommend for one user of `data`, for `items` (ids with commas), or for all users, from the full history.

    Items that the model does not know are skipped with a warning; a history without a known item falls back to
    popularity. Raises InputError for an unknown user, and when allow and deny leave nothing.
    """
    closed = closed_items(recommender, wish)
    output_folder(out)
    if items is not None:
        row, unknown = numbers_of(recommender, items.split(","))
        return _for_one(
            recommender, row, unknown, wish, closed, out, {"items": [recommender.items[i - 1] for i in row]}
        )
    histories, unknown_events = read_for(recommender, data)
    if unknown_events:
        _warn(f"{unknown_events} events with items that the model does not know are skipped")
    if user is not None:
        row = histories.history(index_of(histories, user))
        facts = {"user": user, "history": [recommender.title(i) for i in row[-10:]], "history_length": len(row)}
        return _for_one(recommender, row, [], wish, closed, out, facts)
    began = time.perf_counter()
    rows = [histories.history(u) for u in range(len(histories))]
    best, scores, count = recommend_rows(recommender, rows, wish.top, closed, seen=wish.seen)
    seconds = time.perf_counter() - began
    path = out / f"recommendations.{kind}"
    write_rows(path, kind, table_of(recommender, histories, best, scores, count))
    return {
        "users": len(rows),
        "items_a_user": int(count.max(initial=0)),
        "users_that_fell_back_to_popularity": int(sum(len(row) == 0 for row in rows)),
        "seconds_of_computing": round(seconds, 3),
        "users_a_second": round(len(rows) / seconds),
        "written": str(path),
    }


@torch.inference_mode()
def recommend_rows(
    recommender: Recommender, rows: Sequence[np.ndarray], top: int, closed: np.ndarray | None = None, *, seen: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `top` best items for each history, exactly: numbers (n, k), scores (n, k), and how many are real (n,).

    `closed` (N,) is True for items that nobody gets. Where fewer than k items are left, the rest is number 0. A history
    without items is ranked by popularity.
    """
    items = recommender.model.items
    k = min(top, len(items))
    bias = None
    if closed is not None and closed.any():
        bias = torch.zeros(len(items), device=items.device)
        bias[torch.from_numpy(closed).to(items.device)] = -torch.inf
    best = np.zeros((len(rows), k), np.int64)
    values = np.full((len(rows), k), -np.inf, np.float32)
    popular = torch.from_numpy(recommender.popularity.astype(np.float32)).to(items.device)
    filled = np.array([i for i, row in enumerate(rows) if len(row)], dtype=int)
    hidden = recommender.encode([rows[i] for i in filled])
    columns = items.T.contiguous()
    # One for all parts: fresh memory costs more than the product.
    held = items.new_empty(min(SERVED, len(filled)), len(items))
    for part in by_length(np.array([len(rows[i]) for i in filled]), SERVED):
        chosen = filled[part]
        scores = torch.mm(hidden[torch.from_numpy(part).to(items.device)], columns, out=held[: len(part)])
        best[chosen], values[chosen] = _best(scores, [rows[i] for i in chosen], k, bias, seen)
    empty = np.array([i for i, row in enumerate(rows) if not len(row)], dtype=int)
    if len(empty):
        best[empty], values[empty] = _best(popular[None].clone(), [np.zeros(0, int)], k, bias, seen)
    real = np.isfinite(values)
    return np.where(real, best, 0), values, real.sum(1)


def _best(scores, rows: Sequence[np.ndarray], k: int, bias, seen: bool) -> tuple[np.ndarray, np.ndarray]:
    if bias is not None:
        scores += bias
    if not seen:
        hide(scores, pad(rows, max(1, *(len(row) for row in rows), 1)).to(scores.device))
    values, columns = top_k(scores, k)
    return columns.cpu().numpy() + 1, values.cpu().numpy()


def _for_one(
    recommender: Recommender,
    row: np.ndarray,
    unknown: list[str],
    wish: Wish,
    closed: np.ndarray,
    out: Path,
    facts: dict,
) -> dict:
    best, scores, count = recommend_rows(recommender, [row], wish.top, closed, seen=wish.seen)
    if unknown:
        _warn(f"unknown items are skipped: {', '.join(unknown)}")
    result = {
        **facts,
        **({"unknown_items": unknown} if unknown else {}),
        **({} if len(row) else {"note": FALLBACK}),
        "recommendations": [
            entry(recommender, place, number, score)
            for place, (number, score) in enumerate(zip(best[0][: count[0]], scores[0], strict=False), 1)
        ],
    }
    write_json(out / "recommendation.json", result)
    return {**result, "written": str(out / "recommendation.json")}


def entry(recommender: Recommender, place: int, number: int, score: float) -> dict:
    """One line of a list: place, id, title and details where there are any, score."""
    name = recommender.items[number - 1]
    line: dict = {"place": place, "item": name}
    if name in recommender.titles:
        line["title"] = recommender.titles[name]
    if name in recommender.details:
        line["details"] = recommender.details[name]
    return {**line, "score": float(score)}


def table_of(
    recommender: Recommender, histories: Histories, best: np.ndarray, scores: np.ndarray, count: np.ndarray
) -> Iterator[tuple[str, int, str, str, float]]:
    """(user, place, item, title, score) for everybody, by user."""
    for u, user in enumerate(histories.users):
        for place in range(int(count[u])):
            number = int(best[u, place])
            yield user, place + 1, recommender.items[number - 1], recommender.title(number), float(scores[u, place])


def similar(recommender: Recommender, item: str, top: int) -> dict:
    """The items whose embeddings have the highest cosine with an item's (an id, or a title as it is written).

    Raises InputError for an unknown item, with names that are near.
    """
    number = find_item(recommender, item)
    with torch.inference_mode():
        items = torch.nn.functional.normalize(recommender.model.items, dim=1)
        cosine = items @ items[number - 1]
        cosine[number - 1] = -torch.inf
        values, columns = top_k(cosine[None], min(top, len(items) - 1))
    return {
        "item": recommender.items[number - 1],
        "title": recommender.title(number),
        "similar": [
            entry(recommender, place, int(column) + 1, float(value))
            for place, (value, column) in enumerate(zip(values[0], columns[0], strict=True), 1)
        ],
    }


def find_item(recommender: Recommender, text: str) -> int:
    """The number of an item by id or by title. Raises InputError with near names."""
    import difflib

    text = text.strip()
    if text in recommender.number:
        return recommender.number[text]
    found = [name for name, title in recommender.titles.items() if title.casefold() == text.casefold()]
    if len(found) == 1:
        return recommender.number[found[0]]
    if found:
        raise InputError(f"item {text!r}: {len(found)} items have that title ({', '.join(found[:5])}); give an id")
    names = [*recommender.items, *recommender.titles.values()]
    near = difflib.get_close_matches(text, names, n=3) or [n for n in names if text.casefold() in n.casefold()][:3]
    raise InputError(f"item {text!r}: the model knows none{'; near: ' + ', '.join(near) if near else ''}; give an id")


def numbers_of(recommender: Recommender, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The known items' numbers in order, and the names that are not known; empty names are passed over."""
    names = [name.strip() for name in names if name.strip()]
    known = [recommender.number[name] for name in names if name in recommender.number]
    return np.array(known, np.int64), [name for name in names if name not in recommender.number]


def index_of(histories: Histories, user: str) -> int:
    """The index of a user by id. Raises InputError for one that the data does not have."""
    try:
        return histories.users.index(user.strip())
    except ValueError:
        some = ", ".join(histories.users[:3])
        raise InputError(
            f"--user {user}: {histories.name} has no such user (it has {len(histories)}, such as {some}); give --items "
            "for somebody new"
        ) from None


def closed_items(recommender: Recommender, wish: Wish) -> np.ndarray:
    """(N,) True for items that are denied or not allowed. Raises InputError when nothing is left."""
    closed = np.zeros(len(recommender.items), bool)
    for path, allowed in ((wish.allow, True), (wish.deny, False)):
        if path is None:
            continue
        try:
            names = input_file(path).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{path}: is not text; give one item id a line") from None
        numbers, unknown = numbers_of(recommender, names)
        if unknown:
            _warn(f"{path}: {len(unknown)} ids that the model does not know are skipped: {', '.join(unknown[:5])}")
        listed = np.zeros(len(closed), bool)
        listed[numbers - 1] = True
        closed |= ~listed if allowed else listed
    if closed.all():
        raise InputError("--allow and --deny leave no item that the model knows; change one of the files")
    return closed


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
