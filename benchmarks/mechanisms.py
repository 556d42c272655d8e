"""Every mechanism of the core beside its plain reference, which is written from the equation as one would at first.

Width 64, 4 heads, batch 1, forward, float32; the mode is the mechanism. Relative attention, its cache, position
attention, boundary matching and bags have benchmarks of their own, beside what else a user would take.
"""

from collections.abc import Callable

import torch

import shared.attention
from shared.attention.registry import MECHANISMS

shared.attention.import_all()

DIM, HEADS = 64, 4
FORMS = ("module", "plain reference")
SAME = FORMS
AXIS = "length"
SIZES = (64, 256, 1024)
MODES = tuple(MECHANISMS)


def prepare(form: str, size: int, mode: str) -> Callable[[], object] | None:
    import inspect

    mechanism = MECHANISMS[mode]
    torch.manual_seed(0)
    module = mechanism.build(DIM, HEADS).eval()
    call = module if form == "module" else lambda **inputs: mechanism.reference(module, **inputs)
    known = inspect.signature(module.forward if form == "module" else mechanism.reference).parameters
    drawn = mechanism.inputs(1, size, DIM, torch.Generator().manual_seed(1))
    if form == "plain reference" and size > 256 and drawn["x"].ndim == 4:
        return None  # position by position over a map: minutes
    inputs = {name: _single(value) for name, value in drawn.items() if name in known}

    def work() -> torch.Tensor:
        with torch.no_grad():
            return call(**inputs)

    return work


def _single(value):
    """float64, in which the contract is tested, as float32, in which models run."""
    if isinstance(value, dict):
        return {name: _single(one) for name, one in value.items()}
    return value.float() if value.is_floating_point() else value
