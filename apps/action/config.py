"""What can be set in an action run; the shipped settings are the TOML files in `configs/`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shared.config import Config

CONFIGS = Path(__file__).parent / "configs"


class DataConfig(Config):
    """How recordings become windows of snippets."""

    window: int = Field(default=100, ge=4, description="snippets that the model sees at once, T")
    whole: bool = Field(default=False, description="squeeze each recording into one window instead of sliding over it")
    snippet_seconds: float | None = Field(default=None, gt=0, description="seconds a snippet; left out: the data's own")
    rate: float | None = Field(default=None, gt=0, description="samples a second of sensor files without a time column")
    scores: str = Field(default="tCNN_C36", description="50 Salads only: which model's class scores")
    fold: int = Field(default=0, ge=0, description="which fold is for testing, where the data name no subsets")
    repair: bool = Field(default=False, description="clip or drop segments that cannot be, instead of refusing them")


class ModelConfig(Config):
    """The arguments of `BoundaryMatchingNetwork`; see its docstring."""

    attention: Literal["none", "se", "csa", "se+csa"] = "csa"
    dim: int = Field(default=64, ge=4, description="channels of the encoder")
    layers: int = Field(default=5, ge=0, description="residual layers of the encoder, of rising dilation")
    longest: int = Field(default=40, ge=1, description="snippets of the longest proposal, D")
    bins: int = Field(default=16, ge=1, description="sample bins of a proposal, N")
    matching: int = Field(default=32, ge=4, description="channels of the boundary-matching layer")
    proposal: int = Field(default=16, ge=4, description="channels of the proposal head's maps")
    semantics: int = Field(default=32, ge=1, description="hidden channels of the class-semantics branches")
    dropout: float = Field(default=0.3, ge=0, lt=1)
    proposals: bool = Field(default=True, description="false: only classify snippets, and group them into segments")


class TrainConfig(Config):
    """How long and how fast; an epoch goes once over the training recordings in windows that overlap by half."""

    epochs: int = Field(default=12, ge=1)
    batch: int = Field(default=8, ge=1, description="windows in a step, over all processes")
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    gradient_clip: float = Field(default=5.0, gt=0)
    ema: float = Field(default=0.97, ge=0, lt=1, description="moving average of the weights; 0 is none")
    class_weight: float = Field(default=1.0, ge=0, description="of the snippet classes in the loss")
    select: Literal["best", "last"] = Field(
        default="best", description="the epoch with the best validation loss; or the last one, trained on valid too"
    )
    patience: int = Field(default=6, ge=1, description="epochs without a better validation loss before training ends")
    minutes: float | None = Field(default=None, gt=0, description="end cleanly after so many minutes")


class DetectConfig(Config):
    """How a model's maps become detections."""

    classes: Literal["head", "scores", "both", "video"] = Field(
        default="head",
        description="a segment's class: the trained head, given scores, the mean of both, or the whole recording's",
    )
    labels: int = Field(default=2, ge=1, description="classes that a proposal may be emitted for")
    peak: float = Field(default=0.5, gt=0, le=1, description="boundaries above this share of the highest count too")
    alpha: float = Field(default=0.4, gt=0, description="of Soft-NMS: how slowly scores decay with overlap")
    low: float = Field(default=0.5, ge=0, le=1, description="of Soft-NMS: overlap from which short segments decay")
    high: float = Field(default=0.9, ge=0, le=1, description="of Soft-NMS: overlap from which long segments decay")
    most: int = Field(default=100, ge=1, description="detections a recording; for a long one, a window")


class ActionConfig(Config):
    """A whole action run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    detect: DetectConfig = DetectConfig()

    @model_validator(mode="after")
    def _check(self) -> "ActionConfig":
        if self.model.longest > self.data.window:
            raise ValueError(
                f"model.longest {self.model.longest} is more than data.window {self.data.window}; make it at most that"
            )
        if self.detect.low > self.detect.high:
            raise ValueError("detect.low is above detect.high; make it at most that")
        return self
