"""The longest run that two collections of sequences have in common.

Reference: Karp, Miller, Rosenberg, Rapid identification of repeated patterns in strings, trees and arrays, STOC 1972.
"""

from collections.abc import Sequence

import numpy as np

Place = tuple[int, int]  # which sequence, and the first position in it

ELSEWHERE = -1  # the name of whatever does not stand in a query, and of the border behind each sequence


def longest_common_run(
    queries: Sequence[Sequence[np.ndarray]], sources: Sequence[Sequence[np.ndarray]]
) -> tuple[int, Place, Place]:
    """The longest run of symbols that stands in a query and in a source: (length, place in queries, place in sources).

    A sequence is given as K integer columns of equal length N >= 0, the same K everywhere; a symbol is a row of them.
    Of equally long runs the first in the sources is taken, and its first place in the queries. Length 0, with the
    places (0, 0), when no symbol is shared. Windows of one width are named by their rank among those of the queries,
    and a window of width 2w by the names of its halves, so equal names mean equal windows: nothing is left to a hash's
    luck. Time O(n log m log r): n symbols in the sources, m in the queries, r the length of the run.
    """
    nothing = 0, (0, 0), (0, 0)
    if not queries or not sources:
        return nothing
    names, line, position = _symbols([*queries, *sources], border=sum(len(query[0]) + 1 for query in queries))
    border = int(np.searchsorted(line, len(queries)))
    if not _shared(names, border):
        return nothing
    width = 1
    while _shared(doubled := _joined(names, width, border), border):
        names, width = doubled, 2 * width
    low, high, found = width, 2 * width, names  # a common run of `low` exists, none of `high`
    while high - low > 1:
        middle = (low + high) // 2
        overlapping = _joined(names, middle - width, border)  # two windows of `width` that overlap make one of `middle`
        if _shared(overlapping, border):
            low, found = middle, overlapping
        else:
            high = middle
    source = border + int((found[border:] != ELSEWHERE).argmax())
    query = int((found[:border] == found[source]).argmax())
    return low, (int(line[query]), int(position[query])), (int(line[source]) - len(queries), int(position[source]))


def _symbols(sequences: Sequence[Sequence[np.ndarray]], border: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All sequences behind one another, each followed by a border that no run crosses.

    Returns the names of the symbols, the sequence and the position of each, all (sum(N) + number of sequences,).
    """
    lengths = np.array([len(columns[0]) for columns in sequences])
    ends = np.cumsum(lengths + 1) - 1
    inside = np.ones(int(ends[-1]) + 1, dtype=bool)
    inside[ends] = False
    names = np.where(inside, 0, ELSEWHERE)
    for column in zip(*sequences, strict=True):
        values = np.concatenate(column).astype(np.int64)
        values = values - values.min(initial=0)
        pairs = names.copy()
        pairs[inside] = names[inside] * (values.max(initial=0) + 1) + values
        pairs[names == ELSEWHERE] = ELSEWHERE
        names = _renamed(pairs, border)
    line = np.repeat(np.arange(len(sequences)), lengths + 1)
    return names, line, np.arange(len(names)) - np.repeat(ends - lengths, lengths + 1)


def _renamed(names: np.ndarray, border: int) -> np.ndarray:
    """Names as ranks among the queries' names, which lie before `border`; what the queries lack is ELSEWHERE."""
    known = np.unique(names[:border][names[:border] != ELSEWHERE])
    if len(known) == 0:
        return np.full_like(names, ELSEWHERE)
    rank = np.minimum(np.searchsorted(known, names), len(known) - 1)
    return np.where((names != ELSEWHERE) & (known[rank] == names), rank, ELSEWHERE)


def _joined(names: np.ndarray, shift: int, border: int) -> np.ndarray:
    """Names for the pairs (names[i], names[i + shift]); ranks are below m, so their products do not overflow."""
    first, second = names[: len(names) - shift], names[shift:]
    pairs = np.where((first == ELSEWHERE) | (second == ELSEWHERE), ELSEWHERE, first * (names.max() + 1) + second)
    return _renamed(pairs, border)


def _shared(names: np.ndarray, border: int) -> bool:
    return bool((names[border:] != ELSEWHERE).any())
