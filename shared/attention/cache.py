"""The past of a decoder: keys and values, kept in a window that slides."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class KeyValueCache:
    """Keys, values and coordinates of the past, for decoding; a sliding window once `window` positions are held.

    `length` counts all positions ever seen, `coordinates` holds (B, S) integers by relation, S <= window.
    Nothing is recomputed when the window slides: a kept position keeps what it had read from positions that have
    since left.
    """

    window: int
    length: int = 0
    coordinates: dict[str, Tensor] = field(default_factory=dict)
    _k: Tensor | None = None
    _v: Tensor | None = None
    _start: int = 0
    _end: int = 0

    def append(self, k: Tensor, v: Tensor, coordinates: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Add n positions; returns all of the past that they may see: at most `window` + n - 1 positions."""
        new = k.shape[-2]
        if self._k is None or self._v is None or self._end + new > self._k.shape[-2]:
            self._make_room(k, v, new)
        assert self._k is not None
        assert self._v is not None
        self._k[..., self._end : self._end + new, :] = k
        self._v[..., self._end : self._end + new, :] = v
        self._end += new
        self.length += new
        visible_from = max(self._start, self._end - self.window - new + 1)
        self._start = max(self._start, self._end - self.window)
        seen = {
            name: torch.cat([self.coordinates[name], at], -1) if name in self.coordinates else at
            for name, at in coordinates.items()
        }
        count = self._end - visible_from
        seen = {name: at[..., -count:] for name, at in seen.items()}
        self.coordinates = {name: at[..., -self.window :] for name, at in seen.items()}
        return self._k[..., visible_from : self._end, :], self._v[..., visible_from : self._end, :], seen

    def expand(self, batch: int) -> "KeyValueCache":
        """The same past for `batch` continuations (from batch 1): one prefill serves them all."""
        return self._mapped(lambda x: x.expand(batch, *x.shape[1:]).clone())

    def select(self, rows: Tensor) -> "KeyValueCache":
        """The pasts of the given rows of the batch, (B',) indices; rows may be left out or come twice."""
        return self._mapped(lambda x: x[rows])

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "KeyValueCache":
        k, v = (None if x is None else change(x) for x in (self._k, self._v))
        coordinates = {name: change(at) for name, at in self.coordinates.items()}
        return KeyValueCache(self.window, self.length, coordinates, k, v, self._start, self._end)

    def _make_room(self, k: Tensor, v: Tensor, new: int) -> None:
        # Buffers grow by doubling up to twice the window and are then compacted: appending costs O(1) on average.
        held = self._end - self._start
        wanted = held + new
        size = max(64, 2 * wanted)
        if self.window < size:
            size = max(2 * self.window, wanted)
        for name, like in (("_k", k), ("_v", v)):
            old = getattr(self, name)
            buffer = like.new_empty(*like.shape[:-2], size, like.shape[-1])
            if old is not None:
                buffer[..., :held, :] = old[..., self._start : self._end, :]
            setattr(self, name, buffer)
        self._start, self._end = 0, held
