"""MEDUSA as a classifier: what a slice shows, learned from a table of cases or from the label maps.

`classes.csv` in the data folder (columns `case` and `class`) gives every slice the class of its case. Without it a
slice's class is the label that fills most of it, or `none`.
"""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from apps.medical.cases import SPLITS, Case, find_cases, split_cases
from apps.medical.config import DataConfig, MedicalConfig
from apps.medical.data import Dataset, Slices, input_channels, moved, prepare, read_case, read_dataset
from apps.medical.figures import grey_range, show_slice
from apps.medical.networks import architecture
from apps.medical.predict import read_scans
from apps.medical.segmenter import load
from shared.attention.record import record_attention
from shared.command import progress
from shared.errors import InputError
from shared.io.files import input_file, output_folder, write_json
from shared.report.figures import new_figure, save_figure
from shared.report.learning_curve import learning_curve
from shared.training.checkpoint import save_model
from shared.training.seeds import seed_everything
from shared.training.trainer import Hardware

TABLE = "classes.csv"
NONE = "none"


def read_table(path: Path, cases: list[Case]) -> dict[str, str]:
    """The class of each case. Raises InputError for a table without the columns, or without one of the cases."""
    rows = list(csv.DictReader(input_file(path).read_text(encoding="utf-8").splitlines()))
    if not rows or not {"case", "class"} <= rows[0].keys():
        raise InputError(f"{path}: needs the columns case and class; add the line of headings")
    table = {row["case"]: row["class"] for row in rows}
    if missing := next((case.name for case in cases if not table.get(case.name)), None):
        raise InputError(f"{path}: has no class for the case {missing}; add its line")
    return table


@dataclass(frozen=True)
class Labelled:
    """Slices of all cases with their classes (numbers of `classes`), by split."""

    dataset: Dataset
    classes: tuple[str, ...]
    numbers: dict[str, list[np.ndarray]]  # for each split and case (S,)


def read_labelled(config: DataConfig, data: Path | None) -> Labelled:
    """Read all cases with their classes. Raises InputError as `read_dataset`, and for fewer than two classes."""
    cases, names = find_cases(data, config)
    table = cases[0].images[0].parent.parent / TABLE  # beside images/
    if not table.exists():
        dataset = read_dataset(cases, names, config, data.name if data else "the embedded CT")
        classes = (NONE, *dataset.labels)
        numbers = {split: [by_label(one, len(classes)) for one in mine] for split, mine in dataset.splits.items()}
    else:
        given = read_table(table, cases)
        classes = tuple(sorted(set(given.values())))
        with progress() as bar:
            read = {c.name: read_case(c, config, labelled=False) for c in bar.track(cases, description="cases")}
        split = split_cases(cases, config)
        splits = {part: [read[case.name] for case in split[part]] for part in SPLITS}
        channels = next(iter(read.values())).images.shape[1]
        digest = "".join(sorted(one.sha256 for one in read.values()))
        dataset = Dataset(
            data.name if data else "the embedded CT",
            splits,
            classes,
            channels,
            hashlib.sha256(digest.encode()).hexdigest(),
            f"fold {config.fold} of {config.folds} by patients",
        )
        numbers = {
            part: [np.full(len(one.images), classes.index(given[one.case.name])) for one in mine]
            for part, mine in splits.items()
        }
    if len(classes) < 2:
        source = table if table.exists() else data
        raise InputError(f"{source}: holds a single class ({classes[0]}); give cases of two classes or more")
    return Labelled(dataset, classes, numbers)


def by_label(one: Slices, count: int) -> np.ndarray:
    """(S,) the label that fills most of each slice, 0 where there is none."""
    assert one.labels is not None
    sizes = np.stack([(one.labels == k).sum((1, 2)) for k in range(count)], 1)
    sizes[:, 0] = 0
    return np.where(sizes.any(1), sizes.argmax(1), 0)


class ClassificationData(lightning.LightningDataModule):
    """Batches with all classes alike: a class is drawn, then one of its slices. x (B, C, H, W), y (B,)."""

    def __init__(
        self, labelled: Labelled, config: DataConfig, *, batch: int, steps: int, seed: int, processes: int
    ) -> None:
        super().__init__()
        self.labelled, self.config = labelled, config
        self.batch, self.steps, self.seed, self.processes = batch, steps, seed, processes
        train = labelled.numbers["train"]
        places = [(i, s, k) for i, numbers in enumerate(train) for s, k in enumerate(numbers)]
        self.places = np.array(places)
        self.present = sorted({int(k) for _, _, k in places})

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        rng = np.random.default_rng((self.seed, epoch))
        count = self.steps * self.batch
        drawn = rng.choice(self.present, size=count)
        rows = np.empty((count, 3))
        for number in self.present:
            mine = self.places[self.places[:, 2] == number]
            chosen = drawn == number
            rows[chosen] = mine[rng.integers(len(mine), size=int(chosen.sum()))]
        draws = np.concatenate([rows, rng.random((count, 8))], 1)
        return DataLoader(
            TensorDataset(torch.from_numpy(draws)), batch_size=self.batch // self.processes, collate_fn=self.collate
        )

    def collate(self, rows) -> dict[str, torch.Tensor]:
        draws = torch.stack([row for (row,) in rows]).numpy()
        cases = self.labelled.dataset.splits["train"]
        x = np.stack([fitted(cases[int(row[0])], int(row[1]), self.config, row[3:5]) for row in draws])
        empty = torch.zeros(len(x), *x.shape[2:], dtype=torch.long)
        images, _ = moved(torch.from_numpy(x), empty, draws[:, 5:], self.config, 2)
        return {"x": images, "y": torch.from_numpy(draws[:, 2]).long()}

    def val_dataloader(self) -> DataLoader:
        places = [(i, s) for i, one in enumerate(self.labelled.dataset.splits["valid"]) for s in range(len(one.images))]
        return DataLoader(places, batch_size=4 * self.batch, collate_fn=self.collate_whole)

    def collate_whole(self, places) -> dict[str, torch.Tensor]:
        cases, numbers = self.labelled.dataset.splits["valid"], self.labelled.numbers["valid"]
        x = np.stack([fitted(cases[i], s, self.config, np.array([0.5, 0.5])) for i, s in places])
        return {"x": torch.from_numpy(x), "y": torch.tensor([int(numbers[i][s]) for i, s in places])}


def fitted(one: Slices, at: int, config: DataConfig, shares: np.ndarray) -> np.ndarray:
    """A crop of `patch` of a slice (C, H, W), placed by two shares."""
    height, width = config.patch
    top = int(min(shares[0], 0.999) * (one.images.shape[2] - height + 1))
    left = int(min(shares[1], 0.999) * (one.images.shape[3] - width + 1))
    return one.stack(np.array([at]), config)[0, :, top : top + height, left : left + width]


def train_classifier(
    config: MedicalConfig, data: Path | None, out: Path, *, seed: int, resume: bool, hardware: Hardware
) -> dict[str, Any]:
    """`train` for `model.kind = "medusa"`. The card's metric on the test split is per slice, all classes alike."""
    from apps.medical.task import ClassificationTask
    from apps.medical.train import names_of, run

    hardware.check()
    labelled = read_labelled(config.data, data)
    dataset, train = labelled.dataset, config.train
    module = ClassificationData(
        labelled, config.data, batch=train.batch, steps=train.steps, seed=seed, processes=hardware.processes
    )
    channels = input_channels(dataset.channels, config.data)
    seed_everything(seed)
    task = ClassificationTask(config, channels, len(labelled.classes))
    result = run(task, module, config, dataset, out, "valid/accuracy", seed=seed, resume=resume, hardware=hardware)
    task.model.load_state_dict(result.best_state)
    metrics = {
        "valid_accuracy": result.best,
        "best_epoch": result.best_epoch,
        **test_accuracy(task.model.eval(), labelled, config.data),
    }
    card = {
        "app": "medical",
        "architecture": architecture(config.model, channels, len(labelled.classes)),
        "labels": list(labelled.classes),
        "preprocessing": config.data.model_dump(mode="json"),
        "data": dataset.summary(),
        "split": names_of(dataset),
        "seed": seed,
        "metrics": metrics,
    }
    weights = save_model(out, result.best_state, card)
    figure = learning_curve(
        out,
        ("loss", {"train/loss": "training"}),
        ("accuracy, classes alike", {"valid/accuracy": "validation slices"}),
    )
    return {"model": str(weights), "figure": str(figure), "finished": result.finished, **metrics, "data": card["data"]}


@torch.inference_mode()
def test_accuracy(model: torch.nn.Module, labelled: Labelled, config: DataConfig) -> dict[str, float]:
    """Share of right slices of the test split: each class alike (balanced), and of all; beside the commonest class."""
    right: dict[int, list[bool]] = {}
    for one, numbers in zip(labelled.dataset.splits["test"], labelled.numbers["test"], strict=True):
        found = whole_probabilities(model, one, config).argmax(1)
        for truth, guess in zip(numbers, found, strict=True):
            right.setdefault(int(truth), []).append(int(guess) == int(truth))
    every = [one for part in right.values() for one in part]
    return {
        "test_balanced_accuracy": float(np.mean([np.mean(part) for part in right.values()])),
        "test_accuracy": float(np.mean(every)),
        "test_commonest_class": max(len(part) for part in right.values()) / len(every),
        "test_slices": len(every),
    }


@torch.inference_mode()
def whole_probabilities(model: torch.nn.Module, one: Slices, config: DataConfig, batch: int = 32) -> np.ndarray:
    """(S, K) of the middle crop of every slice."""
    parts = []
    device = next(model.parameters()).device
    for start in range(0, len(one.images), batch):
        at = range(start, min(start + batch, len(one.images)))
        x = np.stack([fitted(one, s, config, np.array([0.5, 0.5])) for s in at])
        parts.append(model(torch.from_numpy(x).to(device)).softmax(1).cpu().numpy())
    return np.concatenate(parts)


def classify(given: list[Path], checkpoint: Path, out: Path, *, device: str) -> dict[str, Any]:
    """What each scan and each of its slices shows: classification.json, and a picture with MEDUSA's attention.

    A scan's class is that of the mean over its slices' probabilities, `none` left out where there is such a class.
    Raises InputError for an unfit scan and for a model that is not MEDUSA's; nothing is written then.
    """
    classifier = load(checkpoint, device, ("medusa",))
    model, classes = classifier.models[0], classifier.labels
    scans = read_scans(given, classifier.channels)
    folder = output_folder(out)
    rows, detail, written = [], {}, []
    for scan in scans:
        name = scan.name
        one = prepare(scan.images, classifier.config, scan.case())
        found = whole_probabilities(model, one, classifier.config)
        mean = found.mean(0)
        ranked = [k for k in np.argsort(-mean) if classes[k] != NONE]
        rows.append(
            {"scan": name, "class": classes[ranked[0]], **{c: float(p) for c, p in zip(classes, mean, strict=True)}}
        )
        detail[name] = [classes[k] for k in found.argmax(1)]
        picture = folder / f"{name}_medusa.png"
        draw(picture, model, one, found, classifier.config, classes)
        written.append(str(picture))
    write_json(folder / "classification.json", {"model": classifier.card["sha256"], "scans": rows, "slices": detail})
    return {"scans": rows, "written": [*written, str(folder / "classification.json")]}


@torch.inference_mode()
def draw(path: Path, model, one: Slices, found: np.ndarray, config: DataConfig, classes: list[str]) -> None:
    """The classes of all slices from end to end, and three slices, below each what the first head weighs."""
    count = len(found)
    chosen = [int(i) for i in np.linspace(0, count - 1, 5)[1:-1]]
    figure = new_figure(10, 7)
    grid = figure.add_gridspec(3, 3, height_ratios=(1, 1.4, 1.4))
    axes = figure.add_subplot(grid[0, :])
    axes.stackplot(range(count), found.T, labels=classes, alpha=0.85)
    axes.set(xlabel="slice", ylabel="probability", xlim=(0, count - 1), ylim=(0, 1))
    axes.legend(loc="upper right", ncols=len(classes))
    x = np.stack([fitted(one, s, config, np.array([0.5, 0.5])) for s in chosen])
    with record_attention(model) as maps:
        model(torch.from_numpy(x).to(next(model.parameters()).device))
    heads = [weights[0][:, 0].cpu().numpy() for name, weights in maps.items() if "heads" in name]
    seen = x[:, (config.context // 2) * (one.images.shape[1])]
    greys = grey_range(seen, None)
    for column, at in enumerate(chosen):
        for line in range(2):
            axes = figure.add_subplot(grid[1 + line, column])
            show_slice(axes, seen[column], one.grid, greys)
            if line:
                axes.imshow(
                    heads[0][column].T,
                    cmap="inferno",
                    alpha=0.6,
                    vmin=0,
                    vmax=1,
                    origin="lower",
                    extent=(-0.5, seen.shape[1] - 0.5, -0.5, seen.shape[2] - 0.5),
                    aspect="auto",
                )
            axes.set_xlim(seen.shape[1] - 0.5, -0.5)
            axes.set_title(
                f"head 1 weighs (slice {at + 1})" if line else f"slice {at + 1}: {classes[found[at].argmax()]}"
            )
    save_figure(figure, path)
