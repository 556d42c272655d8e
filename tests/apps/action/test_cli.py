"""The verbs through the real command line, on a detector that was trained for some seconds."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import ROOT, Manyheads, Refused, sets


@pytest.fixture(scope="module")
def evaluation(manyheads: Manyheads, run: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("evaluation")
    return manyheads("action", "evaluate", "--checkpoint", run, "--data", clips, "--out", out, "--json").json()


def test_a_tiny_training_beats_chance_by_far(evaluation: dict) -> None:
    assert evaluation["average_map_03_07"] > 0.5
    assert evaluation["area_under_ar_an"] > 0.5
    assert evaluation["recordings"] == 4
    assert sum(row["segments"] for row in evaluation["classes"]) == evaluation["segments"]
    assert sum(evaluation["errors_at_05"].values()) <= evaluation["segments"]
    assert Path(evaluation["written"]).with_suffix(".png").exists()


def test_detect_writes_what_other_programs_read(manyheads: Manyheads, run: Path, clips: Path, tmp_path: Path) -> None:
    file = clips / "features" / "clip-00.npy"
    done = manyheads(
        "action",
        *("detect", file, "--checkpoint", run, "--out", tmp_path, "--json"),
        *("--annotations", clips / "annotations.json"),
    ).json()
    assert done["shown"]
    results = json.loads((tmp_path / "detections.json").read_text())["results"]["clip-00"]
    assert len(results) == done["detections"]
    assert [row["score"] for row in results] == sorted((row["score"] for row in results), reverse=True)
    assert all(0 <= s < e <= 30.001 for s, e in (row["segment"] for row in results))
    with open(tmp_path / "clip-00.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["label"] for row in rows] == [row["label"] for row in done["shown"]]
    assert (tmp_path / "clip-00.srt").read_text().count("-->") == len(rows)
    assert done["files"] == [str(tmp_path / f"clip-00{suffix}") for suffix in (".csv", ".srt", ".png")]
    assert Image.open(tmp_path / "clip-00.png").width > 1000
    truth = json.loads((clips / "annotations.json").read_text())["database"]["clip-00"]["annotations"]
    first = truth[0]
    assert any(
        row["label"] == first["label"] and abs(row["start"] - first["segment"][0]) < 1.5 for row in done["shown"]
    )


@pytest.mark.parametrize("snippets", [3, 20, 150])
def test_recordings_of_any_length_are_served(manyheads: Manyheads, run: Path, tmp_path: Path, snippets: int) -> None:
    np.save(tmp_path / "any.npy", np.random.default_rng(0).normal(size=(snippets, 6)))
    done = manyheads("action", "detect", tmp_path / "any.npy", "--checkpoint", run, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err


def test_an_action_that_ends_with_the_recording_is_found(
    manyheads: Manyheads, run: Path, clips: Path, tmp_path: Path
) -> None:
    features = np.load(clips / "features" / "clip-00.npy")
    start = json.loads((clips / "annotations.json").read_text())["database"]["clip-00"]["annotations"][1]["segment"][0]
    np.save(tmp_path / "cut.npy", features[: int(2 * start) + 4])  # two seconds after the second action has begun
    done = manyheads(
        "action", "detect", tmp_path / "cut.npy", "--checkpoint", run, "--out", tmp_path / "out", "--json"
    ).json()
    assert max(row["end"] for row in done["shown"]) == start + 2


def test_explain_shows_both_branches(manyheads: Manyheads, run: Path, clips: Path, tmp_path: Path) -> None:
    file = clips / "features" / "clip-01.npy"
    done = manyheads("action", "explain", file, "--checkpoint", run, "--out", tmp_path, "--json").json()
    gates = json.loads((tmp_path / "attention.json").read_text())["gates"]
    assert len(gates["temporal"]) == 60
    assert len(gates["channel"]) == 16
    assert all(0 < value < 1 for value in [*gates["temporal"], *gates["channel"]])
    assert all(Path(figure).exists() for figure in done["figures"])


def test_stream_gives_detections_within_the_promised_time(manyheads: Manyheads, run: Path, clips: Path) -> None:
    file = clips / "features" / "clip-02.npy"
    words = ("stream", file, "--checkpoint", run, "--hop", 2, "--margin", 4)
    done = manyheads("action", *words, "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert rows
    for row in rows:
        assert row["at"] >= row["end"] - 1e-6
        if row["at"] < 30:  # the last ones come when the recording ends
            assert row["at"] - row["end"] >= 2 - 1e-6
    quick = [row for row in rows if row["at"] - row["end"] <= (2 + 4) * 0.5 + 1e-6]
    assert len(quick) >= len(rows) / 2  # those that needed no second look
    assert "detections" in manyheads("action", *words).out


def test_inspect_info_and_text(manyheads: Manyheads, run: Path, clips: Path) -> None:
    facts = manyheads("action", "inspect", "--data", clips, "--json").json()
    assert facts["usable"]
    assert facts["recordings_in"] == {"train": 12, "valid": 4, "test": 4}
    assert facts["problems"] == []
    card = manyheads("action", "info", "--checkpoint", run, "--json").json()
    assert card["labels"] == ["jump", "turn", "wave"]
    assert card["parameters"] > 1000
    assert "watch" in card["shipped_configs"]
    assert "jump" in manyheads("action", "info", "--checkpoint", run).out


@pytest.fixture(scope="module")
def scored(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the clips with subsets, and with class scores of another width beside the features."""
    folder = tmp_path_factory.mktemp("scored")
    database = json.loads((clips / "annotations.json").read_text())["database"]
    kept = {}
    for kind in ("features", "scores"):
        (folder / kind).mkdir()
    for name, subset in zip(sorted(database), ["training"] * 5 + ["validation"] * 2 + ["testing"] * 2, strict=False):
        kept[name] = {**database[name], "subset": subset}
        features = np.load(clips / "features" / f"{name}.npy")
        np.save(folder / "features" / f"{name}.npy", features)
        np.save(folder / "scores" / f"{name}.npy", 1 / (1 + np.exp(-features[:, ::2])))
    (folder / "annotations.json").write_text(json.dumps({"database": kept}))
    return folder


def test_semantics_unlike_the_features(
    manyheads: Manyheads, refused: Refused, scored: Path, tiny: list[str], tmp_path: Path
) -> None:
    """6 features, 3 class scores: trained, evaluated, and found beside a file that is detected in."""
    settings = sets(*tiny, "train.epochs=1")
    run = tmp_path / "run"
    assert manyheads("action", "train", "--data", scored, "--out", run, *settings).code == 0
    architecture = manyheads("action", "info", "--checkpoint", run, "--json").json()["architecture"]
    assert (architecture["channels"], architecture["semantics_channels"]) == (6, 3)
    done = manyheads(
        "action", "evaluate", "--data", scored, "--checkpoint", run, "--out", tmp_path / "evaluation", "--json"
    )
    assert done.json()["recordings"] == 2
    file = Path(shutil.copytree(scored, tmp_path / "data")) / "features" / "clip-00.npy"
    words = ("detect", file, "--checkpoint", run, "--out", tmp_path / "out")
    assert manyheads("action", *words, "--json").json()["recordings"] == 1
    shutil.rmtree(tmp_path / "out")
    scores = tmp_path / "data" / "scores" / "clip-00.npy"
    np.save(scores, np.zeros((60, 4)))
    assert "has the shape (60, 4); the model needs (60, 3)" in refused("action", *words)
    scores.unlink()
    assert "clip-00.npy: the model reads class scores beside the features; put clip-00.npy" in refused("action", *words)
    assert "which a stream does not bring" in refused("action", "stream", file, "--checkpoint", run)
    assert not (tmp_path / "out").exists()


def test_compare_with_subsets_tests_on_those_of_the_data(
    manyheads: Manyheads, refused: Refused, scored: Path, tiny: list[str], tmp_path: Path
) -> None:
    settings = sets(*tiny, "train.epochs=1")
    words = ("compare", "--data", scored, "--out", tmp_path, *settings, "--models", "bmn", "--seeds", 1)
    assert "has 1; name no more" in refused("action", *words, "--folds", 2)
    assert not list(tmp_path.iterdir())
    manyheads("action", *words, "--json").json()
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert sorted(row["detections"]) == ["clip-07", "clip-08"]
    data = Path(shutil.copytree(scored, tmp_path / "data"))
    (data / "annotations.json").write_text((data / "annotations.json").read_text().replace("testing", "training"))
    words = ("compare", "--data", data, "--out", tmp_path / "other", *settings)
    assert "its test split is empty" in refused("action", *words)


def test_an_interval_over_seeds_and_classes_is_wider_where_classes_differ() -> None:
    from apps.action.compare import crossed_interval

    assert crossed_interval(np.full((5, 3), 0.2)) == pytest.approx((0.2, 0.2))
    classes = np.tile([0.0, 0.3, -0.1, 0.2], (5, 1))  # the same with every seed: five seeds say no more than one
    assert crossed_interval(classes) == pytest.approx(crossed_interval(classes[:1]), abs=0.02)
    low, high = crossed_interval(np.array([[0.1], [0.3]]))  # one class: the seeds alone vary
    assert (low, high) == pytest.approx((0.1, 0.3))


def test_compare_is_even_and_goes_on(manyheads: Manyheads, clips: Path, tiny: list[str], tmp_path: Path) -> None:
    settings = sets(*tiny, "train.epochs=1")
    words = ("compare", "--data", clips, "--out", tmp_path, "--folds", 1, *settings, "--json")
    first = manyheads("action", *words, "--seeds", 1, "--models", "frames,bmn").json()
    assert [row["model"] for row in first["models"]] == ["frames", "bmn"]
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    more = manyheads("action", *words, "--seeds", 1, "--models", "frames,bmn,bmn+se,bmn+csa").json()
    assert (tmp_path / "rows.jsonl").read_text().splitlines()[:2] == rows
    assert {row["model"] for row in more["differences"]} == {"bmn+se", "bmn+csa"}
    assert all(row["low"] <= row["gain"] <= row["high"] for row in more["differences"])
    assert (tmp_path / "comparison.png").exists()
    assert not (tmp_path / "work").exists()
    done = manyheads("action", *words, "--set", "train.epochs=2", "--seeds", 1)
    assert done.code == 2
    assert "other settings" in done.err
    assert "--models" in manyheads("action", *words, "--models", "bmn,resnet").err


def test_verbs_that_do_not_train_start_without_lightning() -> None:
    """Which takes longer to import than all the rest; nor do they need torch's compiler."""
    code = "import sys, apps.action.predict as p, apps.action.stream; from apps.action.detector import load; load(None)"
    code += "; assert not {'lightning', 'torch._dynamo'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
