"""The longest run that two collections of sequences have in common.

Reference: Karp, Miller, Rosenberg, Rapid identification of repeated patterns in strings, trees and arrays, STOC 1972.
"""

from collections.abc import Sequence

import numpy as np

Place = tuple[int, int]  # which sequence, and the first position in it


def longest_common_run(
    queries: Sequence[Sequence[np.ndarray]], sources: Sequence[Sequence[np.ndarray]]
) -> tuple[int, Place, Place]:
    """The longest run of symbols that stands in a query and in a source: (length, place in queries, place in sources).

    A sequence is given as K integer columns of equal length N >= 0, the same K everywhere; a symbol is a row of them.
    Of equally long runs the first in the sources is taken, and its first place in the queries. Length 0, with the
    places (0, 0), when no symbol is shared. Windows are named by their rank among all windows of their width, and the
    rank of a window of width 2w by the ranks of its halves, so equal names mean equal windows: nothing is left to a
    hash's luck. Time O(n log n log m), n symbols altogether, m the length of the run.
    """
    sequences = [*queries, *sources]
    if not queries or not sources:
        return 0, (0, 0), (0, 0)
    names, line, position = _named(sequences)
    border = int(np.searchsorted(line, len(queries)))
    width, common = 1, _common(names, border)
    if common is None:
        return 0, (0, 0), (0, 0)
    while True:
        doubled = _joined(names, width)
        found = _common(doubled, border)
        if found is None:
            break
        common, width = found, 2 * width
        names = np.unique(doubled, return_inverse=True)[1]
    low, high = width, 2 * width  # a common run of `low` exists, none of `high`
    while high - low > 1:
        middle = (low + high) // 2
        found = _common(_joined(names, middle - width), border)  # two windows of `width` that overlap
        if found is None:
            high = middle
        else:
            common, low = found, middle
    query, source = common
    return low, (int(line[query]), int(position[query])), (int(line[source]) - len(queries), int(position[source]))


def _named(sequences: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All sequences behind one another, each followed by a symbol that occurs nowhere else, so no run crosses a border.

    Returns the symbols' names, the sequence and the position of each, all (sum(N) + number of sequences,).
    """
    lengths = np.array([len(columns[0]) for columns in sequences])
    ends = np.cumsum(lengths + 1) - 1
    total = int(ends[-1]) + 1
    inside = np.ones(total, dtype=bool)
    inside[ends] = False
    names = np.zeros(total - len(sequences), dtype=np.int64)
    for column in zip(*sequences, strict=True):
        values = np.concatenate(column).astype(np.int64)
        values = values - values.min(initial=0)
        names = np.unique(names * (values.max(initial=0) + 1) + values, return_inverse=True)[1]
    symbols = np.empty(total, dtype=np.int64)
    symbols[inside] = names
    symbols[ends] = names.max(initial=0) + 1 + np.arange(len(sequences))
    line = np.repeat(np.arange(len(sequences)), lengths + 1)
    return symbols, line, np.arange(total) - np.repeat(ends - lengths, lengths + 1)


def _joined(names: np.ndarray, shift: int) -> np.ndarray:
    """A name for each pair (names[i], names[i + shift]); names are below the number of windows, so none overflows."""
    return names[: len(names) - shift] * (names.max(initial=0) + 1) + names[shift:]


def _common(names: np.ndarray, border: int) -> tuple[int, int] | None:
    """The first window from `border` on that also stands before it: (its first place there, its place), or None."""
    query, source = names[:border], names[border:]
    shared = np.isin(source, query)
    if not shared.any():
        return None
    at = int(shared.argmax())
    return int((query == source[at]).argmax()), border + at
