"""What can be set in a video run; the shipped settings are the TOML files in `configs/`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shared.config import Config

CONFIGS = Path(__file__).parent / "configs"


class FeaturesConfig(Config):
    """How frames become features."""

    size: int = Field(default=240, ge=64, description="pixels of the short side that frames are brought to")
    chunk: int = Field(default=8, ge=1, description="frames that are decoded and encoded at a time")
    refine: int = Field(default=6, ge=0, description="radius in pixels within which outlines follow the image; 0: none")


class PropagateConfig(Config):
    """The arguments of `Propagator`; see its docstring."""

    radius: int = Field(default=12, ge=1, description="cells that an object may move between two frames")
    top_k: int = Field(default=7, ge=1)
    temperature: float = Field(default=0.1, gt=0)
    context: int = Field(default=4, ge=0, description="last frames that are looked at, beside the first")


class TokencutConfig(Config):
    """The arguments of `tokencut`; see its docstring."""

    tau: float = Field(default=0.2, ge=-1, lt=1, description="cosine above which two tokens are joined")
    epsilon: float = Field(default=1e-5, gt=0, description="weight of all other edges")
    frames: int = Field(default=1, ge=1, le=16, description="frames in one graph")
    motion: float = Field(default=0.0, ge=0, le=1, description="share of motion in the likeness of two tokens")


class SalientConfig(Config):
    """What counts as an object to begin with, and how many there are."""

    objects: int = Field(default=1, ge=1, le=20, description="how many objects to tell apart, by their colours")
    above: float = Field(default=1.5, description="deviations of salience above its mean from which a cell counts")


class ClusterConfig(Config):
    """How attention rows become objects; see `clustering.py`."""

    every: int = Field(default=10, ge=1, description="every so many frames are the keys that the others look at")
    keys: int = Field(default=8, ge=1, description="frames of keys at most, however long the video")
    tau: float = Field(
        default=0.35, gt=0, description="symmetric KL, of the mean of all pairs, below which rows belong together"
    )
    rows: int = Field(default=1200, ge=64, description="attention rows that are clustered at most, evenly spread")
    window: int = Field(default=3, ge=1, description="frames in which rows look for their like")
    least: int = Field(default=4, ge=2, description="clusters at least, the background too; tau shrinks for that")
    most: int = Field(default=20, ge=2, le=255, description="clusters at most; tau grows for that")


class ModelConfig(Config):
    """What is trained: the spatio-temporal block (attention) or the two-stage slots (slots)."""

    method: Literal["attention", "slots"] = "attention"
    heads: int = Field(default=8, ge=1, description="of the spatio-temporal block")
    ratio: int = Field(default=4, ge=1, description="of the block's MLP to its width")
    semantics: int = Field(default=16, ge=2, description="slots with a Gaussian of their own")
    instances: int = Field(default=4, ge=1, description="drawn of each semantic")
    iterations: int = Field(default=3, ge=1)
    width: int = Field(default=64, ge=8, description="of the slots")
    reach: int = Field(default=4, ge=1, description="cells around each that the correlation looks at")


class TrainConfig(Config):
    """How long and how fast; an epoch is `steps` optimiser steps, followed by a validation and a checkpoint."""

    steps: int = Field(default=50, ge=1)
    epochs: int = Field(default=8, ge=1)
    batch: int = Field(default=2, ge=1, description="clips in a step, over all processes")
    frames: int = Field(default=3, ge=2, description="frames of a clip")
    gap: int = Field(default=2, ge=1, description="frames between two frames of a clip")
    most_frames: int = Field(default=60, ge=2, description="of a video that are used at most, spread over it")
    valid: float = Field(default=0.2, gt=0, lt=1, description="share of the videos that is held out")
    queries: int = Field(default=8, ge=1, description="random queries of each frame (attention)")
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.99, ge=0, lt=1, description="decay of the teacher's average (slots)")
    patience: int | None = Field(default=None, ge=1, description="epochs without a better validation before it ends")
    minutes: float | None = Field(default=None, gt=0, description="end cleanly after so long; resume goes on")


class PretrainConfig(Config):
    """The small ViT of `pretrain` and its self-distillation."""

    patch: int = Field(default=8, ge=2)
    dim: int = Field(default=128, ge=16)
    depth: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    crop: int = Field(default=64, ge=16, description="pixels of a global crop")
    local: int = Field(default=32, ge=16, description="pixels of a local crop")
    locals: int = Field(default=4, ge=0, description="local crops of an image")
    prototypes: int = Field(default=1024, ge=8)
    teacher: float = Field(default=0.996, ge=0, lt=1, description="decay of the teacher's average")
    steps: int = Field(default=50, ge=1)
    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=16, ge=2, description="images in a step")
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.04, ge=0)

    @model_validator(mode="after")
    def _check(self) -> "PretrainConfig":
        if self.crop % self.patch or self.local % self.patch:
            raise ValueError(f"pretrain.crop and pretrain.local are multiples of pretrain.patch {self.patch}")
        if self.dim % self.heads:
            raise ValueError(f"pretrain.dim {self.dim} is not divisible by pretrain.heads {self.heads}")
        return self


class VideoConfig(Config):
    """A whole video run."""

    features: FeaturesConfig = FeaturesConfig()
    propagate: PropagateConfig = PropagateConfig()
    salient: SalientConfig = SalientConfig()
    tokencut: TokencutConfig = TokencutConfig()
    cluster: ClusterConfig = ClusterConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    pretrain: PretrainConfig = PretrainConfig()
