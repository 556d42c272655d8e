"""What can be set in a recommendation run; the shipped settings are the TOML files in `configs/`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from shared.config import Config

CONFIGS = Path(__file__).parent / "configs"


class DataConfig(Config):
    """How a file becomes sequences; columns that are not named are found by their usual names."""

    format: Literal["auto", "atomic", "lines", "table"] = "auto"
    user: str | None = Field(default=None, description="the column of user ids")
    item: str | None = Field(default=None, description="the column of item ids")
    time: str | None = Field(default=None, description="the column of times; none: the order of the file")
    rating: str | None = Field(default=None, description="the column of ratings, for min_rating")
    titles: str | None = Field(default=None, description="a second file with item ids and titles")
    title: str | None = Field(default=None, description="the column of titles")
    min_rating: float | None = Field(default=None, description="leave out events rated lower")
    min_user_events: int = Field(default=1, ge=1, description="leave out users with fewer, until nothing changes")
    min_item_events: int = Field(default=1, ge=1, description="leave out items with fewer, until nothing changes")
    repeats: bool = Field(default=True, description="keep further events of a user with the same item")


class ModelConfig(Config):
    """The arguments of `SequenceRecommender`; see its docstring."""

    dim: int = Field(default=64, ge=4)
    heads: int = Field(default=1, ge=1)
    length: int = Field(default=50, ge=2, description="the last so many items of a user are seen")
    windows: tuple[int, ...] = Field(default=(1, 3), description="the reach of each branch's query")
    weights: tuple[float, ...] = Field(default=(0.5, 0.5), description="the share of each branch")
    dropout: float = Field(default=0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.dim % self.heads:
            raise ValueError(f"model.dim {self.dim} is not divisible by model.heads {self.heads}")
        if not self.windows or len(self.windows) != len(self.weights):
            raise ValueError("model.windows and model.weights are lists of one length, with at least one entry")
        if min(self.windows) < 1 or min(self.weights) <= 0:
            raise ValueError("model.windows are at least 1, and model.weights above 0; leave a branch out instead")
        return self


class TedConfig(Config):
    """Transition-aware embedding distillation."""

    weight: float = Field(default=0.1, ge=0, description="lambda; 0 takes it away")
    temperature: float = Field(default=0.1, ge=0.02, description="tau")
    span: int = Field(default=1, ge=1, description="a transition reaches so many steps")
    share: float = Field(default=1.0, gt=0, le=1, description="of the input positions, drawn anew in every step")


class TrainConfig(Config):
    """How long and how fast; an epoch is `passes` passes over all users, then a validation and a checkpoint."""

    epochs: int = Field(default=200, ge=1)
    passes: int = Field(default=1, ge=1)
    batch: int = Field(default=256, ge=1, description="users in a step, over all processes")
    negatives: int = Field(default=0, ge=0, description="shared negatives of a step; 0: all items (full softmax)")
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = Field(default=1e-4, ge=0, description="coupled, as in Adam")
    patience: int = Field(default=20, ge=1, description="epochs without a better validation NDCG@20 before the end")
    minutes: float | None = Field(default=None, gt=0, description="end cleanly after so many minutes")


class RecommendationConfig(Config):
    """A whole recommendation run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    ted: TedConfig = TedConfig()
    train: TrainConfig = TrainConfig()
