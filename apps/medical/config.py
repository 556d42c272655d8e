"""What can be set in a medical run; the shipped settings are the TOML files in `configs/`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shared.config import Config

CONFIGS = Path(__file__).parent / "configs"


class DataConfig(Config):
    """How scans become slices, and which cases are for what."""

    plane: Literal["auto", "sagittal", "coronal", "axial"] = "auto"
    spacing: float | None = Field(default=None, gt=0, description="mm in the plane that slices are resampled to")
    context: int = Field(default=1, ge=1, le=15, description="neighbouring slices that the model sees, with its own")
    place: bool = Field(default=False, description="three more channels: where in the volume a voxel lies")
    clip: tuple[float, float] | None = Field(default=None, description="intensities cut to this range, as of CT")
    patch: tuple[int, int] = (256, 256)
    window: tuple[int, int] = (256, 256)
    remap: dict[str, int] = Field(default={}, description="label values of the files to 1 .. K; 0 drops one")
    labels: tuple[str, ...] = ()
    slabs: int = Field(default=1, ge=1, description="parts to cut each volume into, where there is only one")
    patient: str | None = Field(default=None, description="regular expression whose first group names the patient")
    folds: int = Field(default=5, ge=2)
    fold: int = Field(default=0, ge=0)
    valid: float = Field(default=0.1, gt=0, lt=1, description="share of the other patients that chooses the epoch")
    foreground: float = Field(default=0.8, ge=0, le=1, description="share of slices drawn that hold a label")
    rotate: float = Field(default=15.0, ge=0, le=180, description="degrees")
    scale: float = Field(default=0.15, ge=0, lt=1)
    intensity: float = Field(default=0.2, ge=0, lt=1)
    flip: tuple[Literal["rows", "columns"], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if self.context % 2 == 0:
            raise ValueError(f"data.context {self.context} is even; a slice has as many neighbours on either side")
        if self.fold >= self.folds:
            raise ValueError(f"data.fold {self.fold} is none of the {self.folds} folds, which count from 0")
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"data.clip {list(self.clip)} is no range; give the lower end first")
        if min(*self.patch, *self.window) < 8:
            raise ValueError("data.patch and data.window need at least 8 voxels a side")
        if wrong := [key for key in self.remap if not key.isdecimal()]:
            raise ValueError(f"data.remap.{wrong[0]} is no label value; write whole numbers, such as data.remap.200=1")
        if not all(0 <= value < 255 for value in self.remap.values()):
            raise ValueError("data.remap gives labels outside of 0 to 254")
        return self


class ModelConfig(Config):
    """The network: the guided segmenter, MEDUSA, or one of MONAI's for comparison."""

    kind: Literal["guided", "medusa", "unet", "attention-unet", "segresnet"] = "guided"
    backbone: Literal["small", "resnet101"] = "small"
    base: int = Field(default=16, ge=4, description="channels of the first scale; each next one doubles them")
    width: int = Field(default=32, ge=2)
    stride: Literal[1, 2, 4] = 4
    head: Literal["bilinear", "subpixel"] = "bilinear"
    position: bool = True
    channel: bool = True
    steps: int = Field(default=2, ge=1, le=4)
    guidance: Literal["matrix", "product", "none"] = "product"
    channel_form: Literal["paper", "released"] = "paper"
    reduction: int = Field(default=8, ge=1)
    norm: Literal["batch", "group"] = "batch"
    medusa: bool = Field(default=False, description="MEDUSA's attention body in front of the guided segmenter")
    body: int = Field(default=256, ge=16, description="side of the image that MEDUSA's body sees")

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.backbone == "resnet101" and self.stride != 4:
            raise ValueError("model.backbone resnet101 has its first scale at a quarter; set model.stride to 4")
        return self


class TrainConfig(Config):
    """How long and how fast; an epoch is `steps` optimiser steps, followed by a validation and a checkpoint."""

    steps: int = Field(default=250, ge=1)
    epochs: int = Field(default=20, ge=1)
    batch: int = Field(default=8, ge=1, description="slices in a step, over all processes")
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=50, ge=0)
    deep_supervision: bool = True
    guided_weight: float = Field(default=0.25, ge=0)
    reconstruction_weight: float = Field(default=0.1, ge=0)
    dice_weight: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=12.0, gt=0)
    ema: float = Field(default=0.99, ge=0, lt=1)
    patience: int = Field(default=20, ge=1)
    minutes: float | None = Field(default=None, gt=0)


class MedicalConfig(Config):
    """A whole medical run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
