"""What can be set in a whole-slide run; the shipped settings are the TOML files in `configs/`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shared.config import Config

CONFIGS = Path(__file__).parent / "configs"


class ModelConfig(Config):
    """The arguments of the model; see `apps.wsi.model`."""

    kind: Literal["acmil", "mean", "max", "transmil"] = Field(
        default="acmil", description="acmil with one branch and no masking is ABMIL"
    )
    width: int = Field(default=512, ge=2, description="of an instance after the first layer")
    hidden: int = Field(default=128, ge=1, description="width of the scores' hidden layer")
    gated: bool = Field(default=True, description="the sigmoid gate of gated attention")
    branches: int = Field(default=5, ge=1, le=64, description="attention maps, each with a classifier of its own")
    top: int = Field(default=10, ge=0, description="STKIM: of so many strongest instances some are masked; 0 is none")
    masked: float = Field(default=0.6, ge=0, lt=1, description="STKIM: the share of them that is masked")
    fraction: float = Field(default=1.0, gt=0, le=1, description="STKIM: `top` is at most this share of a bag")
    bernoulli: bool = Field(default=False, description="STKIM: each is masked by chance, as the paper's text says")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    heads: int = Field(default=4, ge=1, description="of transmil")
    layers: int = Field(default=2, ge=1, description="of transmil")

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.kind == "transmil" and self.width % self.heads:
            raise ValueError(f"model.width {self.width} is not divisible by model.heads {self.heads}")
        return self


class TrainConfig(Config):
    """How long and how fast; an epoch goes once over the training bags."""

    epochs: int = Field(default=50, ge=1)
    batch: int = Field(default=1, ge=1, description="bags in a step, over all processes")
    learning_rate: float = Field(default=2e-4, gt=0, description="of AdamW at the start; it falls to 0 by a cosine")
    weight_decay: float = Field(default=1e-2, ge=0)
    instances: int = Field(default=0, ge=0, description="a training bag shows at most so many, drawn anew; 0 is all")
    standardise: bool = Field(default=True, description="features by mean and deviation of the training instances")
    valid: float = Field(default=0.2, gt=0, le=0.5, description="share of the patients kept for validation")
    patience: int = Field(default=20, ge=1, description="epochs without a better validation loss before training ends")


class WsiConfig(Config):
    """A whole run."""

    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()


# What `cross-validate` and `compare` know by name: changes of the model that a configuration describes.
VARIANTS: dict[str, dict] = {
    "acmil": {"kind": "acmil"},
    "branches": {"kind": "acmil", "top": 0},
    "stkim": {"kind": "acmil", "branches": 1},
    "gated-abmil": {"kind": "acmil", "branches": 1, "top": 0},
    "abmil": {"kind": "acmil", "branches": 1, "top": 0, "gated": False},
    "mean": {"kind": "mean"},
    "max": {"kind": "max"},
    "transmil": {"kind": "transmil"},
}


def variant(config: WsiConfig, name: str) -> WsiConfig:
    """The configuration with the model that is called `name` in `VARIANTS`."""
    return config.model_copy(update={"model": ModelConfig(**{**config.model.model_dump(), **VARIANTS[name]})})
