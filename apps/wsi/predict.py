"""`predict`: the class of slides, of a trained model."""

import csv
import io
from pathlib import Path

from apps.wsi.bags import Bag
from apps.wsi.classifier import Classifier, bag_of, features_of
from apps.wsi.layouts import find_features, read_features
from apps.wsi.metrics import attention_measures
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
                bags.append(bag_of(features_of(classifier, path, mpp)))
            except InputError as error:
                failed.append(str(error))
        if not bags:
            raise ManyheadsError(f"{data}: no slide could be read; the first: {failed[0]}")
        return bags, failed
    if data.is_file() and data.suffix.lower() in SUFFIXES:
        return [bag_of(features_of(classifier, data, mpp))], []
    if data.suffix.lower() == ".csv":
        return list(read_data(data).bags), []
    return [bag_of(slide) for file in find_features(data) for slide in read_features(file)], []
