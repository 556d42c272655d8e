"""`compare`: trained models on the same bags."""

from pathlib import Path

from apps.wsi.classifier import Classifier
from apps.wsi.evaluate import labelled
from apps.wsi.metrics import draws, interval, metrics, pairs, patient_interval, sign_flip, softmax, weighted_auroc
from shared.io.files import output_folder, write_json


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
