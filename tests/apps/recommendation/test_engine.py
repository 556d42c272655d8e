"""RecBole's pipeline trains our model, and its models are ranked in our protocol."""

import itertools
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.recommendation.config import RecommendationConfig
from apps.recommendation.engine import session, train_in_recbole
from apps.recommendation.engine.model import to_left
from apps.recommendation.engine.training import prepare_in_recbole, write_atomic
from apps.recommendation.evaluate import rank
from apps.recommendation.histories import Events, make_histories
from shared.config import load_config


@pytest.fixture(scope="module")
def histories(rows: list[list[int]]):
    events = [(str(user), str(item)) for user, row in enumerate(rows) for item in row]
    return make_histories(Events("ring", [u for u, _ in events], [i for _, i in events]))


def test_padding_moves_to_the_left() -> None:
    seq = torch.tensor([[4, 5, 0, 0], [1, 2, 3, 4], [9, 0, 0, 0]])
    wanted = [[0, 0, 4, 5], [1, 2, 3, 4], [0, 0, 0, 9]]
    assert to_left(seq, torch.tensor([2, 4, 1])).tolist() == wanted


def test_recbole_trains_mqsated(histories, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through Config(model=MQSATED), RecBole's data, trainer and early stopping; then ranked by us."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["manyheads", "recommendation", "compare", "--epochs=99", "--topk=[1]"])
    config = load_config(RecommendationConfig, None, ["model.dim=16", "model.length=12"])
    scorer = train_in_recbole(
        "MQSATED", histories, config, seed=0, epochs=8, learning_rate=0.01, train_batch_size=64, hidden_dropout_prob=0.1
    )
    assert scorer.facts["epochs"] == 8
    assert scorer.facts["samples"] == sum(len(row) - 1 for row in histories.training())
    assert rank(scorer, histories, "test", seen=False).means()["hr@5"] > 0.5
    assert scorer.facts["valid_ndcg@20"] > 0.4
    # RecBole's own ranking of the same items agrees, but for the history, which it ranks too.
    ours = rank(scorer, histories, "valid", seen=True).means()["ndcg@20"]
    assert ours == pytest.approx(scorer.facts["valid_ndcg@20"], abs=0.02)
    assert sys.argv[-1] == "--topk=[1]"
    assert not list(tmp_path.iterdir())


def test_config_takes_the_class_and_the_scores_fit(histories) -> None:
    with session() as folder:
        write_atomic(histories, folder)
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation

        from apps.recommendation.engine import MQSATED

        settings = {"data_path": str(folder), "train_neg_sample_args": None, "use_gpu": False, "gpu_id": ""}
        settings |= {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "windows": [1, 4], "hidden_size": 8}
        settings |= {
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
        }
        config = Config(model=MQSATED, dataset="histories", config_dict=settings)
        train_data, _, test_data = data_preparation(config, create_dataset(config))
        model = MQSATED(config, train_data.dataset)
        batch = next(iter(train_data))
        loss = model.calculate_loss(batch)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        model.eval()
        interaction = next(iter(test_data))[0]
        with torch.no_grad():
            whole = model.full_sort_predict(interaction)
            one = model.predict(interaction)
        numbers = interaction["item_id"]
        torch.testing.assert_close(one, whole[torch.arange(len(numbers)), numbers])
        counted = int(np.diff(model.teacher.start.numpy()).sum())
        pairs = {(a, b) for row in histories.training() for a, b in itertools.pairwise(row)}
        assert counted == len(pairs)


def test_our_model_has_the_settings_of_the_run_in_recbole_too(histories) -> None:
    sets = ["model.windows=[1, 2, 4]", "model.weights=[0.4, 0.3, 0.3]", "model.heads=2", "model.dropout=0.2"]
    sets += ["ted.weight=0.3", "ted.temperature=0.2", "model.dim=16", "model.length=12"]
    config = load_config(RecommendationConfig, None, sets)
    with prepare_in_recbole("MQSATED", histories, config, seed=0, epochs=1) as (_, model, _, _):
        branches = model.model.branches
        assert [branch.window for branch in branches.branches] == [1, 2, 4]
        assert branches.weights == [0.4, 0.3, 0.3]
        assert branches.branches[0].attention.heads == 2
        assert model.model.dropout.p == 0.2
        assert (model.ted_weight, model.temperature) == (0.3, 0.2)


def test_recboles_own_models_run(histories) -> None:
    config = load_config(RecommendationConfig, None, ["model.dim=16", "model.length=12"])
    for name in ("SASRec", "GRU4Rec"):
        scorer = train_in_recbole(name, histories, config, seed=0, epochs=1)
        assert rank(scorer, histories, "test", seen=False).metrics["hr@5"].shape == (120,)


def test_a_session_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    before = list(sys.argv)
    with session() as folder:
        assert Path.cwd().resolve() == folder.resolve()
        assert sys.argv == before[:1]
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert not folder.exists()
    assert Path.cwd() == tmp_path
    assert "recbole.quick_start" not in sys.modules
