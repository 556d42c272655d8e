"""The exponential moving average of a model's weights, which is validated and shipped in place of the last weights."""

import contextlib
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn


class WeightAverage(Callback):
    """Keeps a moving average of the parameters of `task.model`; validation sees it in their place.

    After the n-th optimiser step: average <- average + (1 - d) (weights - average), d = min(decay, (1 + n) / (10 + n)).
    The second term lets the average follow at first, as in the exponential moving average of TensorFlow. Buffers are
    not averaged. One fused operation a step; between optimiser steps (gradient accumulation) there is none.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of the average lies in [0, 1), not at {decay}")
        self.decay = decay
        self.updates = 0
        self._step = 0
        self._averages: dict[str, Tensor] = {}
        self._set_aside: list[Tensor] | None = None
        self._parameters: list[Tensor] = []

    def attach(self, model: nn.Module) -> None:
        """Starts the average at the model's weights, or takes the loaded one to the model's device."""
        named = dict(model.named_parameters())
        old = self._averages
        if old and old.keys() != named.keys():
            raise ValueError("the average that was loaded belongs to a model with other parameters")
        with torch.inference_mode(False):
            # Always a copy: the average must never be the parameter itself.
            self._averages = {
                name: _wide(old.get(name, p).detach()).to(p.device, copy=True) for name, p in named.items()
            }
        self._parameters = list(named.values())

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        weights = [_wide(parameter) for parameter in self._parameters]
        torch._foreach_lerp_(list(self._averages.values()), weights, 1 - decay)  # pyright: ignore

    def _exchange(self) -> None:
        """Puts the average into the model, or the weights back that the average took the place of."""
        with torch.inference_mode(False), torch.no_grad():
            if self._set_aside is None:
                self._set_aside = [parameter.detach().clone() for parameter in self._parameters]
                torch._foreach_copy_(self._parameters, list(self._averages.values()))  # pyright: ignore
            else:
                torch._foreach_copy_(self._parameters, self._set_aside)  # pyright: ignore
                self._set_aside = None

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model has the averaged weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.attach(model_of(pl_module))

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self.update()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._exchange()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._exchange()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if self._set_aside is not None:
            self._exchange()

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "averages": self._averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]
        self._averages = dict(state_dict["averages"])


def _wide(weights: Tensor) -> Tensor:
    """In at least 32 bits: the steps of an average are smaller than half precision can add."""
    return weights.float() if weights.dtype in (torch.float16, torch.bfloat16) else weights


def model_of(task: lightning.LightningModule) -> nn.Module:
    """The module that is shipped: `task.model`."""
    model = getattr(task, "model", None)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{type(task).__name__} has no nn.Module called model, which is what training ships")
    return model


def shipped_weights(model: nn.Module, average: WeightAverage | None) -> dict[str, Tensor]:
    """A copy, on the CPU, of the model's state_dict with the averaged weights where there is an average."""
    with torch.inference_mode(False), average.in_place() if average is not None else contextlib.nullcontext():
        return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
