"""`evaluate`: how good a trained model is on bags whose class is known."""

from pathlib import Path

import numpy as np

from apps.wsi.bags import Bags
from apps.wsi.classifier import Classifier, check_classes_of
from apps.wsi.metrics import (
    attention_measures,
    draws,
    interval,
    metrics,
    pairs,
    patient_interval,
    softmax,
    weighted_auroc,
)
from apps.wsi.read import read_data
from shared.io.files import output_folder, write_json


def labelled(classifier: Classifier, data: Path | None, labels: Path | None, split: str | None) -> Bags:
    """The bags of a split, with the model's classes."""
    bags = read_data(data, labels, classes=classifier.classes if labels else ())
    check_classes_of(classifier, bags)
    return bags.part(split) if split else bags


def evaluate(classifier: Classifier, data: Path | None, labels: Path | None, split: str | None, out: Path) -> dict:
    """AUROC, accuracy, balanced accuracy, macro F1 and calibration error, with intervals over patients; a figure."""
    bags = labelled(classifier, data, labels, split)
    logits, weights = classifier.predict(list(bags.bags))
    truth, patients = bags.labels, bags.patients.tolist()
    raw, scaled = softmax(logits), classifier.probabilities(logits)
    right = (raw.argmax(1) == truth).astype(float)
    result = {
        "model": str(classifier.path),
        "data": bags.summary(),
        "split": split,
        **metrics(raw, truth),
        "accuracy_95": patient_interval(right, patients),
        "auroc_95": interval(weighted_auroc(pairs(raw[None], truth), truth, draws(patients))),
        "temperature": classifier.temperature,
        "calibration_error_scaled": metrics(scaled, truth)["calibration_error"],
        "confusion": _confusion(truth, raw.argmax(1), classifier.classes),
    }
    measures = [attention_measures(one, bag.truth) for one, bag in zip(weights, bags.bags, strict=True)]
    for key in ("top10_mass", "overlap", "instance_auroc", "coverage"):
        values = [one[key] for one in measures if key in one]
        if values:
            result[key] = float(np.mean(values))
    if (classifier.card.get("data") or {}).get("sha256") == bags.sha256 and not split:
        result["note"] = "the model was trained on bags of this very data; these figures flatter it"
    output_folder(out)
    result["figure"] = str(_figure(raw, scaled, truth, classifier.classes, out))
    write_json(out / "evaluation.json", result)
    return result


def _confusion(truth: np.ndarray, found: np.ndarray, classes: tuple[str, ...]) -> list[dict]:
    return [
        {"truth": name, **{other: int(((truth == i) & (found == j)).sum()) for j, other in enumerate(classes)}}
        for i, name in enumerate(classes)
    ]


def _figure(raw: np.ndarray, scaled: np.ndarray, truth: np.ndarray, classes: tuple[str, ...], out: Path) -> Path:
    from sklearn.metrics import roc_curve

    from shared.report.figures import new_figure, save_figure

    figure = new_figure(9, 4)
    left, right = figure.subplots(1, 2)
    for index, name in enumerate(classes):
        if (len(classes) == 2 and index == 0) or len(set(truth == index)) < 2:
            continue
        false, true, _ = roc_curve(truth == index, raw[:, index])
        left.plot(false, true, label=name)
    left.plot([0, 1], [0, 1], color="#888888", linewidth=0.8)
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    left.legend()
    edges = np.linspace(0, 1, 11)
    for values, label in ((raw, "as trained"), (scaled, "temperature scaled")):
        top, hit = values.max(1), values.argmax(1) == truth
        bins = np.clip(np.digitize(top, edges) - 1, 0, 9)
        used = [b for b in range(10) if (bins == b).any()]
        right.plot([top[bins == b].mean() for b in used], [hit[bins == b].mean() for b in used], "o-", label=label)
    right.plot([0, 1], [0, 1], color="#888888", linewidth=0.8)
    right.set(xlabel="top probability", ylabel="share that is right", title="calibration", xlim=(0, 1), ylim=(0, 1.02))
    right.legend()
    path = out / "evaluation.png"
    save_figure(figure, path)
    return path
