"""Who took what in which order: what every reader yields and every verb works on. Items count from 1; 0 is padding."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from shared.errors import InputError


@dataclass(frozen=True)
class Events:
    """What a reader found, in the order of the file. `times` are microseconds or plain integers; None: file order."""

    name: str
    users: list[str]
    items: list[str]
    times: np.ndarray | None = None  # (E,) int64
    ratings: np.ndarray | None = None  # (E,) float64
    titles: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)  # of an item, such as its genres
    notes: dict[str, int | str] = field(default_factory=dict)  # what the reader left out or did


@dataclass(frozen=True)
class Histories:
    """Each user's items in order of time, with the split: the last is for test, the one before for validation.

    A user of fewer than three events has no held-out item: all of them train.
    """

    name: str
    users: list[str]
    items: list[str]
    flat: np.ndarray  # (E,) int64, all histories one after another
    start: np.ndarray  # (U + 1,)
    titles: dict[str, str]
    details: dict[str, str]
    notes: dict[str, int | str]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.start)

    def history(self, user: int, upto: str = "all") -> np.ndarray:
        """The items of a user: `all`, or what may be known when validating or testing, or trained on (`train`)."""
        row = self.flat[self.start[user] : self.start[user + 1]]
        if upto == "all" or len(row) < 3:
            return row
        return row[:-1] if upto == "test" else row[:-2]

    def training(self) -> list[np.ndarray]:
        """For each user the items that may be trained on."""
        return [self.history(user, "train") for user in range(len(self))]

    def held_out(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """The users that have a held-out item, and that item: (n,), (n,). `split` is valid or test."""
        users = np.flatnonzero(self.lengths >= 3)
        return users, self.flat[self.start[users + 1] - (1 if split == "test" else 2)]

    def popularity(self) -> np.ndarray:
        """(N,) how often each item stands in the training part."""
        rows = self.training()
        return np.bincount(np.concatenate(rows) - 1, minlength=len(self.items)) if rows else np.zeros(0, int)

    @property
    def sha256(self) -> str:
        """Of the histories as they are used, whatever file they came from."""
        digest = hashlib.sha256()
        for part in ("\n".join(self.users), "\n".join(self.items)):
            digest.update(part.encode())
        digest.update(self.flat.astype("<i8").tobytes() + self.start.astype("<i8").tobytes())
        return digest.hexdigest()

    def summary(self) -> dict:
        """The facts of a card and of a result."""
        lengths = self.lengths
        return {
            "name": self.name,
            "sha256": self.sha256,
            "users": len(self.users),
            "items": len(self.items),
            "events": len(self.flat),
            "density": len(self.flat) / max(1, len(self.users) * len(self.items)),
            "median_events_of_a_user": float(np.median(lengths)) if len(lengths) else 0.0,
            "users_without_held_out_items": int((lengths < 3).sum()),
            **({"treatment": self.notes} if self.notes else {}),
        }


def make_histories(
    events: Events,
    *,
    min_rating: float | None = None,
    min_user_events: int = 1,
    min_item_events: int = 1,
    repeats: bool = True,
) -> Histories:
    """Sort, clean and number events.

    Events go by time; at equal times they keep the order of the file. The same user, item and time twice is one event;
    without `repeats` a user's later events with an item go too. Filters are repeated until nothing changes. Items and
    users are numbered in order of first appearance in the file. Raises InputError when nothing is left.
    """
    notes = dict(events.notes)
    user_of, users = _number(events.users)
    item_of, items = _number(events.items)
    keep = np.ones(len(user_of), bool)
    if min_rating is not None:
        if events.ratings is None:
            raise InputError(f"{events.name}: has no ratings for data.min_rating; name their column with data.rating")
        keep &= events.ratings >= min_rating
        _note(notes, "events_rated_lower", int((~keep).sum()))
    order = np.arange(len(user_of))
    if events.times is not None:
        order = np.lexsort((order, events.times, user_of))
        ties = np.diff(events.times[order]) == 0
        same = np.diff(user_of[order]) == 0
        _note(notes, "events_at_the_time_of_the_one_before", int((ties & same).sum()))
    else:
        order = np.argsort(user_of, kind="stable")
    order = order[keep[order]]
    order = _without_duplicates(order, user_of, item_of, events.times, repeats, notes)
    before = len(order)
    while len(order):
        by_user = np.bincount(user_of[order], minlength=len(users))[user_of[order]] >= min_user_events
        by_item = np.bincount(item_of[order], minlength=len(items))[item_of[order]] >= min_item_events
        if (by_user & by_item).all():
            break
        order = order[by_user & by_item]
    _note(notes, "events_of_rare_users_or_items", before - len(order))
    if not len(order):
        raise InputError(f"{events.name}: no event is left; lower data.min_rating or the data.min_..._events")
    kept_users, sequence_user = np.unique(user_of[order], return_inverse=True)
    kept_items, sequence_item = np.unique(item_of[order], return_inverse=True)
    names = [items[i] for i in kept_items]
    lengths = np.bincount(sequence_user)
    _note(notes, "users_of_one_event", int((lengths == 1).sum()))
    return Histories(
        events.name,
        [users[i] for i in kept_users],
        names,
        sequence_item.astype(np.int64) + 1,
        np.concatenate([[0], np.cumsum(lengths)]),
        {name: events.titles[name] for name in names if name in events.titles},
        {name: events.details[name] for name in names if name in events.details},
        notes,
    )


def _without_duplicates(
    order: np.ndarray,
    user_of: np.ndarray,
    item_of: np.ndarray,
    times: np.ndarray | None,
    repeats: bool,
    notes: dict[str, int | str],
) -> np.ndarray:
    """`order` without an event that says again what an earlier one said; without times two lines are two events."""
    columns = [user_of[order], item_of[order]]
    if repeats:
        if times is None:
            return order
        columns.append(times[order])
    _, first = np.unique(np.stack(columns, 1), axis=0, return_index=True)
    _note(notes, "duplicate_events" if repeats else "repeated_events", len(order) - len(first))
    return order[np.sort(first)]


def _number(names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    index: dict[str, int] = {}
    numbers = np.fromiter((index.setdefault(name, len(index)) for name in names), np.int64, len(names))
    return numbers, list(index)


def _note(notes: dict[str, int | str], name: str, count: int) -> None:
    if count:
        notes[name] = count
