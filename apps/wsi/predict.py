"""`predict`, `evaluate`, `compare`: a trained model on bags."""

import csv
import io
from pathlib import Path

import numpy as np

from apps.wsi.bags import Bag, Bags
from apps.wsi.classifier import Classifier, bag_of, check_classes_of
from apps.wsi.layouts import find_features, read_features
from apps.wsi.metrics import (
    attention_measures,
    draws,
    interval,
    metrics,
    pairs,
    patient_interval,
    sign_flip,
    softmax,
    weighted_auroc,
)
from apps.wsi.read import read_data
from apps.wsi.slide import SUFFIXES, find_slides
from shared.errors import InputError, ManyheadsError
from shared.io.files import output_folder, write_json, write_text


def predict(classifier: Classifier, data: Path, out: Path, mpp: float | None) -> dict:
    """The class of every slide in `data`: slides, features, or a folder of either. Writes predictions.csv and .json.

    Probabilities are at the temperature that was fitted on the validation bags. Of several slides, one that cannot be
    read is told of. Raises InputError for one slide that fails, ManyheadsError when all do.
    """
    bags, failed = user_bags(classifier, data, mpp)
    logits, weights = classifier.predict(bags)
    chances = classifier.probabilities(logits)
    rows = []
    for bag, chance, weight in zip(bags, chances, weights, strict=True):
        rows.append(
            {
                "slide": bag.name,
                "prediction": classifier.classes[int(chance.argmax())],
                **{f"p {name}": round(float(p), 5) for name, p in zip(classifier.classes, chance, strict=True)},
                "tiles": len(bag.features),
                "top10_mass": round(attention_measures(weight, None)["top10_mass"], 4),
            }
        )
    output_folder(out)
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "predictions.csv", table.getvalue())
    model = {"path": str(classifier.path), "sha256": classifier.card["sha256"], "temperature": classifier.temperature}
    write_json(out / "predictions.json", {"model": model, "predictions": rows, "failed": failed})
    written = str(out / "predictions.csv")
    return {"written": written, "model": str(classifier.path), "predictions": rows, "failed": failed}


def user_bags(classifier: Classifier, data: Path, mpp: float | None) -> tuple[list[Bag], list[str]]:
    """The bags of slides (encoded now), of features or of a table; and what is wrong with slides that fail."""
    if not data.exists():
        raise InputError(f"{data}: no such file or folder; check the path")
    if data.is_dir() and any(file.suffix.lower() in SUFFIXES for file in data.iterdir()):
        bags, failed = [], []
        for path in find_slides(data):
            try:
                bags.append(bag_of(classifier, path, mpp)[0])
            except InputError as error:
                failed.append(str(error))
        if not bags:
            raise ManyheadsError(f"{data}: no slide could be read; the first: {failed[0]}")
        return bags, failed
    if data.is_file() and data.suffix.lower() in SUFFIXES:
        return [bag_of(classifier, data, mpp)[0]], []
    if data.suffix.lower() == ".csv":
        return list(read_data(data).bags), []
    slides = [slide for file in find_features(data) for slide in read_features(file)]
    return [Bag(slide.name, slide.features, None, slide.name, source=slide.source) for slide in slides], []


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


def compare(
    classifiers: list[Classifier], data: Path | None, labels: Path | None, split: str | None, out: Path
) -> dict:
    """Models on the same bags, each against the first: paired differences with intervals, a test by flipping signs."""
    rows, kept = [], []
    for classifier in classifiers:
        bags = labelled(classifier, data, labels, split)
        logits, _ = classifier.predict(list(bags.bags))
        truth, patients = bags.labels, bags.patients.tolist()
        raw = softmax(logits)
        right = (raw.argmax(1) == truth).astype(float)
        areas = weighted_auroc(pairs(raw[None], truth), truth, draws(patients))
        row = {"model": str(classifier.path), **metrics(raw, truth)}
        row |= {"accuracy_95": patient_interval(right, patients), "auroc_95": interval(areas)}
        if kept:
            difference = right - kept[0][0]
            row["accuracy_difference"] = float(difference.mean())
            row["accuracy_difference_95"] = patient_interval(difference, patients)
            row["accuracy_p"] = sign_flip(difference, patients)
            row["auroc_difference_95"] = interval(areas - kept[0][1])
        kept.append((right, areas))
        rows.append(row)
    result = {"data": bags.summary(), "split": split, "models": rows}
    write_json(output_folder(out) / "comparison.json", result)
    return {**result, "written": str(out / "comparison.json")}
