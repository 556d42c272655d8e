"""`--data` and `--labels`: whatever they name, as bags."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from apps.wsi.bags import Bag, Bags, check_bags
from apps.wsi.classic import NAMES, read_classic, read_csv
from apps.wsi.layouts import Features, find_features, read_features
from apps.wsi.slide import SUFFIXES
from shared.errors import InputError
from shared.io.files import input_file

SLIDE, LABEL, PATIENT = ("slide", "slide_id", "bag"), ("label", "class", "target"), ("patient", "patient_id", "case_id")
ENDINGS = (*SUFFIXES, ".h5", ".pt")


@dataclass(frozen=True)
class Labels:
    """What a table says of slides, by their names without the ending: label, patient and, if given, split."""

    path: Path
    label: dict[str, str]
    patient: dict[str, str]
    split: dict[str, str]


def read_labels(path: Path) -> Labels:
    """A CSV table with a head: `slide`, `label`, and if known `patient` and `split` (also CLAM's slide_id, case_id).

    Between the columns stand commas, semicolons (as spreadsheets write where the comma is the decimal sign) or tabs.
    Raises InputError that names the column or the line.
    """
    try:
        text = input_file(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: is not text in UTF-8; save it as a CSV (UTF-8) with the columns slide, label"
        ) from None
    head = text.partition("\n")[0]
    rows = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=head.count))
    columns = [name.strip().lower() for name in rows.fieldnames or []]
    rows.fieldnames = columns
    slide, label = (next((n for n in names if n in columns), None) for names in (SLIDE, LABEL))
    patient = next((n for n in PATIENT if n in columns), None)
    if slide is None or label is None:
        raise InputError(f"{path}: has the columns {', '.join(columns)}; it needs slide and label")
    found = Labels(path, {}, {}, {})
    for number, row in enumerate(rows, 2):
        name = stem_of((row[slide] or "").strip())
        if not name or not (row[label] or "").strip():
            raise InputError(f"{path}: line {number}: lacks a slide or a label; fill it in or drop the line")
        if name in found.label:
            raise InputError(f"{path}: line {number}: the slide {name} is there twice; keep one line")
        person = (row[patient] or "").strip() if patient else name
        if not person:  # taken for a patient of its own, the slide could be parted from the others of its patient
            raise InputError(f"{path}: line {number}: lacks its {patient}; fill it in, or drop the column")
        found.label[name] = row[label].strip()
        found.patient[name] = person
        found.split[name] = (row.get("split") or "").strip()
    if not found.label:
        raise InputError(f"{path}: has no line below its head; add the slides")
    return found


def stem_of(name: str) -> str:
    return next((name[: -len(ending)] for ending in ENDINGS if name.lower().endswith(ending)), name)


def read_data(
    data: Path | None, labels: Path | None = None, *, labelled: bool = True, classes: tuple[str, ...] = ()
) -> Bags:
    """The data set that `--data` names: musk1, musk2, elephant, ucsb, digits; a MIL table; a folder of features.

    Slides without a label are left out when `labelled`. `classes` fixes the order of the classes (a trained model's);
    a label that is none of them is refused.
    """
    if data is None:
        raise InputError(f"--data: is required; name a folder of features, a CSV table, or one of {', '.join(NAMES)}")
    if str(data) in NAMES and not data.exists():
        return read_classic(str(data))
    if not data.exists():
        raise InputError(f"{data}: no such file or folder, nor one of {', '.join(NAMES)}; check the path")
    if data.is_file() and data.suffix.lower() == ".csv":
        return read_csv(data)
    table = read_labels(labels) if labels is not None else None
    slides = [slide for file in find_features(data) for slide in read_features(file)]
    known = {slide.name: label_of(slide, table) for slide in slides}
    if labelled:
        if not any(known.values()):
            name = slides[0].name
            hint = f"none of its slides (such as {name}) is in {labels}" if labels else "its slides have no labels"
            raise InputError(f"{data}: {hint}; give --labels with the columns slide and label")
        slides = [slide for slide in slides if known[slide.name]]
    names = classes or tuple(sorted({label for label in known.values() if label}))
    digest = hashlib.sha256()
    bags = []
    for slide in slides:
        label = known[slide.name]
        if label and label not in names:
            raise InputError(
                f"{labels or data}: {slide.name} has the label {label}; the model knows {', '.join(names)}"
            )
        digest.update(f"{slide.name}\0{label}\0".encode() + slide.features.tobytes())
        patient = table.patient.get(stem_of(slide.name), slide.name) if table else slide.name
        part = table.split.get(stem_of(slide.name), "") if table else ""
        index = names.index(label) if label else None
        bags.append(Bag(slide.name, slide.features, index, patient, source=slide.source, split=part))
    check_bags(bags, str(data))
    return Bags(data.name, tuple(bags), names, digest.hexdigest())


def label_of(slide: Features, table: Labels | None) -> str | None:
    """What the table says of a slide; without a table, what its file says."""
    return table.label.get(stem_of(slide.name)) if table else slide.label
