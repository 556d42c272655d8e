"""A trained model, ready to be used: loaded from what `train` wrote, or handed on in half the size."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from apps.music.codecs import get_codec
from apps.music.config import DataConfig, ModelConfig
from apps.music.model import MusicTransformer
from shared.errors import InputError
from shared.training.checkpoint import build_within, load_model, load_weights, save_model
from shared.training.device import pick_device

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "weights" / "chorale.safetensors"


@dataclass(frozen=True)
class Player:
    """A model with what its card says of it."""

    model: MusicTransformer
    card: dict[str, Any]
    codec: ModuleType
    path: Path

    @property
    def window(self) -> int:
        """How many tokens of the past the model was trained to see; decoding keeps as many."""
        return int(self.card["length"])

    @property
    def accompanies(self) -> bool:
        """Whether the model writes to a melody."""
        return bool(self.card["architecture"]["source_vocab"])


def load(checkpoint: Path | None, device: str = "auto") -> Player:
    """Load a model of `music train`, or the shipped chorale model.

    Raises InputError as `load_model`, and for a card that describes no music model or another one than the weights.
    """
    path = checkpoint or SHIPPED
    state, card = load_model(path, "music")
    codec, model = _from_card(card, state, path)
    load_weights(model, state, path)
    return Player(model.eval().to(pick_device(device)), card, codec, path)


def _from_card(card: dict[str, Any], state: dict[str, torch.Tensor], path: Path) -> tuple[ModuleType, MusicTransformer]:
    """The codec and the untrained model of a card; InputError before one that is claimed to be vast takes memory."""
    try:
        arguments = card["architecture"]
        DataConfig(codec=card["codec"], length=card["length"])
        ModelConfig(**{name: value for name, value in arguments.items() if name in ModelConfig.model_fields})
        codec = get_codec(card["codec"])
        if arguments["vocab"] != codec.VOCAB_SIZE or arguments["source_vocab"] not in (0, codec.VOCAB_SIZE):
            raise ValueError(f"the codec {codec.NAME} has {codec.VOCAB_SIZE} tokens, not {arguments['vocab']}")
        for name, blocks in (("layers", "blocks"), ("source_layers", "source_blocks")):
            held = {key.split(".")[1] for key in state if key.startswith(f"{blocks}.")}
            if len(held) != arguments[name] and (name == "layers" or arguments["source_vocab"]):
                raise ValueError(f"the weights have {len(held)} {name}, not {arguments[name]}")
        model = build_within(lambda: MusicTransformer(**arguments), state)
    except Exception as error:  # whatever a wrong argument leads to
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(
            f"{path}: its card does not describe a music model that fits ({reason}); use the one made by train"
        ) from None
    return codec, model


def export(checkpoint: Path | None, out: Path, name: str) -> dict[str, Any]:
    """Write the weights as float16 with their card; loading turns them back into float32.

    Raises InputError as `load`, and when there is a model of that name already.
    """
    player = load(checkpoint, "cpu")
    state = {key: value.half() for key, value in player.model.state_dict().items()}
    card = {key: value for key, value in player.card.items() if key not in ("sha256", "versions")}
    if (out / f"{name}.safetensors").exists():
        raise InputError(f"{out / name}.safetensors: exists already; name another by --name or --out")
    weights = save_model(out, state, {**card, "precision": "float16"}, name)
    return {"model": str(weights), "megabytes": round(weights.stat().st_size / 1e6, 2)}
