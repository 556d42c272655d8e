"""Whatever is wrong with the input: one line that names the file, the line and the mend, and exit code 2."""

from pathlib import Path

import numpy as np
import pytest

from apps.recommendation.config import DataConfig
from apps.recommendation.readers import read_histories
from shared.errors import InputError
from tests.command_line import Manyheads, Refused

HEAD = "user,item,time\n"

BROKEN = {
    "empty.csv": ("", "is empty"),
    "header.csv": (HEAD, "no events"),
    "columns.csv": ("who,what\na,b\n", "line 1: has no column of the usual names of a user"),
    "data.csv": ("1,2,3\n4,5,6\n", "line 1: has no column"),
    "twice.csv": ("user,item,item\na,b,c\n", "line 1: has the column item twice"),
    "short.csv": (HEAD + "a,b,1\na,c\n", "line 3: has 2 fields where the header has 3"),
    "nan-time.csv": (HEAD + "a,b,1\na,c,nan\n", "line 3: the time is missing"),
    "infinite.csv": (HEAD + "a,b,1\na,c,inf\n", "line 3: the time inf is not finite"),
    "word.csv": (HEAD + "a,b,yesterday\n", "line 2: the time 'yesterday' is neither a number nor a date"),
    "huge.csv": (HEAD + f"a,b,{10**18}\n", "line 2: the time 1000000000000000000 is too large"),
    "nan-id.csv": (HEAD + "a,NaN,1\n", "line 2: the item id is missing"),
    "no-user.csv": (HEAD + ",b,1\n", "line 2: the user id is missing"),
    "negative.csv": (HEAD + "a,b,1\n-1,b,2\n", "line 3: the user id -1 is negative"),
    "quotes.csv": (HEAD + 'a,b,1\n"a,b,1\n', "line 3: cannot be read as a row"),
    "rating.csv": ("user,item,rating\na,b,good\n", "line 2: the rating 'good' is not a number"),
    "lone.txt": ("1 2 3\n2\n", "line 2: user 2 has no items"),
    "again.txt": ("1 2 3\n2 3\n1 4\n", "line 3: user 1 is on line 1 already"),
    "negative.txt": ("1 2 3\n2 -3 4\n", "line 2: the item id -3 is negative"),
    "blank.txt": ("\n\n", "no events"),
    "events.xlsx": ("x", "is none of .inter, .csv, .tsv, .txt"),
    "short.inter": ("user_id:token\titem_id:token\ttimestamp:float\n1\t2\t3\n1\t2\n", "line 3: has 2 fields"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_told_by_its_line(name: str, tmp_path: Path, refused: Refused) -> None:
    text, wanted = BROKEN[name]
    (tmp_path / name).write_text(text)
    assert wanted in (line := refused("recommendation", "train", "--data", tmp_path / name, "--out", "run")), line
    assert name in line


def test_bytes_that_are_no_text(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "events.csv").write_bytes(HEAD.encode() + b"a,\xff,1\n")
    assert "not UTF-8 text" in refused("recommendation", "train", "--data", "events.csv", "--out", "run")


def test_one_broken_line_among_a_million_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = [f"u{i % 5000},i{i % 777},{i}\n" for i in range(1_000_000)]
    rows[765_431] = "u1,i1,oops\n"
    path.write_text(HEAD + "".join(rows))
    with pytest.raises(InputError, match="line 765433: the time 'oops'"):
        read_histories(path, DataConfig())


def test_too_little_to_train_on(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "ones.csv").write_text(HEAD + "a,x,1\nb,y,2\n")
    assert "no user has two events" in refused("recommendation", "train", "--data", "ones.csv", "--out", "run")
    (tmp_path / "twos.csv").write_text(HEAD + "a,x,1\na,y,2\n")
    assert "no user has three events" in refused("recommendation", "train", "--data", "twos.csv", "--out", "run")
    (tmp_path / "threes.csv").write_text(HEAD + "a,x,1\na,y,2\na,z,3\n")
    given = ("--data", "threes.csv", "--out", "run")
    assert "no event is left" in refused("recommendation", "train", *given, "--set", "data.min_item_events=2")
    assert "no ratings" in refused("recommendation", "train", *given, "--set", "data.min_rating=3")
    assert "has no column article" in refused("recommendation", "train", *given, "--set", "data.item=article")


def test_folders_and_paths(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "folder").mkdir()
    assert "holds no .inter file" in refused("recommendation", "train", "--data", "folder", "--out", "run")
    assert "no such file" in refused("recommendation", "train", "--data", "missing.csv", "--out", "run")
    (tmp_path / "file").write_text("x")
    assert "no such model" in refused("recommendation", "recommend", "--checkpoint", "nowhere", "--items", "a")
    assert "is no safetensors file" in refused("recommendation", "info", "--checkpoint", "file")


def test_settings(refused: Refused) -> None:
    assert "did you mean windows" in refused("recommendation", "train", "--set", "model.window=[1]")
    assert "one length" in refused("recommendation", "train", "--set", "model.windows=[1]")
    assert "not divisible" in refused("recommendation", "train", "--set", "model.heads=3")
    assert "greater than or equal to 0.02" in refused("recommendation", "train", "--set", "ted.temperature=0.01")
    assert "above 0" in refused("recommendation", "train", "--set", "model.weights=[1.0, 0.0]")


def test_a_run_is_not_overwritten_nor_gone_on_with_on_other_data(
    run: Path, shop: Path, tmp_path: Path, manyheads: Manyheads
) -> None:
    done = manyheads("recommendation", "train", "--data", shop, "--out", run)
    assert done.code == 2
    assert "holds a run already" in done.err
    other = tmp_path / "other.csv"
    other.write_text("\n".join(shop.read_text().splitlines()[:-1]) + "\n")
    settings = (run / "config.toml").read_text()
    (tmp_path / "same.toml").write_text(settings)
    done = manyheads(
        "recommendation", "train", "--data", other, "--out", run, "--config", tmp_path / "same.toml", "--resume"
    )
    assert done.code == 2
    assert "began with other data" in done.err


def test_wrong_wishes(run: Path, shop: Path, tmp_path: Path, refused: Refused) -> None:
    base = ("recommend", "--checkpoint", run, "--data", shop, "--out", "out")
    assert "give one of --user ID" in refused("recommendation", *base)
    assert "give one of --user ID" in refused("recommendation", *base, "--user", "user 1", "--all")
    line = refused(
        "recommendation", "recommend", "--checkpoint", run, "--items", "sku-a1", "--deny", "nothing", "--out", "out"
    )
    assert "no such file" in line
    assert "near: sku-a1" in refused("recommendation", "similar", "sku-a1x", "--checkpoint", run)


def test_nothing_allowed(run: Path, tmp_path: Path, manyheads: Manyheads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "allow").write_text("unheard\n")
    done = manyheads("recommendation", "recommend", "--checkpoint", run, "--items", "sku-a1", "--allow", "allow")
    assert done.code == 2
    assert "leave no item" in done.err
    done = manyheads("recommendation", "recommend", "--checkpoint", run, "--data", "none", "--user", "x")
    assert done.code == 2


def test_an_unknown_user_and_data_of_another_shop(run: Path, shop: Path, tmp_path: Path, manyheads: Manyheads) -> None:
    base = ("recommendation", "recommend", "--checkpoint", run, "--out", tmp_path)
    done = manyheads(*base, "--data", shop, "--user", "nobody")
    assert done.code == 2
    assert "has no such user (it has 120" in done.err
    (tmp_path / "other.csv").write_text("customer,product,time,title,stars\na,b,1,c,4\n")
    done = manyheads(*base, "--data", tmp_path / "other.csv", "--user", "a")
    assert done.code == 2
    assert "no item that the model knows" in done.err


def test_a_tampered_card_builds_no_model(run: Path, tmp_path: Path, refused: Refused) -> None:
    import json
    import shutil

    shutil.copy(run / "model.safetensors", tmp_path)
    card = json.loads((run / "model.json").read_text())
    card["vocabulary"]["items"] = card["vocabulary"]["items"][:-1]
    (tmp_path / "model.json").write_text(json.dumps(card))
    assert "does not name the model's items" in refused(
        "recommendation", "info", "--checkpoint", tmp_path / "model.safetensors"
    )
    card["architecture"]["nonsense"] = 1
    (tmp_path / "model.json").write_text(json.dumps(card))
    assert "builds no model" in refused("recommendation", "info", "--checkpoint", tmp_path / "model.safetensors")


def test_what_is_treated_and_how(tmp_path: Path) -> None:
    """Unsorted times are sorted, equal ones keep the file's order, doubles are one event, and all of it is counted."""
    path = tmp_path / "events.csv"
    path.write_text(HEAD + "a,late,20\na,first,10\na,second,10\na,first,10\nb,only,5\na,first,30\n")
    histories = read_histories(path, DataConfig())
    names = [histories.items[i - 1] for i in histories.history(0)]
    assert names == ["first", "second", "late", "first"]
    assert histories.notes == {
        "events_at_the_time_of_the_one_before": 2,
        "duplicate_events": 1,
        "users_of_one_event": 1,
    }
    once = read_histories(path, DataConfig(repeats=False))
    assert [once.items[i - 1] for i in once.history(0)] == ["first", "second", "late"]


def test_times_beyond_float32_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    assert np.float32(1_700_000_001) == np.float32(1_700_000_002)
    path.write_text(HEAD + "a,y,1700000002\na,z,1700000002.000001\na,x,1700000001\n")
    histories = read_histories(path, DataConfig())
    assert [histories.items[i - 1] for i in histories.history(0)] == ["x", "y", "z"]
