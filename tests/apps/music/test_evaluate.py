"""The figures that `evaluate` publishes, computed once more by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apps.music.corpora import load_corpus
from apps.music.player import load
from tests.command_line import Manyheads


@pytest.fixture(scope="module")
def evaluation(
    manyheads: Manyheads, tiny_run: Path, chorales_json: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    out = tmp_path_factory.mktemp("evaluation")
    options = ("--data", chorales_json, "--split", "valid", "--samples", 2, "--out", out, "--device", "cpu", "--json")
    return manyheads("music", "evaluate", "--checkpoint", tiny_run, *options)


def by_hand(run: Path, data: Path, split: str) -> list[tuple[list[float], list[bool]]]:
    """Token by token, each from a forward pass of its own over the window that `Windows` promises.

    The window is `length` tokens long and moves by half of it: token t (from 1, BOS being 0) is read in the first
    window that holds it as a target.
    """
    player = load(run, "cpu")
    length = player.window
    rows = []
    for piece in load_corpus(data, player.codec.NAME).splits[split]:
        tokens = [player.codec.BOS, *piece.variants[0].tolist()]
        nll, right = [], []
        for t in range(1, len(tokens)):
            start = max(0, -(-(t - length) // (length // 2))) * (length // 2)
            past = torch.tensor([tokens[start:t]])
            with torch.no_grad():
                chances = player.model(past, torch.tensor([start]))[0, -1].double().softmax(-1)
            nll.append(-math.log(float(chances[tokens[t]])))
            right.append(int(chances.argmax()) == tokens[t])
        rows.append((nll, right))
    return rows


def test_the_nll_is_that_of_reading_token_by_token(
    manyheads: Manyheads, tiny_run: Path, chorales_json: Path, tmp_path: Path, evaluation: Any
) -> None:
    result = evaluation.json()
    # All pieces by hand would take long: two of them, in a data set of their own.
    splits = json.loads(chorales_json.read_text())
    splits["valid"] = [piece[: 4 * (11 - 3 * i)] for i, piece in enumerate(splits["valid"][:2])]
    (tmp_path / "two.json").write_text(json.dumps(splits))
    done = manyheads(
        *("music", "evaluate", "--checkpoint", tiny_run, "--data", tmp_path / "two.json", "--split", "valid"),
        *("--samples", 0, "--out", tmp_path / "out", "--device", "cpu", "--json"),
    ).json()
    rows = by_hand(tiny_run, tmp_path / "two.json", "valid")
    nll = np.concatenate([row[0] for row in rows])
    right = np.concatenate([row[1] for row in rows])
    assert done["tokens"] == len(nll) == 4 * (44 + 32)
    assert done["nll_per_token"] == pytest.approx(nll.mean(), abs=1e-4)
    assert done["accuracy"] == pytest.approx(right.mean(), abs=1e-9)
    means = sorted(np.mean(row[0]) for row in rows)
    assert (
        means[0] - 1e-4 <= done["interval_95"][0] <= done["nll_per_token"] <= done["interval_95"][1] <= means[1] + 1e-4
    )
    for index, voice in enumerate(done["voices"]):
        assert voice["nll_per_token"] == pytest.approx(
            np.concatenate([row[0][index::4] for row in rows]).mean(), abs=1e-4
        )
        assert voice["accuracy"] == pytest.approx(np.concatenate([row[1][index::4] for row in rows]).mean(), abs=1e-9)
    assert "histograms" not in done
    assert "other data" in done["note"]
    assert "note" not in result


def test_the_card_and_the_evaluation_agree(tiny_run: Path, evaluation: Any) -> None:
    """Training's validation NLL is the evaluation's on the same pieces."""
    card = json.loads((tiny_run / "model.json").read_text())
    assert evaluation.json()["nll_per_token"] == pytest.approx(card["metrics"]["valid_nll"], rel=1e-4)


def test_the_table_of_voices_and_the_baseline(evaluation: Any, chorales_json: Path) -> None:
    result = evaluation.json()
    assert [row["voice"] for row in result["voices"]] == ["Soprano", "Alto", "Tenor", "Bass"]
    assert np.mean([row["nll_per_token"] for row in result["voices"]]) == pytest.approx(result["nll_per_token"])
    grids = [np.array(piece) for piece in json.loads(chorales_json.read_text())["valid"]]
    for voice, row in enumerate(result["voices"]):
        held = sum(int((grid[1:, voice] == grid[:-1, voice]).sum()) for grid in grids)
        assert row["accuracy_holding"] == pytest.approx(held / sum(len(grid) for grid in grids))


def test_histograms_and_files(evaluation: Any) -> None:
    result = evaluation.json()
    assert set(result["histograms"]) == {"pitch_class", "duration"}
    for row in result["histograms"].values():
        assert 0 <= row["distance"] <= 1
        assert 0 <= row["distance_between_halves_of_the_data"] <= 1
        assert Path(row["figure"]).read_bytes()[:4] == b"\x89PNG"
    written = Path(result["written"])
    kept = json.loads(written.read_text())
    assert kept == {name: value for name, value in result.items() if name != "written"}
    assert kept["data"]["rule"] == "the split of tiny.json"


def test_performances_and_accompaniments(
    manyheads: Manyheads, piano_run: Path, midi_folder: Path, accompany_run: Path, pop909: Path, tmp_path: Path
) -> None:
    for run, data in ((piano_run, midi_folder), (accompany_run, pop909)):
        options = ("--split", "valid", "--samples", 1, "--tempo", 300, "--out", tmp_path / run.name, "--json")
        result = manyheads("music", "evaluate", "--checkpoint", run, "--data", data, *options).json()
        card = json.loads((run / "model.json").read_text())
        assert result["nll_per_token"] == pytest.approx(card["metrics"]["valid_nll"], rel=1e-4)
        assert "voices" not in result
        assert "note" not in result
        assert len(result["skipped"]) == card["data"]["skipped"]
        assert bool(result["histograms"]) == (run == piano_run)
