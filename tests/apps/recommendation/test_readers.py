"""The layouts of files, on small ones made here and on the real ones."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.recommendation.config import DataConfig
from apps.recommendation.histories import Events, make_histories
from apps.recommendation.readers import read_histories


def taken(histories, user: int) -> list[str]:
    return [histories.items[i - 1] for i in histories.history(user)]


def test_the_same_events_in_every_layout(tmp_path: Path) -> None:
    events = [("7", "x", 1), ("9", "y", 2), ("7", "z", 3), ("7", "y", 5), ("9", "x", 8)]
    (tmp_path / "a.csv").write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in events))
    (tmp_path / "b.tsv").write_text("time\tuser\titem\n" + "".join(f"{t}\t{u}\t{i}\n" for u, i, t in events))
    (tmp_path / "c.csv").write_text(
        "USER;Item;when\n" + "".join(f"{u};{i};1970-01-01 00:00:0{t}\n" for u, i, t in events)
    )
    atomic = "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(f"{u}\t{i}\t{t}.0\n" for u, i, t in events)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "d.inter").write_text(atomic)
    (tmp_path / "folder" / "d.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\nx\tTea\t1995\n"
    )
    (tmp_path / "e.txt").write_text("7 x z y\n9 y x\n")
    read = [
        read_histories(tmp_path / name, DataConfig(time="when" if name == "c.csv" else None))
        for name in ("a.csv", "b.tsv", "c.csv", "folder", "e.txt")
    ]
    for histories in read:
        assert histories.users == ["7", "9"]
        assert taken(histories, 0) == ["x", "z", "y"]
        assert taken(histories, 1) == ["y", "x"]
    assert read[3].titles == {"x": "Tea (1995)"}
    assert len({histories.sha256 for histories in read[:4]}) == 1


def test_titles_from_a_second_file(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,movieId,date\na,5,2024-01-31\na,6,2024-02-01T10:00:00+02:00\n")
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n5,"Heat, The (1995)",Crime|Drama\n7,Other,None\n')
    histories = read_histories(tmp_path / "log.csv", DataConfig(titles=str(tmp_path / "movies.csv")))
    assert histories.titles == {"5": "Heat, The (1995)"}
    assert histories.details == {"5": "Crime|Drama"}


def test_movielens_from_the_package() -> None:
    histories = read_histories(None, DataConfig())
    assert (len(histories), len(histories.items), len(histories.flat)) == (943, 1682, 100_000)
    assert histories.titles["1"] == "Toy Story (1995)"
    assert "Comedy" in histories.details["1"]
    users, targets = histories.held_out("test")
    assert len(users) == 943
    assert all(targets[u] == histories.history(u)[-1] for u in range(943))


def test_beauty_is_as_the_papers_count_it(shared_data: Path) -> None:
    histories = read_histories(shared_data / "recommendation" / "Beauty.txt", DataConfig())
    assert (len(histories), len(histories.items), len(histories.flat)) == (22_363, 12_101, 198_502)
    assert sum(len(row) - 1 for row in histories.training()) == 131_413


EVENTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 9)), min_size=1, max_size=60)


@settings(max_examples=60)
@given(events=EVENTS, least=st.integers(1, 3))
def test_histories_are_what_sorting_by_hand_gives(events: list[tuple[int, int, int]], least: int) -> None:
    users, items = [f"u{u}" for u, _, _ in events], [f"i{i}" for _, i, _ in events]
    made = make_histories(Events("e", users, items, np.array([t for _, _, t in events], np.int64)))
    for user in made.users:
        mine = sorted((e for e in events if f"u{e[0]}" == user), key=lambda e: e[2])  # stable, as the rule says
        wanted = [f"i{i}" for _, i, _ in dict.fromkeys(mine)]
        assert taken(made, made.users.index(user)) == wanted
    assert made.flat.min() >= 1
    assert made.flat.max() == len(made.items)


@settings(max_examples=40)
@given(events=EVENTS, least=st.integers(2, 3))
def test_rare_ones_go_until_nothing_changes(events: list[tuple[int, int, int]], least: int) -> None:
    from shared.errors import InputError

    given_events = Events("e", [str(u) for u, _, _ in events], [str(i) for _, i, _ in events])
    try:
        made = make_histories(given_events, min_user_events=least, min_item_events=least)
    except InputError:
        return
    assert made.lengths.min() >= least
    assert np.bincount(made.flat)[1:].min() >= least


def test_the_split_holds_out_the_last_two() -> None:
    made = make_histories(Events("e", ["a"] * 4 + ["b"] * 2 + ["c"], ["1", "2", "3", "4", "1", "2", "3"]))
    users, targets = made.held_out("test")
    assert users.tolist() == [0]
    assert targets.tolist() == [4]
    assert made.held_out("valid")[1].tolist() == [3]
    assert made.history(0, "test").tolist() == [1, 2, 3]
    assert [row.tolist() for row in made.training()] == [[1, 2], [1, 2], [3]]
    assert made.popularity().tolist() == [2, 2, 1, 0]
