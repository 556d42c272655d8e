"""Rows of unequal length as tensors: padded on the left, sorted by length, or packed side by side."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

PACKED = ("inputs", "targets", "segments", "positions")
CHUNK = 128  # users that are ranked at a time: their scores should stay in the cache


def pad(rows: Sequence[np.ndarray], length: int) -> Tensor:
    """The last `length` of each row, zeros on the left, as wide as the longest needs: (B, L <= length) int64."""
    width = max(1, min(length, max((len(row) for row in rows), default=1)))
    out = np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        tail = row[-width:]
        out[i, width - len(tail) :] = tail
    return torch.from_numpy(out)


def by_length(lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Indices in parts of `size`, from short to long, so that little is padding."""
    order = np.argsort(lengths, kind="stable")
    for first in range(0, len(order), size):
        yield order[first : first + size]


def pack(rows: Sequence[np.ndarray], length: int) -> dict[str, Tensor]:
    """The last `length` + 1 items of each row as inputs and targets, many short rows side by side in one of `length`.

    Returns `inputs`, `targets`, `segments` (which row, from 1; 0 is padding) and `positions` (R, length), where the
    last input of each row stands at `length` - 1. What is padding is some percent, whatever the lengths.
    """
    needs = np.array([min(len(row) - 1, length) for row in rows])
    segments_of_row: list[list[int]] = []
    rooms: list[int] = []
    for i in np.argsort(-needs, kind="stable").tolist():  # first fit, the longest first
        r = next((r for r, room in enumerate(rooms) if room >= needs[i]), len(rooms))
        if r == len(rooms):
            segments_of_row.append([])
            rooms.append(length)
        segments_of_row[r].append(i)
        rooms[r] -= int(needs[i])
    out = {name: np.zeros((len(segments_of_row), length), np.int64) for name in PACKED}
    for r, members in enumerate(segments_of_row):
        at = 0
        for number, i in enumerate(members, 1):
            tail = rows[i][-length - 1 :]
            end = at + len(tail) - 1
            out["inputs"][r, at:end] = tail[:-1]
            out["targets"][r, at:end] = tail[1:]
            out["segments"][r, at:end] = number
            out["positions"][r, at:end] = np.arange(length - len(tail) + 1, length)
            at = end
    return {name: torch.from_numpy(value) for name, value in out.items()}
