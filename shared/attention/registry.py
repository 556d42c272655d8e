"""The list of mechanisms. An entry here is what the contract tests, the benchmarks and the docs go over."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Mechanism:
    """One attention mechanism and what the contract needs to know of it.

    Fields:
        build: (dim, heads) -> a small module; `dim` is divisible by `heads`, and either may be odd.
        inputs: (batch, length, dim, generator) -> the module's arguments by name, in float64. The value under `x` is
            the one that gets perturbed and differentiated; the module may take fewer of them (what it does not name is
            left out).
        reference: (module, **inputs) -> what the module must return, written plainly from the equation.
        causal: position t of the output (B, L, ...) depends on inputs up to t only.
        cached: the module decodes step by step through `new_cache` and equals itself without the cache.
        mask: the name of the argument that closes keys (B, S), or None.
        pooled: the second axis of the output is not that of the input (slots, bags); it holds no closed queries.
        normalised: recorded weights sum to one over the last axis; False: they are gates, each between 0 and 1.
        paper: where the equation stands.
    """

    name: str
    build: Callable[[int, int], nn.Module]
    inputs: Callable[..., dict[str, Any]]
    reference: Callable[..., Tensor]
    paper: str
    causal: bool = False
    cached: bool = False
    mask: str | None = None
    pooled: bool = False
    normalised: bool = True
    lengths: tuple[int, ...] = field(default=(1, 2, 7, 16, 37))


MECHANISMS: dict[str, Mechanism] = {}


def register(mechanism: Mechanism) -> None:
    """Add a mechanism. Raises ValueError when the name is taken."""
    if mechanism.name in MECHANISMS:
        raise ValueError(f"attention mechanism {mechanism.name!r} is registered twice")
    MECHANISMS[mechanism.name] = mechanism
