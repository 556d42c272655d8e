"""Every verb through the real entry, on a shop's own CSV with string ids, and on what the app brings."""

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cli
from shared.errors import ManyheadsError
from tests.command_line import Manyheads

Rows = list[list[int]]

ITEMS = [f"sku-{chr(97 + i // 10)}{i % 10}" for i in range(40)]  # as in conftest


def test_training_learns_and_says_what_it_trained_on(training: Any, run: Path, rows: Rows) -> None:
    result = training.json()
    assert result["finished"]
    assert result["valid_ndcg@20"] > 0.5  # chance is below 0.1
    assert result["data"]["users"] == 120
    assert result["data"]["items"] == 40
    for name in ("config.toml", "metrics.jsonl", "model.json", "data.json", "learning_curve.png", "last.ckpt"):
        assert (run / name).stat().st_size > 0
    card = json.loads((run / "model.json").read_text())
    assert sorted(card["vocabulary"]["items"]) == ITEMS
    assert card["vocabulary"]["titles"]["sku-a3"] == "Thing, no. 3"
    assert sum(card["vocabulary"]["popularity"]) == sum(len(row) - 2 for row in rows)


def test_evaluate_beats_chance_and_its_parts_make_the_whole(
    manyheads: Manyheads, run: Path, shop: Path, tmp_path: Path
) -> None:
    done = manyheads(
        "recommendation", "evaluate", "--checkpoint", run, "--data", shop, "--also", run, "--out", tmp_path, "--json"
    )
    result = done.json()
    assert result["metrics"]["hr@5"] > 0.5
    low, high = result["interval_95"]["ndcg@10"]
    assert low < result["metrics"]["ndcg@10"] < high
    assert "left out" in result["protocol"]
    for part in ("by_history_length", "by_transition_frequency"):
        users = np.array([row["users"] for row in result[part]])
        values = np.array([row["hr@10"] for row in result[part]])
        assert users.sum() == 120
        assert (users * values).sum() / 120 == pytest.approx(result["metrics"]["hr@10"])
    assert result["over_seeds"]["hr@10"]["sd"] == 0
    assert "note" not in result


def test_recommend_for_a_user_of_a_csv_gives_ids_and_titles_as_given(
    manyheads: Manyheads, run: Path, shop: Path, tmp_path: Path, rows: Rows
) -> None:
    row = rows[7]
    done = manyheads(
        *("recommendation", "recommend", "--checkpoint", run, "--data", shop, "--user", "user 7"),
        *("--top", "5", "--out", tmp_path, "--json"),
    )
    result = done.json()
    assert result["history_length"] == len(row)
    assert result["history"][-1] == f"Thing, no. {row[-1]}"
    lines = result["recommendations"]
    assert len(lines) == 5
    assert not {line["item"] for line in lines} & {ITEMS[i] for i in row}
    assert all(line["title"] == f"Thing, no. {ITEMS.index(line['item'])}" for line in lines)
    assert [line["score"] for line in lines] == sorted((line["score"] for line in lines), reverse=True)
    assert json.loads((tmp_path / "recommendation.json").read_text())["recommendations"] == lines


def test_somebody_new_gets_what_follows(manyheads: Manyheads, run: Path, tmp_path: Path) -> None:
    """The model has no user embedding: a list of items is all it needs, and unknown ones are skipped with a warning."""
    done = manyheads(
        *("recommendation", "recommend", "--checkpoint", run, "--items", "sku-a4, sku-a6,nothing,sku-a8"),
        *("--top", "3", "--out", tmp_path, "--json"),
    )
    result = done.json()
    assert result["recommendations"][0]["item"] == "sku-b0"
    assert result["unknown_items"] == ["nothing"]
    assert done.err == "warning: unknown items are skipped: nothing\n"


def test_an_empty_history_falls_back_to_popularity(manyheads: Manyheads, run: Path, tmp_path: Path, rows: Rows) -> None:
    done = manyheads(
        "recommendation", "recommend", "--checkpoint", run, "--items", "nothing", "--out", tmp_path, "--json"
    )
    result = done.json()
    assert "popular" in result["note"]
    counts = np.bincount(np.concatenate([row[:-2] for row in rows]), minlength=40)
    assert result["recommendations"][0]["score"] == counts.max()


def test_seen_allow_and_deny(manyheads: Manyheads, run: Path, tmp_path: Path) -> None:
    (tmp_path / "allow").write_text("sku-a4\nsku-a6\nsku-b0\nsku-b2\nunheard\n")
    (tmp_path / "deny").write_text("sku-b0\n")
    base = ("recommendation", "recommend", "--checkpoint", run, "--items", "sku-a4,sku-a6,sku-a8", "--out", tmp_path)

    def items(*more: object) -> list[str]:
        return [line["item"] for line in manyheads(*base, *more, "--json").json()["recommendations"]]

    assert set(items("--allow", tmp_path / "allow")) == {"sku-b0", "sku-b2"}
    assert set(items("--allow", tmp_path / "allow", "--seen")) == {"sku-a4", "sku-a6", "sku-b0", "sku-b2"}
    assert set(items("--allow", tmp_path / "allow", "--deny", tmp_path / "deny")) == {"sku-b2"}
    assert "sku-b0" not in items("--deny", tmp_path / "deny", "--top", "40")


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_everybody_into_one_file_that_others_can_read(
    manyheads: Manyheads, run: Path, shop: Path, tmp_path: Path, kind: str
) -> None:
    base = ("recommendation", "recommend", "--checkpoint", run, "--data", shop, "--out", tmp_path, "--json")
    result = manyheads(*base, "--all", "--top", "4", "--format", kind).json()
    path = Path(result["written"])
    if kind == "csv":
        rows = [(row["user"], row["item"]) for row in csv.DictReader(path.open(newline=""))]
    elif kind == "json":
        found = json.loads(path.read_text())
        rows = [(one["user"], line["item"]) for one in found for line in one["recommendations"]]
    else:
        import pandas

        frame = pandas.read_parquet(path)
        rows = list(zip(frame["user"], frame["item"], strict=True))
    assert len(rows) == 4 * 120 == 4 * result["users"]
    alone = manyheads(*base, "--user", "user 3", "--top", "4").json()["recommendations"]
    assert [item for user, item in rows if user == "user 3"] == [line["item"] for line in alone]


def test_similar_by_id_and_by_title(manyheads: Manyheads, run: Path) -> None:
    by_id = manyheads("recommendation", "similar", "sku-a3", "--checkpoint", run, "--json").json()
    by_title = manyheads("recommendation", "similar", "thing, no. 3", "--checkpoint", run, "--json").json()
    assert by_id == by_title
    assert len(by_id["similar"]) == 10
    assert "sku-a3" not in {line["item"] for line in by_id["similar"]}
    assert all(-1.001 <= line["score"] <= 1.001 for line in by_id["similar"])


def test_explanation_adds_up(manyheads: Manyheads, run: Path, shop: Path, tmp_path: Path, rows: Rows) -> None:
    result = manyheads(
        *("recommendation", "explain", "--checkpoint", run, "--data", shop, "--items", "sku-a4,sku-a6,sku-a8"),
        *("--item", "sku-b0", "--out", tmp_path, "--json"),
    ).json()
    assert sum(branch["score"] for branch in result["branches"]) == pytest.approx(result["score"], abs=1e-5)
    assert result["rank_among_all_items"] == 1
    for branch in ("short", "long_3"):
        assert sum(line[f"attention_{branch}"] for line in result["history"]) == pytest.approx(1, abs=1e-5)
    went = sum((8, 10) in set(itertools.pairwise(row[:-2])) for row in rows)
    assert result["sentence"].startswith(f"{went} users went from Thing, no. 8 directly to Thing, no. 10")
    assert (tmp_path / "explanation.png").stat().st_size > 10_000
    score = manyheads(
        *("recommendation", "recommend", "--checkpoint", run, "--items", "sku-a4,sku-a6,sku-a8", "--top", "1"),
        *("--out", tmp_path, "--json"),
    ).json()["recommendations"][0]["score"]
    assert score == pytest.approx(result["score"], abs=1e-4)


def test_the_item_explained_is_the_first_recommended_to_a_history_longer_than_the_model_reads(
    manyheads: Manyheads, run: Path, shop: Path, tmp_path: Path
) -> None:
    items = [f"sku-{letter}{digit}" for letter in "abcd" for digit in range(10)]  # the model reads the last 12
    base = ("--checkpoint", run, "--out", tmp_path, "--json", "--items")
    left = manyheads("recommendation", "recommend", *base, ",".join(items[1:])).json()["recommendations"]
    assert [line["item"] for line in left] == items[:1]
    assert manyheads("recommendation", "explain", "--data", shop, *base, ",".join(items[1:])).json()["item"] == items[0]
    every = manyheads("recommendation", "explain", "--data", shop, *base, ",".join(items))
    assert every.code == 2
    assert "holds every item" in every.err


def test_info_names_the_model_and_the_settings_that_come_with_the_app(manyheads: Manyheads, run: Path) -> None:
    facts = manyheads("recommendation", "info", "--checkpoint", run, "--json").json()
    assert facts["architecture"]["items"] == 40
    assert "vocabulary" not in facts
    assert "fast" in facts["shipped_configs"]


def test_compare_puts_all_in_one_table_and_goes_on(
    manyheads: Manyheads, shop: Path, tmp_path: Path, tiny: list[str]
) -> None:
    base = ("recommendation", "compare", "--data", shop, "--out", tmp_path / "all", *tiny, "--set", "train.epochs=4")
    result = manyheads(*base, "--device", "cpu", "--json").json()
    table = {row["model"]: row for row in result["table"]}
    assert list(table) == ["POP", "last-item Markov", "SASRec-CE", "MQSA", "MQSA-TED"]
    assert table["MQSA-TED"]["hr@10"] > table["POP"]["hr@10"]
    assert {row["difference"] for row in result["differences"]} >= {"MQSA-TED - MQSA", "MQSA - SASRec-CE"}
    assert (tmp_path / "all" / "comparison.png").stat().st_size > 10_000
    stamp = (tmp_path / "all" / "mqsa-seed0" / "last.ckpt").stat().st_mtime_ns
    again = manyheads(*base, "--device", "cpu", "--resume", "--json").json()
    assert again["table"] == result["table"]
    assert (tmp_path / "all" / "mqsa-seed0" / "last.ckpt").stat().st_mtime_ns == stamp
    other = manyheads(*base, "--set", "train.epochs=5", "--device", "cpu", "--resume")
    assert other.code == 2
    assert "train.epochs is 4 there, not 5" in other.err


def test_a_comparison_that_is_cut_short_has_written_what_it_has(
    manyheads: Manyheads, shop: Path, tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.recommendation import compare

    train = compare.train_on

    def cut(histories: Any, config: Any, out: Path, **rest: Any) -> dict:
        if out.name.startswith("mqsa-ted"):
            raise ManyheadsError("the power failed")
        return train(histories, config, out, **rest)

    monkeypatch.setattr(compare, "train_on", cut)
    base = ("recommendation", "compare", "--data", shop, "--out", tmp_path, *tiny, "--set", "train.epochs=1")
    assert manyheads(*base, "--device", "cpu").code == 1
    table = json.loads((tmp_path / "comparison.json").read_text())["table"]
    assert [row["model"] for row in table] == ["POP", "last-item Markov", "SASRec-CE", "MQSA"]


def test_a_run_that_was_cut_goes_on_to_the_same_end(
    manyheads: Manyheads, shop: Path, tmp_path: Path, tiny: list[str]
) -> None:
    from safetensors.torch import load_file

    base = ("recommendation", "train", "--data", shop, "--device", "cpu", *tiny, "--json")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    manyheads(*base, "--out", whole, "--set", "train.epochs=3").json()
    first = manyheads(*base, "--out", cut, "--set", "train.epochs=3", "--set", "train.minutes=0.00001").json()
    assert not first["finished"]
    manyheads(*base, "--out", cut, "--set", "train.epochs=3", "--resume").json()
    one, other = load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors")
    assert all((one[name] == other[name]).all() for name in one)


def test_export_is_checked_and_scores_alike(manyheads: Manyheads, run: Path, tmp_path: Path) -> None:
    done = manyheads("recommendation", "export", "--checkpoint", run, "--out", tmp_path, "--json")
    result = done.json()
    assert done.err == ""
    assert result["largest_difference_of_scores"] <= 1e-5
    import torch
    from safetensors.torch import load_file

    encoder = torch.export.load(tmp_path / "encoder.pt2").module()
    facts = json.loads((tmp_path / "items.json").read_text())
    number = {name: i for i, name in enumerate(facts["items"], 1)}
    row = torch.zeros(1, 12, dtype=torch.int64)
    row[0, -3:] = torch.tensor([number[name] for name in ("sku-a4", "sku-a6", "sku-a8")])
    with torch.inference_mode():
        scores = encoder(row) @ load_file(tmp_path / "items.safetensors")["items"].T
    assert facts["items"][int(scores.argmax())] == "sku-b0"


def test_verbs_that_only_use_a_model_do_not_wait_for_lightning(run: Path, shop: Path, tmp_path: Path) -> None:
    """Its import takes longer than the answer."""
    line = ["recommendation", "recommend", "--checkpoint", run, "--data", shop, "--user", "user 7", "--out", tmp_path]
    code = f"""
import sys
import cli
from shared import command
try:
    command.run(cli.root, {[str(part) for part in line]})
except SystemExit as ended:
    assert not ended.code
assert "torch" in sys.modules
assert "lightning" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(cli.__file__).parent, stdout=subprocess.DEVNULL)
