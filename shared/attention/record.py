"""Capture attention maps for explanation.

The fused kernels never build the map, so a mechanism builds it only while a recording is open.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

_sink: ContextVar[dict[int, list[Tensor]] | None] = ContextVar("attention_maps", default=None)


def recording() -> bool:
    """True inside `record_attention`: mechanisms then take the path that yields their weights."""
    return _sink.get() is not None


def capture(module: nn.Module, weights: Tensor) -> None:
    """Hand the weights of one call of `module` to the open recording, if there is one."""
    sink = _sink.get()
    if sink is not None and id(module) in sink:
        sink[id(module)].append(weights.detach())


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Collect every attention map of `model` while the context is open; of modules beside it none is kept.

    Yields a dictionary that is filled when the context closes: qualified module name -> one tensor a call, each
    (B, H, L, S) for sequence attention (what the axes mean stands in the mechanism's docstring).

    >>> with record_attention(model) as maps:
    ...     model(x)
    >>> maps["blocks.0.attention"][0].shape
    """
    maps: dict[str, list[Tensor]] = {}
    found: dict[int, list[Tensor]] = {id(module): [] for module in model.modules()}
    token = _sink.set(found)
    try:
        yield maps
    finally:
        _sink.reset(token)
        maps.update({name: found[id(module)] for name, module in model.named_modules() if found[id(module)]})
