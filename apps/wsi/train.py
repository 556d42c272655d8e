"""`train`: from bags to a run folder with a model that the other verbs use."""

import json
import math
from pathlib import Path

import numpy as np

from apps.wsi.bags import Bags, standard
from apps.wsi.config import WsiConfig
from apps.wsi.data import BagData
from apps.wsi.extract import SETTINGS
from apps.wsi.folds import predict_bags
from apps.wsi.metrics import fit_temperature, metrics, softmax
from apps.wsi.model import architecture, build_model
from apps.wsi.read import read_data
from apps.wsi.splits import holdout, leakage
from apps.wsi.task import BagTask
from shared.command import is_main_process
from shared.errors import InputError
from shared.io.files import read_json, to_json, write_json
from shared.report.learning_curve import learning_curve
from shared.training.checkpoint import save_model
from shared.training.run_folder import refuse_to_overwrite, start_run
from shared.training.seeds import seed_everything
from shared.training.trainer import Hardware, fit

DATA = "data.json"  # in a run folder: what it is trained on, and which bags it was validated on


def train(
    config: WsiConfig,
    data: Path | None,
    labels: Path | None,
    out: Path,
    *,
    seed: int,
    resume: bool,
    hardware: Hardware,
) -> dict:
    """Train on bags into the run folder `out`; returns what came of it.

    With a column `split` in the labels, `train` is trained on and `valid` validated on; a `test` is left alone. Without
    it, `train.valid` of the patients are for validation. Raises InputError for data that cannot be trained on, for a
    patient in two parts, and when `out` holds another run.
    """
    hardware.check()
    if not resume:
        refuse_to_overwrite(out)
    bags = read_data(data, labels)
    inside, valid = parts(bags, config.train.valid, seed)
    module = BagData(bags, inside, valid, config.train, seed, hardware.processes)
    arguments = architecture(config.model, bags.features, len(bags.classes))
    seed_everything(seed)
    task = BagTask(arguments, config.train, config.train.epochs * math.ceil(len(inside) / config.train.batch))
    if config.train.standardise:
        centre, scale = standard([bags.bags[index].features for index in inside])
        task.model.embedding.centre.copy_(centre)  # pyright: ignore
        task.model.embedding.scale.copy_(scale)  # pyright: ignore
    names = [bags.bags[index].name for index in valid]
    about = {**bags.summary(), "trained_on": len(inside), "validated_on": names}
    if resume:
        _same_data(out, about)
    start_run(out, config, resume)
    if is_main_process():
        write_json(out / DATA, about)
    result = fit(
        task,
        module,
        out,
        seed=seed,
        max_epochs=config.train.epochs,
        monitor="valid/loss",
        patience=config.train.patience,
        gradient_clip=1.0,
        hardware=hardware,
        resume=resume,
    )
    model = build_model(arguments)
    model.load_state_dict(result.best_state)
    held = [bags.bags[index] for index in valid]
    logits, _ = predict_bags(model.eval(), held)
    truth = bags.labels[valid]
    temperature = fit_temperature(logits, truth)
    found = {"valid_loss": result.best, "best_epoch": result.best_epoch, "epochs": result.epochs}
    found |= {f"valid_{key}": value for key, value in metrics(softmax(logits), truth).items() if key != "nll"}
    card = {
        "app": "wsi",
        "architecture": arguments,
        "classes": list(bags.classes),
        "temperature": temperature,
        "extraction": _extraction(data),
        "data": bags.summary(),
        "seed": seed,
        "metrics": found,
    }
    weights = save_model(out, result.best_state, card)
    losses = {"train/loss": "training (all terms)", "valid/loss": "validation (bag cross-entropy)"}
    curve = learning_curve(out, ("loss", losses))
    return {"model": str(weights), "figure": str(curve), "finished": result.finished, **found}


def parts(bags: Bags, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the bags to train on and to validate on."""
    split = np.array([bag.split for bag in bags.bags])
    leaks = leakage([bag.name for bag in bags.bags], bags.patients.tolist(), split.tolist())
    if leaks:
        raise InputError(
            f"{bags.name}: the patient {leaks[0]['patient']} is in {' and '.join(leaks[0]['parts'])} "
            f"({len(leaks)} such patients); put each in one part"
        )
    if not split.any():
        return holdout(bags, share, seed)
    inside, valid = np.flatnonzero(split == "train"), np.flatnonzero(np.isin(split, ["valid", "val"]))
    if not len(inside):
        raise InputError(f"{bags.name}: no bag is in the split train; name the parts train, valid and test")
    if not len(valid):
        chosen = bags.part("train")
        a, b = holdout(chosen, share, seed)
        return inside[a], inside[b]
    for name, indices in (("train", inside), ("valid", valid)):
        if len(set(bags.labels[indices])) < 2:
            raise InputError(f"{bags.name}: the split {name} holds one class only; it needs two")
    return inside, valid


def _same_data(run: Path, about: dict) -> None:
    path = run / DATA
    if not path.exists():
        return
    before = read_json(path)
    if before["sha256"] != about["sha256"]:
        raise InputError(f"{path}: the run began with other data ({before['name']}); resume it with the same --data")
    if before != json.loads(to_json(about)):
        raise InputError(f"{path}: the run began with other slides to validate on; resume it with the same --labels")


def _extraction(data: Path | None) -> dict | None:
    """How the features were made, where `extract` made them: so that a slide file can be predicted as it is."""
    if data is None:
        return None
    for folder in (data, data.parent):
        if (folder / SETTINGS).exists():
            return read_json(folder / SETTINGS)
    return None
