"""A trained model, ready to be used: its maps over a whole recording, and the detections that they come to."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apps.action.config import DataConfig, DetectConfig, ModelConfig
from apps.action.features import ARRAYS, read_array, read_recording
from apps.action.model import BoundaryMatchingNetwork
from apps.action.proposals import (
    Detection,
    candidates,
    grouped,
    pooled_classes,
    soft_nms,
    strongest_labels,
)
from apps.action.readers.salads import logs_and_shares
from apps.action.recordings import Recording, Source
from apps.action.windows import Scaling, cut, window_starts
from shared.errors import InputError
from shared.training.checkpoint import build_within, load_model, load_weights
from shared.training.device import pick_device

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "weights" / "watch.safetensors"
BATCH = 8


@dataclass(frozen=True)
class Detector:
    """A model with what its card says of it."""

    model: BoundaryMatchingNetwork
    card: dict[str, Any]
    path: Path
    labels: list[str]
    source: Source
    window: DataConfig
    scaling: Scaling
    semantics_scaling: Scaling | None
    settings: DetectConfig

    @property
    def width(self) -> int:
        """Channels that the model reads."""
        return len(self.scaling.mean)


@dataclass(frozen=True)
class Maps:
    """What a model says of a whole recording of N snippets.

    classes (N, K + 1) probabilities, background last; start, end (N,), averaged over windows (None without proposals);
    segments (n, 2) in snippets and confidence (n,) of all candidates.
    """

    classes: np.ndarray
    start: np.ndarray | None
    end: np.ndarray | None
    segments: np.ndarray
    confidence: np.ndarray


def load(checkpoint: Path | None, device: str = "auto") -> Detector:
    """Load a model of `action train`, or the shipped one. Raises InputError as `load_model`, and for an unfit card."""
    path = checkpoint or SHIPPED
    state, card = load_model(path, "action")
    model = _from_card(card, state, path)
    load_weights(model, {key: value.float() for key, value in state.items()}, path)
    return made(model.eval().to(pick_device(device)), card, path)


def made(model: BoundaryMatchingNetwork, card: dict[str, Any], path: Path) -> Detector:
    """A detector out of a model in memory and its card."""
    scaling = [
        None if card[key] is None else Scaling(*(np.array(card[key][part], np.float32) for part in ("mean", "spread")))
        for key in ("scaling", "semantics_scaling")
    ]
    assert scaling[0] is not None
    window = DataConfig(window=card["window"], whole=card["whole"])
    settings, source = DetectConfig(**card["detect"]), Source(**card["source"])
    return Detector(model, card, path, list(card["labels"]), source, window, scaling[0], scaling[1], settings)


def _from_card(card: dict[str, Any], state: dict[str, torch.Tensor], path: Path) -> BoundaryMatchingNetwork:
    """The untrained model of a card; InputError before one that is claimed to be vast takes memory."""
    try:
        arguments = card["architecture"]
        ModelConfig(**{name: value for name, value in arguments.items() if name in ModelConfig.model_fields})
        DataConfig(window=card["window"], whole=card["whole"])
        DetectConfig(**card["detect"])
        Source(**card["source"])
        if len(card["labels"]) != arguments["classes"] or len(set(card["labels"])) != len(card["labels"]):
            raise ValueError(f"{len(card['labels'])} labels for {arguments['classes']} classes")
        for key, channels in (("scaling", "channels"), ("semantics_scaling", "semantics_channels")):
            widths = {len(card[key][part]) for part in ("mean", "spread")} if card[key] else {0}
            if widths != {arguments[channels]}:
                raise ValueError(f"{key} has other channels than the {arguments[channels]} of the architecture")
        return build_within(lambda: BoundaryMatchingNetwork(**arguments), state)
    except Exception as error:  # whatever a wrong argument leads to
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(
            f"{path}: its card does not describe an action model that fits ({reason}); use the one made by train"
        ) from None


def ready(detector: Detector, recording: Recording) -> Recording:
    """Scaled as in training. Raises InputError when class scores that the model reads are missing."""
    semantics = recording.semantics
    if detector.semantics_scaling is not None:
        if semantics is None:
            raise InputError(f"{recording.name}: the model reads class scores beside the features; add a folder scores")
        semantics = detector.semantics_scaling(semantics)
    else:
        semantics = None
    return replace(recording, features=detector.scaling(recording.features), semantics=semantics)


@torch.inference_mode()
def run_windows(
    detector: Detector, recording: Recording, starts: list[int]
) -> list[tuple[int, int, dict[str, np.ndarray]]]:
    """(start, snippets that are there, probabilities of every head) of each window; `recording` is scaled already."""
    device = next(detector.model.parameters()).device
    size, whole, results = detector.window.window, detector.window.whole, []
    for first in range(0, len(starts), BATCH):
        part = starts[first : first + BATCH]
        items = [cut(recording, start, size, whole) for start in part]
        batch = {name: torch.from_numpy(np.stack([item[name] for item in items])).to(device) for name in items[0]}
        out = detector.model(batch["x"], batch.get("semantics"), batch["keep"])
        classes = out.pop("classes").softmax(-1)
        heads = {"classes": classes, **{name: value.sigmoid() for name, value in out.items()}}
        arrays = {name: value.float().cpu().numpy() for name, value in heads.items()}
        for i, start in enumerate(part):
            there = int(items[i]["keep"].sum())
            results.append((start, there, {name: value[i] for name, value in arrays.items()}))
    return results


def maps_of(detector: Detector, recording: Recording) -> Maps:
    """What the model says of a recording of any length: windows that overlap by half, their classes averaged."""
    scaled, size = ready(detector, recording), detector.window.window
    whole = detector.window.whole
    length = size if whole else len(recording.features)
    starts = [0] if whole else window_starts(length, size, max(1, size // 2))
    total, times = np.zeros((length, len(detector.labels) + 1)), np.zeros((length, 1))
    curves = {name: np.zeros(length) for name in ("start", "end")}
    segments, confidence = [np.zeros((0, 2))], [np.zeros(0)]
    for start, there, heads in run_windows(detector, scaled, starts):
        place = slice(start, start + there)
        total[place] += heads["classes"][:there]
        times[place] += 1
        if "start" in heads:
            for name, curve in curves.items():
                curve[place] += heads[name][:there]
            found, sure = candidates(
                heads["start"][:there],
                heads["end"][:there],
                heads["classification"],
                heads["regression"],
                detector.settings.peak,
            )
            segments.append(found + start)
            confidence.append(sure)
    scale = len(recording.features) / size if whole else 1.0
    classes = total / times
    has = detector.model.proposals is not None
    start_curve, end_curve = ((curves[name] / times[:, 0]) if has else None for name in ("start", "end"))
    if whole:
        back = np.clip((np.arange(len(recording.features)) / scale).astype(int), 0, size - 1)
        classes = classes[back]
        start_curve, end_curve = (None if c is None else c[back] for c in (start_curve, end_curve))
    return Maps(classes, start_curve, end_curve, np.concatenate(segments) * scale, np.concatenate(confidence))


def class_scores(detector: Detector, recording: Recording, maps: Maps) -> np.ndarray:
    """(n, K) what each candidate's class is worth, by `detect.classes`.

    Raises InputError when it is to come from given class scores and there are none for the model's classes.
    """
    head = pooled_classes(maps.classes, maps.segments)[:, :-1]
    if detector.settings.classes == "head":
        return head
    if detector.settings.classes == "video":
        foreground = maps.classes[:, :-1].mean(0)
        return np.tile(foreground / max(foreground.max(), 1e-9), (len(maps.segments), 1))
    scores = recording.semantics if recording.semantics is not None else recording.features
    scored = list(detector.card.get("scored") or ())
    if not set(detector.labels) <= set(scored) or scores.shape[1] != len(scored):
        raise InputError(f"{recording.name}: has no class scores for the model's classes; set detect.classes=head")
    columns = [scored.index(label) for label in detector.labels]
    given = pooled_classes(scores[:, columns], maps.segments)
    return given if detector.settings.classes == "scores" else (head + given) / 2


def detections_of(detector: Detector, recording: Recording, maps: Maps | None = None) -> list[Detection]:
    """The detections in a recording, by score; with a model that has no proposals, its grouped snippets."""
    maps = maps or maps_of(detector, recording)
    if detector.model.proposals is None:
        return grouped(maps.classes, detector.labels, recording.step)
    scores = strongest_labels(class_scores(detector, recording, maps), detector.settings.labels)
    taken = _suppressed(detector, recording, maps, maps.confidence[:, None] * scores)
    step = recording.step
    return [
        Detection(maps.segments[i, 0] * step, maps.segments[i, 1] * step, detector.labels[k], score)
        for i, k, score in taken
    ][: most_of(detector, recording)]


def proposals_of(detector: Detector, recording: Recording, maps: Maps) -> list[tuple[float, float, float]]:
    """(start, end, score) in seconds whatever the class, by score, after Soft-NMS."""
    if detector.model.proposals is None:
        return [(d.start, d.end, d.score) for d in grouped(maps.classes, detector.labels, recording.step)]
    taken = _suppressed(detector, recording, maps, maps.confidence[:, None])
    return [(*(maps.segments[i] * recording.step), score) for i, _, score in taken][: most_of(detector, recording)]


def most_of(detector: Detector, recording: Recording) -> int:
    """How many detections a recording may have: `detect.most` for each window's length of it."""
    return detector.settings.most * max(1, -(-len(recording.features) // detector.window.window))


def _suppressed(detector: Detector, recording: Recording, maps: Maps, scores: np.ndarray):
    settings = detector.settings
    span = len(recording.features) if detector.window.whole else detector.window.window
    return soft_nms(
        maps.segments,
        scores,
        alpha=settings.alpha,
        low=settings.low,
        high=settings.high,
        span=float(span),
        most=most_of(detector, recording),
    )


def read_for(detector: Detector, path: Path, rate: float | None = None, timeout: float = 60.0) -> Recording:
    """A user's file as what the model reads; see `read_recording`. A video is encoded on the model's device.

    For a model that reads class scores beside the features, they come from the folder `scores` beside the file's own;
    for a model of 50 Salads, the file's class scores are both. Raises InputError when they are missing or do not fit.
    """
    device = str(next(detector.model.parameters()).device)
    recording = read_recording(path, detector.source, detector.width, rate=rate, device=device, timeout=timeout)
    if detector.semantics_scaling is None:
        return recording
    if detector.source.kind == "scores":
        logs, shares = logs_and_shares(recording.features)
        return replace(recording, features=logs, semantics=shares)
    folder = path.resolve().parent.parent / "scores"
    found = [folder / f"{path.stem}{suffix}" for suffix in ARRAYS if (folder / f"{path.stem}{suffix}").exists()]
    if not found:
        raise InputError(f"{path}: the model reads class scores beside the features; put {path.stem}.npy into {folder}")
    scores, _ = read_array(found[0])
    wanted = (len(recording.features), len(detector.semantics_scaling.mean))
    if scores.shape != wanted:
        raise InputError(f"{found[0]}: has the shape {scores.shape}; the model needs {wanted} beside {path.name}")
    return replace(recording, semantics=scores)
