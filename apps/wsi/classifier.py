"""A trained model, ready to be used: loaded from what `train` or `load-authors` wrote."""

from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from apps.wsi.bags import Bag, Bags
from apps.wsi.config import ModelConfig
from apps.wsi.encoders import DEFAULT, Encoder, load_encoder
from apps.wsi.extract import encode_tiles
from apps.wsi.folds import predict_bags
from apps.wsi.layouts import Features, read_features
from apps.wsi.metrics import softmax
from apps.wsi.model import build_model
from apps.wsi.slide import SUFFIXES, open_slide
from apps.wsi.tiles import Tiling, find_tiles
from shared.command import progress
from shared.errors import InputError
from shared.training.checkpoint import load_model, load_weights, save_model
from shared.training.device import pick_device

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "weights" / "artefacts.safetensors"


@dataclass(frozen=True)
class Classifier:
    """A model with what its card says of it."""

    model: nn.Module
    card: dict[str, Any]
    path: Path
    device: torch.device
    own: tuple[str, Path | None] | None = None  # the user's encoder for slide files, as `load_encoder` takes it

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the training slides. Raises InputError where it is not known, not given, or another."""
        extraction = self.card.get("extraction")
        if not extraction:
            raise InputError(f"{self.path}: its card does not say how to make features; use extract, and give those")
        name = extraction["encoder"]
        if self.own is None and name != DEFAULT:
            raise InputError(f"{self.path}: was trained on features of {name}; give that encoder as --encoder")
        given, weights = self.own or (DEFAULT, None)
        found = load_encoder(given, weights, self.device)
        if (found.name, found.sha256) != (name, extraction.get("sha256", found.sha256)):
            raise InputError(
                f"--encoder {given}: is not {name}, of which the features were that {self.path} has learned"
            )
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.card["classes"])

    @property
    def features(self) -> int:
        return int(self.card["architecture"]["features"])

    @property
    def temperature(self) -> float:
        return float(self.card.get("temperature") or 1.0)

    def predict(self, bags: list[Bag]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Logits (bags, classes) and attention (M, N) of each. Raises InputError for bags of another width."""
        for bag in bags:
            if bag.features.shape[1] != self.features:
                raise InputError(
                    f"{bag.source or bag.name}: has {bag.features.shape[1]} features, the model {self.path} wants "
                    f"{self.features}; extract with the encoder that it was trained on"
                )
        return predict_bags(self.model, bags, device=self.device)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """At the temperature that was fitted on the validation bags."""
        return softmax(logits, self.temperature)


def load(
    checkpoint: Path | None, device: str = "auto", encoder: str | None = None, weights: Path | None = None
) -> Classifier:
    """A model of `wsi train`, or the shipped one, and the encoder for slide files where it is the user's own.

    Raises InputError as `load_model`, and for a card of no model.
    """
    path = checkpoint or SHIPPED
    state, card = load_model(path, "wsi")
    try:
        arguments = card["architecture"]
        ModelConfig(**{name: value for name, value in arguments.items() if name in ModelConfig.model_fields})
        if len(card["classes"]) != arguments["classes"]:
            raise ValueError("its classes are not as many as the model's")
        with torch.device("meta"):  # a card that claims a vast model takes no memory
            build_model(arguments)
        sizes = {tuple(value.shape) for value in state.values()}
        if not any(arguments["features"] in size for size in sizes):
            raise ValueError("its features are not those of the weights")
        model = build_model(arguments)
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{path}: its card describes no model of wsi ({reason}); use the one made by train") from None
    load_weights(model, {name: value.float() for name, value in state.items()}, path)
    where = pick_device(device)
    own = None if encoder is None and weights is None else (encoder or DEFAULT, weights)
    return Classifier(model.eval().to(where), card, path, where, own)


def features_of(classifier: Classifier, path: Path, mpp: float | None) -> Features:
    """The features in a file that holds those of one slide, or of a slide file, whose tiles are encoded now.

    Raises InputError for a file with several slides, and as `Classifier.encoder`, `open_slide` and `find_tiles`.
    """
    if path.suffix.lower() not in SUFFIXES:
        slides = list(read_features(path))
        if len(slides) != 1:
            raise InputError(f"{path}: holds {len(slides)} slides; name a file with one")
        return slides[0]
    encoder, extraction = classifier.encoder, classifier.card["extraction"]
    tiling = Tiling(**extraction["tiling"])
    with closing(open_slide(path, mpp or extraction.get("mpp"))) as slide, progress() as bar:
        tiles = find_tiles(slide, tiling)
        task = bar.add_task(f"tiles of {slide.name}", total=len(tiles.coords))
        return encode_tiles(slide, tiles, tiling, encoder, tell=partial(bar.advance, task))[0]


def bag_of(slide: Features) -> Bag:
    """A slide of a user, whose class is not known."""
    return Bag(slide.name, slide.features, None, slide.name, source=slide.source)


def check_classes_of(classifier: Classifier, bags: Bags) -> None:
    """Raises InputError when the data's classes are not the model's."""
    if bags.classes != classifier.classes:
        raise InputError(
            f"{bags.name}: has the classes {', '.join(bags.classes)}, the model {', '.join(classifier.classes)}"
        )


def export(checkpoint: Path | None, out: Path, name: str) -> dict:
    """Write a model in float16 as `out/name.safetensors` and `.json`."""
    if Path(name).name != name or not name.strip("."):
        raise InputError(f"--name {name}: is a path; give a name without a folder")
    classifier = load(checkpoint, "cpu")
    card = {key: value for key, value in classifier.card.items() if key not in ("sha256", "versions")}
    # Centre and scale stay as they are: a feature of large scale would overflow.
    state = {
        key: value if key.startswith(("embedding.centre", "embedding.scale")) else value.half()
        for key, value in classifier.model.state_dict().items()
    }
    weights = save_model(out, state, {**card, "precision": "float16"}, name)
    return {"model": str(weights), "bytes": weights.stat().st_size}
