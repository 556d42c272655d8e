"""Cross-validation: stacked folds against trainings one by one, splits, metrics against scikit-learn, resuming."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from apps.wsi.bags import Bag, Bags, batches, pad, standard
from apps.wsi.classic import digit_bags, read_classic
from apps.wsi.config import TrainConfig, WsiConfig
from apps.wsi.crossval import cross_validate
from apps.wsi.folds import predict_bags, train_folds
from apps.wsi.metrics import auroc, draws, fit_temperature, metrics, pairs, sign_flip, softmax, weighted_auroc
from apps.wsi.model import bag_loss, build_model
from apps.wsi.splits import folds, holdout, leakage
from shared.errors import InputError

ARCHITECTURE = {"kind": "acmil", "features": 6, "classes": 2, "width": 8, "hidden": 4, "branches": 2, "top": 0}


def toy(count: int = 24, patients: int | None = None, seed: int = 0) -> Bags:
    rng = np.random.default_rng(seed)
    bags = []
    for index in range(count):
        features = rng.normal(size=(int(rng.integers(1, 9)), 6)).astype(np.float32)
        features[0, 0] += 4 * (index % 2)
        bags.append(Bag(f"b{index}", features, index % 2, f"p{index % (patients or count)}"))
    return Bags("toy", tuple(bags), ("no", "yes"), "0")


def test_stacked_folds_are_the_same_as_trainings_one_by_one() -> None:
    data, config = toy(), TrainConfig(epochs=3, batch=8, learning_rate=0.01)
    members = np.stack([np.arange(24) % 3 != fold for fold in range(3)])
    stacked = train_folds(ARCHITECTURE, data.bags, members, config, seed=5)
    for row in range(3):
        torch.manual_seed(hash((5, row)) % 2**31)
        model = build_model(ARCHITECTURE).train()
        centre, scale = standard([bag.features for bag, inside in zip(data.bags, members[row], strict=True) if inside])
        model.embedding.centre.copy_(centre)
        model.embedding.scale.copy_(scale)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=config.weight_decay)
        step = 0
        for epoch in range(3):
            for part in batches([len(b.features) for b in data.bags], 8, np.random.default_rng((5, epoch))):
                optimizer.param_groups[0]["lr"] = 0.01 * 0.5 * (1 + np.cos(np.pi * step / 9))
                mine = [index for index in part if members[row][index]]
                x, keep = pad([data.bags[index].features for index in mine])
                optimizer.zero_grad()
                bag_loss(model(x, keep), torch.tensor([data.bags[i].label for i in mine])).mean().backward()
                optimizer.step()
                step += 1
        for name, value in model.state_dict().items():
            torch.testing.assert_close(stacked[row].state_dict()[name], value, atol=1e-5, rtol=1e-4)


def test_predictions_keep_the_order_of_the_bags() -> None:
    data = toy()
    torch.manual_seed(0)
    model = build_model(ARCHITECTURE).eval()
    logits, weights = predict_bags(model, data.bags, batch=5)
    for bag, mine, weight in zip(data.bags, logits, weights, strict=True):
        with torch.no_grad():
            alone = model(torch.from_numpy(bag.features)[None])
        np.testing.assert_allclose(alone.bag[0].numpy(), mine, atol=1e-5)
        assert weight.shape == (2, len(bag.features))


def test_a_patient_is_in_one_fold_only() -> None:
    data = toy(60, patients=20)
    fold = folds(data, 5, seed=1)
    for patient in set(data.patients):
        assert len(set(fold[data.patients == patient])) == 1
    assert not np.array_equal(fold, folds(data, 5, seed=2))
    inside, valid = holdout(data, 0.2, seed=0)
    assert not set(data.patients[inside]) & set(data.patients[valid])


def test_leakage_names_the_patient_and_the_parts() -> None:
    names, patients = ["b0", "b1", "b2", "b3"], ["p0", "p1", "p0", "p1"]
    assert leakage(names, patients, ["train", "train", "test", "train"]) == [
        {"patient": "p0", "parts": ["test", "train"], "bags": ["b0", "b2"]}
    ]
    assert leakage(names, patients, ["train", "test", "train", "test"]) == []
    assert leakage(names, patients, ["train", "test", "", "test"]) == []


def test_what_cannot_be_split_is_told() -> None:
    data = toy(6)
    single = Bags("toy", tuple(replace(bag, label=0) for bag in data.bags), ("no",), "0")
    with pytest.raises(InputError, match="all bags are of the class no"):
        folds(single, 2, 0)
    with pytest.raises(InputError, match="3 patients, which is too few for 5 folds"):
        folds(data, 5, 0)
    with pytest.raises(InputError, match="b1 has no label"):
        folds(Bags("toy", (data.bags[0], replace(data.bags[1], label=None)), ("no", "yes"), "0"), 2, 0)


@pytest.mark.parametrize("classes", [2, 3])
def test_auroc_equals_that_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % classes
    probabilities = softmax(rng.normal(size=(4, 60, classes)).round(1) + np.eye(classes)[labels])
    given = [p[:, 1] if classes == 2 else p for p in probabilities]
    wanted = np.mean([roc_auc_score(labels, p, multi_class="ovr") for p in given])
    assert auroc(probabilities, labels) == pytest.approx(wanted, abs=1e-12)
    weights = draws([str(i) for i in range(60)], samples=3)
    found = weighted_auroc(pairs(probabilities, labels), labels, weights)
    for row, weight in enumerate(weights):
        wanted = np.mean([roc_auc_score(labels, p, multi_class="ovr", sample_weight=weight) for p in given])
        assert found[row] == pytest.approx(wanted, abs=1e-9)


def test_temperature_finds_back_how_overconfident_logits_are() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 2)) * 2
    labels = (rng.random(4000) < softmax(logits)[:, 1]).astype(int)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.1)
    before, after = metrics(softmax(logits * 3), labels), metrics(softmax(logits * 3, 3.0), labels)
    assert after["calibration_error"] < before["calibration_error"] / 2
    assert after["auroc"] == pytest.approx(before["auroc"])
    assert fit_temperature(logits, logits.argmax(1)) == 1  # all right: the colder the better, which says nothing


def test_the_sign_test_knows_chance_from_a_difference() -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{i}" for i in range(100)]
    assert sign_flip(rng.normal(size=100), patients) > 0.05
    assert sign_flip(rng.normal(size=100) + 1, patients) < 0.001
    assert sign_flip(np.zeros(100), patients) == 1.0
    assert sign_flip(np.ones(100), patients) > 0  # of a sample of flips no chance is nothing


def test_digit_bags_share_no_image_between_groups() -> None:
    data = digit_bags()
    assert len(data.bags) == 200
    assert data.labels.sum() == 100
    for bag in data.bags:
        assert bag.truth.any() == bool(bag.label)
    groups: dict[str, set[bytes]] = {}
    for bag in data.bags:
        groups.setdefault(bag.patient, set()).update(row.tobytes() for row in bag.features)
    names = sorted(groups)
    shared = sum(len(groups[a] & groups[b]) for a in names for b in names if a < b)
    assert shared == 0


@pytest.mark.parametrize(("name", "bags", "features"), [("musk1", 92, 166), ("ucsb", 58, 708)])
def test_the_packaged_sets_are_what_they_should_be(name: str, bags: int, features: int) -> None:
    data = read_classic(name)
    assert (len(data.bags), data.features, len(data.classes)) == (bags, features, 2)


def test_cross_validation_beats_chance_and_resumes(wsi, tmp_path) -> None:
    common = ["--data", "digits", "--config", "classic", "--set", "train.epochs=12", "--folds", 4, "--json"]
    code, first = wsi("cross-validate", *common, "--models", "gated-abmil", "--repeats", 1, "--out", tmp_path / "cv")
    assert code == 0
    assert first["models"][0]["auroc"] > 0.8
    assert first["models"][0]["instance_auroc"] > 0.8
    kept = tmp_path / "cv" / "predictions" / "gated-abmil-0.json"
    before = kept.stat().st_mtime_ns
    again = ["--models", "gated-abmil,mean", "--repeats", 1, "--out", tmp_path / "cv", "--resume"]
    code, second = wsi("cross-validate", *common, *again)
    assert kept.stat().st_mtime_ns == before
    assert second["models"][0] == first["models"][0]
    assert {"accuracy_difference", "accuracy_p"} <= second["models"][1].keys()
    _, high = second["models"][1]["instance_auroc_difference_95"]  # of the mean, whose weights say nothing
    assert high < 0
    assert second["models"][1]["instance_auroc_p"] < 0.05
    code, line = wsi("cross-validate", *common, *again, "--set", "model.width=32")
    assert code == 2
    assert "config was another" in line
    code, line = wsi("cross-validate", *common, *again[:-1])
    assert code == 2
    assert "--resume" in line


def test_one_that_was_killed_between_two_files_goes_on_to_the_same(tmp_path) -> None:
    config = WsiConfig.model_validate({"model": {"width": 8, "hidden": 4}, "train": {"epochs": 3, "batch": 8}})

    def run(resume: bool) -> dict:
        return cross_validate(toy(), config, ["stkim"], tmp_path, count=3, repeats=3, seed=1, resume=resume)

    whole, last = run(False), tmp_path / "predictions" / "stkim-2.json"
    before = last.read_bytes()
    last.unlink()
    assert run(True)["models"] == whole["models"]
    assert last.read_bytes() == before
