"""Relative attention of Music Transformer, global, with further relations such as pitch and time.

House notation: B batch, H heads, L queries, S keys, D head width, R the number of distances that have an embedding.
"""

import math

import torch
from torch import Tensor, nn

from shared.attention.blocked import blocked_attention
from shared.attention.cache import KeyValueCache
from shared.attention.distance import relation_logits, relative_logits, shaw_logits
from shared.attention.functional import attend, causal_mask, masked_softmax, merge_heads, plain_attention, split_heads
from shared.attention.record import capture, recording
from shared.attention.registry import Mechanism, register


class RelativeAttention(nn.Module):
    """Self-attention with learned embeddings of relative distance, global, evaluated in blocks of queries.

    softmax((Q K^T + S_rel) / sqrt(D)) V with S_rel[i, j] = q_i . E[j - i], plus q_i . R[c_j - c_i] for each relation.

    Shape:
        x (B, L, dim) -> (B, L, dim). `coordinates`: for each relation a (B, L) integer tensor. `keep` (B, L): False
        closes a key (padding; not together with a cache). With `cache`, x holds the next positions only. Recorded map:
        (B, H, L, S).
    Reference:
        Huang et al. 2018, Music Transformer, arXiv 1809.04281, sections 3 and 4.
    Deviations:
        Distances of `max_distance` or more contribute zero (the paper: an embedding each, up to its maximum length;
        the authors' code: likewise zero). `max_distance=0` is plain attention: the paper's ablation. Not causal: rows
        for both directions. Relations use both signs of the difference; the paper does not say.
    Complexity:
        O(L S D) time a head; memory for the logits O(block x S), in evaluation and in training (see
        `blocked_attention`).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        max_distance: int,
        *,
        attention_dim: int | None = None,
        relations: dict[str, int] | None = None,
        causal: bool = True,
        block: int = 256,
    ) -> None:
        super().__init__()
        inner = attention_dim or dim
        if inner % heads:
            raise ValueError(f"attention width {inner} is not divisible by {heads} heads")
        self.heads, self.causal, self.block = heads, causal, block
        width = inner // heads
        self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.out = nn.Linear(inner, dim, bias=False)
        rows = max_distance if causal else max(0, 2 * max_distance - 1)
        self.distance = nn.Parameter(torch.randn(heads, rows, width) * width**-0.5) if rows else None
        self.relations = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(heads, 2 * reach - 1, width) * width**-0.5)
                for name, reach in (relations or {}).items()
            }
        )

    def new_cache(self, window: int) -> KeyValueCache:
        return KeyValueCache(window)

    def forward(
        self,
        x: Tensor,
        coordinates: dict[str, Tensor] | None = None,
        keep: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        at = {name: (coordinates or {})[name] for name in self.relations}
        key_at, window = at, 0
        if cache is not None:
            window = cache.window
            k, v, key_at = cache.append(k, v, at)
        elif torch.is_grad_enabled() and not recording():
            return self.out(merge_heads(self._train(q, k, v, at, keep)))
        queries, keys = q.shape[-2], k.shape[-2]
        past = keys - queries
        blocks = []
        step = queries if recording() else self.block
        for start in range(0, queries, step):
            stop = min(start + step, queries)
            end = past + stop if self.causal else keys
            blocks.append(
                self._block(
                    q[..., start:stop, :],
                    k[..., :end, :],
                    v[..., :end, :],
                    {name: c[:, start:stop] for name, c in at.items()},
                    {name: c[:, :end] for name, c in key_at.items()},
                    None if keep is None else keep[:, None, None, :end],
                    past + start,
                    window,
                )
            )
        return self.out(merge_heads(torch.cat(blocks, -2)))

    def _block(self, q, k, v, query_at, key_at, keep, first: int, window: int) -> Tensor:
        if recording():
            out, weights = self._explicit(q, k, v, query_at, key_at, keep, first, window)
            capture(self, weights)
            return out
        if torch.is_grad_enabled():
            return self._explicit(q, k, v, query_at, key_at, keep, first, window)[0]
        bias = self._bias(q, query_at, key_at, k.shape[-2], first)
        mask = self._mask(q, k.shape[-2], keep, first, window)
        return attend(q, k, v, bias=None if bias is None else bias / math.sqrt(q.shape[-1]), mask=mask)

    def _train(self, q: Tensor, k: Tensor, v: Tensor, at: dict[str, Tensor], keep: Tensor | None) -> Tensor:
        q = q / math.sqrt(q.shape[-1])
        relations = [(q @ table.transpose(-2, -1), at[name]) for name, table in self.relations.items()]
        return blocked_attention(
            q, k, v, self.distance, causal=self.causal, block=self.block, keep=keep, relations=relations
        )

    def _explicit(self, q, k, v, query_at, key_at, keep, first: int, window: int) -> tuple[Tensor, Tensor]:
        q = q / math.sqrt(q.shape[-1])  # scales both terms of the logits at the smallest tensor
        logits = q @ k.transpose(-2, -1)
        bias = self._bias(q, query_at, key_at, k.shape[-2], first)
        if bias is not None:
            logits = logits + bias
        mask = self._mask(q, k.shape[-2], keep, first, window)
        if keep is None and mask is not None:  # every row sees itself: no row to guard
            weights = logits.masked_fill_(~mask, float("-inf")).softmax(-1)
        else:
            weights = masked_softmax(logits, mask)
        return weights @ v, weights

    def _bias(self, q, query_at, key_at, keys: int, first: int) -> Tensor | None:
        terms = [] if self.distance is None else [relative_logits(q, self.distance, keys, first, self.causal)]
        terms += [relation_logits(q, table, query_at[name], key_at[name]) for name, table in self.relations.items()]
        return sum(terms[1:], terms[0]) if terms else None

    def _mask(self, q: Tensor, keys: int, keep: Tensor | None, first: int, window: int) -> Tensor | None:
        mask = keep
        if self.causal:
            distance = (
                torch.arange(keys, device=q.device) - torch.arange(first, first + q.shape[-2], device=q.device)[:, None]
            )
            visible = distance <= 0
            if window:
                visible &= distance > -window
            mask = visible if mask is None else mask & visible
        return mask


def plain_relative(
    module: RelativeAttention, x: Tensor, coordinates: dict[str, Tensor] | None = None, keep: Tensor | None = None
) -> Tensor:
    """`RelativeAttention` written plainly from its equation: the reference of its tests."""
    q, k, v = (split_heads(part, module.heads) for part in module.qkv(x).chunk(3, -1))
    length = x.shape[1]
    bias = torch.zeros(1, dtype=x.dtype, device=x.device)
    if module.distance is not None:
        bias = bias + shaw_logits(q, module.distance, length, module.causal)
    for name, table in module.relations.items():
        reach = (table.shape[1] + 1) // 2
        at = (coordinates or {})[name]
        difference = at[:, None, :] - at[:, :, None]
        pairs = table[:, (difference + reach - 1).clamp(0, 2 * reach - 2)] * (difference.abs() < reach)[..., None]
        bias = bias + torch.einsum("bhld,hblsd->bhls", q, pairs)
    mask = torch.ones(length, length, dtype=torch.bool, device=x.device)
    if module.causal:
        mask = causal_mask(length, length, x.device)
    if keep is not None:
        mask = mask & keep[:, None, None, :]
    out, _ = plain_attention(q, k, v, bias=bias / math.sqrt(q.shape[-1]), mask=mask)
    return module.out(merge_heads(out))


def _inputs(batch: int, length: int, dim: int, generator: torch.Generator) -> dict:
    x = torch.randn(batch, length, dim, generator=generator, dtype=torch.float64)
    # Pitches further apart than the table reaches are among them.
    pitch = torch.randint(40, 60, (batch, length), generator=generator)
    return {"x": x, "coordinates": {"pitch": pitch, "time": torch.arange(length).expand(batch, length) // 4}}


for _name, _arguments in {
    "relative global": {},
    "relative pitch and time": {"relations": {"pitch": 6, "time": 2}},
    "relative bidirectional": {"causal": False},
    "plain": {"max_distance": 0},
}.items():
    register(
        Mechanism(
            name=_name,
            build=lambda dim, heads, arguments=_arguments: RelativeAttention(
                dim, heads, **{"max_distance": 5, "block": 4, **arguments}
            ),
            inputs=_inputs,
            reference=plain_relative,
            paper="Huang et al. 2018, arXiv 1809.04281, sections 3 and 4",
            causal=_arguments.get("causal", True),
            cached=_arguments.get("causal", True),
            mask="keep",
        )
    )
