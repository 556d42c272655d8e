"""What can be set in a music run; the shipped settings are the TOML files in `configs/`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shared.config import Config

CONFIGS = Path(__file__).parent / "configs"


class DataConfig(Config):
    """How music becomes training sequences."""

    codec: Literal["chorale", "performance"] = "chorale"
    length: int = Field(default=512, ge=16, description="tokens in a training sequence, a crop of a piece")
    transpose: int = Field(
        default=3,
        ge=0,
        le=24,
        description="augmentation: at most so many semitones up or down; chorales stay in the voices' ranges",
    )
    stretches: tuple[float, ...] = Field(
        default=(1.0,), description="augmentation: time stretch factors (performance codec only)"
    )
    accompany: bool = Field(default=False, description="learn melody -> accompaniment from a POP909 layout")


class ModelConfig(Config):
    """The arguments of `MusicTransformer`; see its docstring."""

    dim: int = Field(default=128, ge=8)
    attention_dim: int = Field(default=128, ge=8)
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=5, ge=1)
    feed_forward: int = Field(default=512, ge=8)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    attention: Literal["global", "local"] = "global"
    max_distance: int = Field(default=512, ge=0, description="0 takes relative attention away")
    local_block: int = Field(default=512, ge=1)
    positions: Literal["none", "add", "concat"] = "none"
    labels: bool = Field(
        default=True, description="tell the model which voice comes next and the place in the bar (chorales)"
    )
    relations: tuple[Literal["time", "pitch"], ...] = ()
    source_layers: int = Field(default=3, ge=1, description="encoder layers of an accompaniment model")

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.attention_dim % self.heads:
            raise ValueError(f"model.attention_dim {self.attention_dim} is not divisible by model.heads {self.heads}")
        if self.attention == "local" and self.relations:
            raise ValueError(
                "model.relations belong to global attention; set model.attention to global or leave them out"
            )
        return self


class TrainConfig(Config):
    """How long and how fast; an epoch is `steps` optimiser steps, followed by a validation and a checkpoint."""

    steps: int = Field(default=200, ge=1)
    epochs: int = Field(default=60, ge=1)
    batch: int = Field(default=8, ge=1, description="sequences in a step, over all processes")
    learning_rate: float = Field(default=3e-3, gt=0)
    warmup: int = Field(default=100, ge=0, description="steps of linear warm-up; cosine decay follows")
    weight_decay: float = Field(default=0.01, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema: float = Field(
        default=0.995, ge=0, lt=1, description="moving average of the weights that is validated and shipped; 0 is none"
    )
    patience: int = Field(default=10, ge=1, description="epochs without a better validation NLL before training ends")
    start: str | None = Field(
        default=None, description="a model of the same sizes to start from: a run folder or .safetensors"
    )
    minutes: float | None = Field(default=None, gt=0, description="end cleanly after so many minutes")


class MusicConfig(Config):
    """A whole music run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _check(self) -> "MusicConfig":
        if self.data.codec == "performance" and self.model.relations:
            raise ValueError("model.relations need a raster: set data.codec to chorale or leave them out")
        if self.data.accompany and self.data.codec == "chorale":
            raise ValueError("data.accompany needs data.codec = performance")
        if self.data.accompany and self.model.attention == "local":
            raise ValueError("data.accompany needs model.attention = global")
        return self
