"""Sampling token by token with a key/value cache, under a grammar that keeps every sequence legal and ends it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apps.music.codecs.performance import clock_of
from apps.music.model import MusicTransformer

COLDEST = 1e-3  # below it the likeliest token has all the probability, and logits / temperature overflow


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: from softmax(logits / temperature) over the `top_k` likeliest (0: all), and of these
    the fewest that hold a share of `top_p`. `seed` makes it repeatable."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Draw one token a row: logits (B, V), illegal ones -inf -> (B,).

    Reference: Holtzman et al. 2020, arXiv 1904.09751 (top-p); temperature 0 takes the likeliest.
    """
    if sampling.temperature < COLDEST:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if sampling.top_k:
        kth = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    probabilities = logits.softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(-1, descending=True)
        # A token stays while the share of those before it is below top_p; so the first always stays.
        ordered = ordered * (ordered.cumsum(-1) - ordered < sampling.top_p)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


@torch.inference_mode()
def sample(
    model: MusicTransformer,
    grammar,
    prompt: np.ndarray,
    sampling: Sampling,
    *,
    window: int,
    melody: np.ndarray | None = None,
    particles: int = 0,
    on_step: Callable[[], None] | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Continue one prompt into as many sequences as the grammar has, all sharing one prefill.

    Shape: prompt (P,) with BOS; melody (S,) tokens for an accompaniment model. Returns for each sequence its new
    tokens, with neither BOS nor EOS, and (B,) the mean log-likelihood of a token under the model at temperature 1, over
    the legal tokens. `on_step` is called after each token.

    `particles` > 0 marks every so many tokens (a time step) as the place where sequences may be resampled: those that
    explain badly what the grammar forces upon them are replaced by copies of better ones (a particle filter), so that a
    given voice steers the free voices before it, too. Reference: Gordon et al. 1993, "Novel approach to
    nonlinear/non-Gaussian Bayesian state estimation".
    """
    model.eval()
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(sampling.seed)
    cache = model.new_cache(window)
    clock = clock_of(prompt) if melody is not None else None
    if melody is not None:
        cache.memory = model.encode(as_batch(melody, device), clock=as_batch(clock_of(melody), device))
    at = None if clock is None else as_batch(clock, device)
    logits = model(as_batch(prompt, device), clock=at, cache=cache)[:, -1]
    batch = grammar.batch
    cache, logits = cache.expand(batch), logits.expand(batch, -1)
    now = None if clock is None else np.full(batch, clock[-1])
    drawn: list[np.ndarray] = []
    total, count, weight = np.zeros(batch), np.zeros(batch), np.zeros(batch)
    while not grammar.done.all():
        allowed = grammar.allowed()
        legal = torch.from_numpy(allowed).to(device)
        closed = logits.float().masked_fill(~legal, float("-inf"))
        tokens = choose(closed, sampling, generator)
        forced = allowed.sum(-1) == 1
        # A forced token is judged against every token of its kind, a free one against the legal ones.
        judged = torch.where(torch.from_numpy(forced).to(device)[:, None], logits.float(), closed).log_softmax(-1)
        likelihood = judged.gather(-1, tokens[:, None]).squeeze(-1).cpu().numpy()
        chosen = tokens.cpu().numpy()
        live = ~grammar.done & (chosen < model.logits.out_features - 3)
        total, count = total + np.where(live, likelihood, 0), count + live
        weight += np.where(live & forced, likelihood, 0)
        grammar.advance(chosen)
        drawn.append(chosen)
        if particles and len(drawn) % particles == 0:
            kept = resample(weight, sampling.seed + len(drawn))
            if kept is not None:
                cache, tokens, weight = cache.select(torch.from_numpy(kept).to(device)), tokens[kept], np.zeros(batch)
                drawn = [step[kept] for step in drawn]
                total, count = total[kept], count[kept]
        if grammar.done.all():
            break
        if now is not None:
            now = now + clock_of(chosen[:, None], axis=1)[:, 0]
        at = None if now is None else torch.from_numpy(now[:, None]).to(device)
        logits = model(tokens[:, None], clock=at, cache=cache)[:, -1]
        if on_step:
            on_step()
    columns = np.stack(drawn, 1)
    return [row[row < model.logits.out_features - 3] for row in columns], total / np.maximum(count, 1)


def as_batch(tokens: np.ndarray, device: torch.device) -> Tensor:
    return torch.as_tensor(np.asarray(tokens, dtype=np.int64), device=device)[None]


def resample(log_weight: np.ndarray, seed: int) -> np.ndarray | None:
    """Systematic resampling of particles when fewer than half count; None when they are still even enough."""
    share = np.exp(log_weight - log_weight.max())
    share /= share.sum()
    if 1 / (share**2).sum() >= len(share) / 2:
        return None
    at = (np.random.default_rng(seed).random() + np.arange(len(share))) / len(share)
    return np.minimum(np.searchsorted(share.cumsum(), at), len(share) - 1)
