"""A trained segmenter, ready to be used: one model or the folds of one, on slices of one case.

House notation: B batch, K classes with the background, S slices, H and W the sides of a slice; X, Y, Z the file's axes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apps.medical.config import DataConfig, ModelConfig
from apps.medical.data import Slices
from apps.medical.model import GuidedSegmenter
from apps.medical.networks import build
from shared.errors import InputError
from shared.training.checkpoint import load_model, load_weights, save_model
from shared.training.device import pick_device

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "weights" / "hippocampus.safetensors"


@dataclass(frozen=True)
class Segmenter:
    """Models of one architecture and preprocessing, whose probabilities are averaged; and the first one's card."""

    models: list[nn.Module]
    card: dict[str, Any]
    config: DataConfig
    path: Path

    @property
    def labels(self) -> list[str]:
        return list(self.card["labels"])

    @property
    def channels(self) -> int:
        """How many images of one examination the model takes."""
        return (self.card["architecture"]["channels"] - 3 * self.config.place) // self.config.context

    @property
    def device(self) -> torch.device:
        return next(self.models[0].parameters()).device


@dataclass(frozen=True)
class Found:
    """What a segmenter found in a case, on the file's grid (X, Y, Z): labels uint8; entropy and disagreement 0 .. 1."""

    labels: np.ndarray
    entropy: np.ndarray
    disagreement: np.ndarray


def load(checkpoint: Path | None, device: str = "auto", kinds: tuple[str, ...] | None = None) -> Segmenter:
    """Load a model of `medical train`, or the shipped one; a folder of runs (`fold-0`, ...) is loaded as an ensemble.

    Raises InputError as `load_model`, for a card that describes no medical model, and for a model of another kind.
    """
    path = checkpoint or SHIPPED
    folds = sorted(p for p in path.glob("fold-*") if p.is_dir()) if path.is_dir() else []
    if folds and not (path / "model.safetensors").exists():
        loaded = [load(fold, device, kinds) for fold in folds]
        odd = next((one for one in loaded if _common(one.card) != _common(loaded[0].card)), None)
        if odd is not None:
            raise InputError(
                f"{odd.path}: has other labels or preprocessing than {loaded[0].path.name}; keep them apart"
            )
        return Segmenter([model for one in loaded for model in one.models], loaded[0].card, loaded[0].config, path)
    state, card = load_model(path, "medical")
    try:
        config = DataConfig(**card["preprocessing"])
        arguments = dict(card["architecture"])
        ModelConfig(**{name: value for name, value in arguments.items() if name in ModelConfig.model_fields})
        with torch.device("meta"):  # sizes alone, before a card that claims to be vast takes memory
            sizes = {name: value.shape for name, value in build(**arguments).state_dict().items()}
        if len(card["labels"]) + (arguments["kind"] != "medusa") != arguments["classes"]:
            raise ValueError("it has other labels than classes")
    except Exception as error:  # whatever a wrong argument leads to
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(f"{path}: its card describes no medical model ({reason}); use the one made by train") from None
    if sizes != {name: value.shape for name, value in state.items()}:
        raise InputError(f"{path}: the weights do not fit the architecture in the card; use the pair made by train")
    if kinds is not None and arguments["kind"] not in kinds:
        raise InputError(f"{path}: is a {arguments['kind']} model; this verb needs one of {', '.join(kinds)}")
    model = build(**arguments)
    load_weights(model, {name: v.float() if v.is_floating_point() else v for name, v in state.items()}, path)
    return Segmenter([model.eval().to(pick_device(device))], card, config, path)


SEGMENTERS = ("guided", "unet", "attention-unet", "segresnet")


def _common(card: dict[str, Any]) -> tuple:
    kept = {key: value for key, value in card["preprocessing"].items() if key not in ("fold", "valid")}
    return kept, card["labels"]


def check_tta(segmenter: Segmenter, tta: bool) -> None:
    """Raises InputError when mirrored slices are asked for of a model that has never seen any."""
    if tta and not segmenter.config.flip:
        raise InputError(f"--tta: {segmenter.path} was trained without mirrored slices (data.flip); leave out --tta")


@torch.inference_mode()
def segment_slices(segmenter: Segmenter, slices: Slices, *, tta: bool = False, batch: int = 16) -> Found:
    """Every slice of a case, none left out, put back on the file's grid.

    Probabilities are those of the mean logits of a model's heads, as they are trained and validated, and then the mean
    over models and, with `tta`, over the slices mirrored as in training. Entropy is that of
    the mean probabilities by its largest value, log K; disagreement is the share of the probability of the label found
    in which the heads (of several models, the models) differ: the standard deviation over heads, doubled.
    """
    if (have := slices.images.shape[1]) != segmenter.channels:
        raise InputError(f"{slices.volume.path}: has {have} channels; the model takes {segmenter.channels}")
    labels, entropies, apart = [], [], []
    rows, columns = slices.grid.size
    for start in range(0, len(slices.images), batch):
        at = np.arange(start, min(start + batch, len(slices.images)))
        x = torch.from_numpy(slices.stack(at, segmenter.config)).to(segmenter.device)
        both = probabilities(segmenter, x, tta)[..., :rows, :columns]
        if slices.grid.shape[1:] != (rows, columns):
            flat = F.interpolate(both.flatten(0, 1), size=slices.grid.shape[1:], mode="bilinear")
            both = flat.unflatten(0, both.shape[:2])
        mean, members = both[0], both[1:]
        label = mean.argmax(1)
        labels.append(label.byte().cpu().numpy())
        entropies.append((-(mean * mean.clamp_min(1e-9).log()).sum(1) / np.log(mean.shape[1])).cpu().numpy())
        spread = members.std(0, correction=0).gather(1, label[:, None])[:, 0]
        apart.append((2 * spread).cpu().numpy())
    whole = [slices.grid.restore(np.concatenate(parts)) for parts in (labels, entropies, apart)]
    return Found(*whole)


def probabilities(segmenter: Segmenter, x: Tensor, tta: bool) -> Tensor:
    """x (B, C, H, W) -> (1 + members, B, K, H, W): what is found, then each member, the heads of one model, or several
    models, of which what is found is the mean."""
    found = []
    views: list[tuple[int, ...]] = [()]
    if tta:
        for axis in (2 + ("rows", "columns").index(name) for name in segmenter.config.flip):
            views += [(*view, axis) for view in views]
    for model in segmenter.models:
        seen = [in_windows(model, mirrored(x, view, segmenter.config), segmenter.config.window) for view in views]
        found.append(
            torch.stack([one.flip([d + 1 for d in view]) for one, view in zip(seen, views, strict=True)]).mean(0)
        )
    if len(found) == 1:
        return found[0]
    said = torch.stack([one[0] for one in found])
    return torch.cat([said.mean(0, keepdim=True), said])


def mirrored(x: Tensor, axes: tuple[int, ...], config: DataConfig) -> Tensor:
    """x (B, C, H, W) along some of its last two axes; the place channels tell the place in the mirrored volume."""
    x = x.flip(axes)
    for axis in axes if config.place else ():
        x[:, axis - 4] *= -1
    return x


def in_windows(model: nn.Module, x: Tensor, window: tuple[int, int]) -> Tensor:
    """(1 + heads, B, K, H, W) probabilities, see `of_heads`; slices that are larger than `window` by MONAI's sliding
    window, half overlapping, weighted towards the middle."""
    if x.shape[2] <= window[0] and x.shape[3] <= window[1]:
        return of_heads(model, x)
    from monai.inferers.utils import sliding_window_inference

    first = of_heads(model, x[:1, :, : window[0], : window[1]])
    joined = sliding_window_inference(
        x, window, 4, lambda part: of_heads(model, part).movedim(0, 1).flatten(1, 2), overlap=0.5, mode="gaussian"
    )
    assert isinstance(joined, Tensor)
    return joined.unflatten(1, first.shape[:1] + first.shape[2:3]).movedim(1, 0)


def of_heads(model: nn.Module, x: Tensor) -> Tensor:
    """(1 + heads, B, K, H, W) probabilities: what the model says, which is trained, and each refined head of it; of
    other networks the one that there is, twice."""
    refined = torch.stack(model.predict(x).refined) if isinstance(model, GuidedSegmenter) else model(x)[None]
    return torch.cat([refined.mean(0, keepdim=True), refined]).softmax(2)


def export(checkpoint: Path | None, out: Path, name: str) -> dict[str, Any]:
    """Write the weights as float16 with their card; loading turns them back into float32.

    Raises InputError as `load`, for an ensemble, and when there is a model of that name already.
    """
    one = load(checkpoint, "cpu")
    if len(one.models) > 1:
        raise InputError(f"{one.path}: holds {len(one.models)} models; export them one by one")
    if (out / f"{name}.safetensors").exists():
        raise InputError(f"{out / name}.safetensors: exists already; name another by --name or --out")
    state = {key: v.half() if v.is_floating_point() else v for key, v in one.models[0].state_dict().items()}
    card = {key: value for key, value in one.card.items() if key not in ("sha256", "versions")}
    weights = save_model(out, state, {**card, "precision": "float16"}, name)
    return {"model": str(weights), "megabytes": round(weights.stat().st_size / 1e6, 2)}
