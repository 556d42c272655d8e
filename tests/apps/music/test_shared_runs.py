"""The longest common run against a plain search, and where it says the run lies."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apps.music.shared_runs import longest_common_run

# Few symbols, so that long common runs and ties are usual.
sequences = st.lists(st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 1)), max_size=14), min_size=1, max_size=4)


def columns(rows: list[tuple[int, int]]) -> list[np.ndarray]:
    return list(np.array(rows, dtype=np.int64).reshape(-1, 2).T)


def plain(queries, sources):
    """Length and first place in the sources, by trying everything."""
    best = (0, (0, 0))
    for number, source in enumerate(sources):
        for start in range(len(source)):
            for length in range(best[0] + 1, len(source) - start + 1):
                run = source[start : start + length]
                if not any(run == query[i : i + length] for query in queries for i in range(len(query))):
                    break
                best = (length, (number, start))
    return best


@given(sequences, sequences)
def test_equals_a_plain_search(queries, sources):
    length, (query, at), (source, start) = longest_common_run(
        [columns(q) for q in queries], [columns(s) for s in sources]
    )
    assert (length, (source, start)) == plain(queries, sources)
    assert queries[query][at : at + length] == sources[source][start : start + length]
    assert len(queries[query][at : at + length]) == length


def test_a_run_crosses_no_border():
    one, two = [(0, 0), (1, 0)], [(0, 1), (1, 1)]
    assert longest_common_run([columns(one + two)], [columns(one), columns(two)])[0] == 2
    assert longest_common_run([columns(one), columns(two)], [columns(one + two)])[0] == 2


def test_nothing_to_compare():
    assert longest_common_run([], [columns([(0, 0)])])[0] == 0
    assert longest_common_run([columns([(0, 0)])], [])[0] == 0
    assert longest_common_run([columns([])], [columns([])])[0] == 0


def test_names_stay_exact_in_a_long_sequence():
    rng = np.random.default_rng(0)
    source = rng.integers(0, 2**31, 200_000)
    query = np.concatenate([rng.integers(0, 2**31, 50), source[150_000:150_777], rng.integers(0, 2**31, 50)])
    assert longest_common_run([[query]], [[source]]) == (777, (0, 50), (0, 150_000))
