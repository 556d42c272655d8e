"""Music Transformer: a decoder over music tokens, or an encoder-decoder that accompanies a melody.

House notation: B batch, L length in tokens, C width, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention.cache import KeyValueCache
from shared.attention.functional import attend, merge_heads, split_heads
from shared.attention.local import LocalRelativeAttention
from shared.attention.relative import RelativeAttention

NO_PITCH = 1 << 20  # a coordinate that lies beyond any table against every pitch


@dataclass
class DecoderCache:
    """What decoding keeps: a key/value window a layer, and for accompaniment the encoded melody."""

    layers: list[KeyValueCache]
    length: int = 0
    memory: Tensor | None = None

    def expand(self, batch: int) -> "DecoderCache":
        """The same past for `batch` continuations (from batch 1)."""
        memory = None if self.memory is None else self.memory.expand(batch, *self.memory.shape[1:])
        return DecoderCache([cache.expand(batch) for cache in self.layers], self.length, memory)

    def select(self, rows: Tensor) -> "DecoderCache":
        """The pasts of the given rows of the batch."""
        memory = None if self.memory is None else self.memory[rows]
        return DecoderCache([cache.select(rows) for cache in self.layers], self.length, memory)


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """(B, L) positions -> (B, L, width) sinusoids. Reference: Vaswani et al. 2017, arXiv 1706.03762, section 3.5."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10_000.0) / max(1, half - 1)))
    angles = positions[..., None] * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], -1), (0, width - 2 * half))


class CrossAttention(nn.Module):
    """Queries from the decoder, keys and values from the encoded melody; x (B, L, C), memory (B, S, C) -> (B, L, C)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, memory: Tensor, keep: Tensor | None) -> Tensor:
        q = split_heads(self.q(x), self.heads)
        k, v = (split_heads(part, self.heads) for part in self.kv(memory).chunk(2, -1))
        return self.out(merge_heads(attend(q, k, v, mask=None if keep is None else keep[:, None, None, :])))


class Block(nn.Module):
    """Pre-norm Transformer layer: self-attention, cross-attention when there is a melody, feed-forward with ReLU."""

    def __init__(
        self, dim: int, feed_forward: int, dropout: float, attention: nn.Module, cross: nn.Module | None
    ) -> None:
        super().__init__()
        self.attention, self.cross = attention, cross
        self.norm_attention = nn.LayerNorm(dim)
        self.norm_cross = nn.LayerNorm(dim) if cross is not None else None
        self.norm_feed_forward = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, feed_forward), nn.ReLU(), nn.Linear(feed_forward, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        coordinates: dict[str, Tensor],
        keep: Tensor | None = None,
        cache: KeyValueCache | None = None,
        memory: Tensor | None = None,
        memory_keep: Tensor | None = None,
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x), coordinates, keep=keep, cache=cache))
        if self.cross is not None and self.norm_cross is not None:
            x = x + self.dropout(self.cross(self.norm_cross(x), memory, memory_keep))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))


class MusicTransformer(nn.Module):
    """Next-token logits over music tokens.

    Arguments:
        attention: "global" or "local" (the window of `local_block`); `max_distance` = 0 takes relative attention away.
        positions: "none", "add" or "concat": absolute sinusoids (the paper's baselines; its best JSB row concatenates
        them).
        voices: tokens a time step of the raster (4 for chorales); 1 where there is none.
        labels: the model knows which voice comes next (the paper's instrument labels) and the step's place in a bar
        of `bar` steps.
        relations: names out of {"time", "pitch"}: relative time and pitch in the first layer (raster only).
        source_vocab: not 0: an encoder over melody tokens (accompaniment) and, on both sides, the time of each token.
    Shape:
        tokens (B, L) with BOS first, `start` (B,) the index of the first token in its piece -> logits (B, L, V);
        source (B, S) melody tokens, source_keep (B, S) False at padding; clock (B, L) and source_clock (B, S) the
        time after each token in steps of 10 ms, counted from one zero.
    Reference:
        Huang et al. 2018, Music Transformer, arXiv 1809.04281, sections 3 and 4.
    Deviations:
        The place in the bar is ours (the paper's raster models know it only through absolute positions). Pre-norm, as
        the authors' code. Labels are added to the embedding, not concatenated. The clocks are ours: they align melody
        and accompaniment, which relative attention inside each alone cannot. Dropout after each sub-layer, none inside.
    """

    def __init__(
        self,
        vocab: int,
        dim: int = 256,
        attention_dim: int = 256,
        heads: int = 8,
        layers: int = 5,
        feed_forward: int = 1024,
        dropout: float = 0.1,
        attention: str = "global",
        max_distance: int = 1024,
        local_block: int = 512,
        positions: str = "none",
        voices: int = 1,
        labels: bool = False,
        bar: int = 16,
        relations: Sequence[str] = (),
        source_vocab: int = 0,
        source_layers: int = 3,
    ) -> None:
        super().__init__()
        self.voices, self.bar, self.positions = voices, bar, positions
        reach = {"time": max(1, max_distance // voices), "pitch": 64}
        token_width = dim - dim // 2 if positions == "concat" else dim
        self.embed = nn.Embedding(vocab, token_width)
        self.voice = nn.Embedding(voices, dim) if labels else None
        self.place = nn.Embedding(bar, dim) if labels else None

        def self_attention(index: int) -> nn.Module:
            first = {name: reach[name] for name in relations} if index == 0 else {}
            if attention == "local":
                return LocalRelativeAttention(
                    dim, heads, local_block, attention_dim=attention_dim, relative=max_distance > 0
                )
            return RelativeAttention(dim, heads, max_distance, attention_dim=attention_dim, relations=first)

        self.blocks = nn.ModuleList(
            Block(dim, feed_forward, dropout, self_attention(i), CrossAttention(dim, heads) if source_vocab else None)
            for i in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.logits = nn.Linear(dim, vocab)
        self.dropout = nn.Dropout(dropout)
        self.source_embed = nn.Embedding(source_vocab, dim) if source_vocab else None
        self.source_blocks = nn.ModuleList(
            Block(
                dim,
                feed_forward,
                dropout,
                RelativeAttention(dim, heads, max_distance, causal=False),
                None,
            )
            for _ in range(source_layers if source_vocab else 0)
        )
        self.source_norm = nn.LayerNorm(dim) if source_vocab else None
        for table in (self.embed, self.voice, self.place, self.source_embed):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02 if table is not self.embed else dim**-0.5)

    def forward(
        self,
        tokens: Tensor,
        start: Tensor | None = None,
        *,
        clock: Tensor | None = None,
        source: Tensor | None = None,
        source_keep: Tensor | None = None,
        source_clock: Tensor | None = None,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        batch, length = tokens.shape
        past = cache.length if cache is not None else 0
        index = torch.arange(past, past + length, device=tokens.device).expand(batch, length)
        if start is not None:
            index = index + start[:, None]
        memory, memory_keep = cache.memory if cache is not None else None, None
        if memory is None and source is not None:
            memory, memory_keep = self.encode(source, source_keep, source_clock), source_keep
        x = self._embed(tokens, index)
        if self.source_embed is not None and clock is not None:
            x = x + sinusoids(clock, x.shape[-1]).to(x.dtype)
        x = self.dropout(x)
        coordinates = self._coordinates(tokens, index)
        for i, block in enumerate(self.blocks):
            x = block(
                x,
                coordinates if i == 0 else {},
                cache=cache.layers[i] if cache is not None else None,
                memory=memory,
                memory_keep=memory_keep,
            )
        if cache is not None:
            cache.length += length
        return self.logits(self.norm(x))

    def encode(self, source: Tensor, keep: Tensor | None = None, clock: Tensor | None = None) -> Tensor:
        """Melody tokens (B, S) -> memory (B, S, C). Raises ValueError when the model has no encoder."""
        if self.source_embed is None or self.source_norm is None:
            raise ValueError("this model has no encoder: it was not trained to accompany")
        x = self.source_embed(source)
        if clock is not None:
            x = x + sinusoids(clock, x.shape[-1]).to(x.dtype)
        x = self.dropout(x)
        for block in self.source_blocks:
            x = block(x, {}, keep=keep)
        return self.source_norm(x)

    def new_cache(self, window: int) -> DecoderCache:
        """An empty cache that holds `window` positions a layer; the melody of an accompaniment goes into its
        `memory`."""
        return DecoderCache([block.attention.new_cache(window) for block in self.blocks])  # type: ignore[operator]

    def _embed(self, tokens: Tensor, index: Tensor) -> Tensor:
        x = self.embed(tokens)
        if self.positions == "concat":
            x = torch.cat([x, sinusoids(index, self.norm.normalized_shape[0] - x.shape[-1]).to(x.dtype)], -1)
        elif self.positions == "add":
            x = x + sinusoids(index, x.shape[-1]).to(x.dtype)
        if self.voice is not None and self.place is not None:
            x = x + self.voice(index % self.voices) + self.place(index // self.voices % self.bar)
        return x

    def _coordinates(self, tokens: Tensor, index: Tensor) -> dict[str, Tensor]:
        # Index 0 is BOS, so the token at index i belongs to time step (i - 1) // voices.
        time = torch.div(index - 1, self.voices, rounding_mode="floor")
        return {"time": time, "pitch": torch.where(tokens < 128, tokens, NO_PITCH)}
