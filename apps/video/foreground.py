"""What the sampled frames' cuts agree on: a linear rule for what is the object, for all frames of a video.

House notation: T frames, h and w cells, C channels, N tokens.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from apps.video.config import TokencutConfig
from apps.video.motion import own_motion
from apps.video.tokencut import tokencut


@dataclass(frozen=True)
class Consensus:
    """A rule: the foreground is where w . (f - mean) / deviation + b is above 0."""

    mean: Tensor
    deviation: Tensor
    weights: Tensor  # (C + 1,)
    contrast: float  # mean over the cuts

    def label(self, keys: Tensor, _: Tensor) -> Tensor:
        """Keys (h, w, C) -> soft labels (2, h, w)."""
        score = features_of(keys, self.mean, self.deviation) @ self.weights
        share = (4 * score).sigmoid()
        return torch.stack([1 - share, share])


def features_of(keys: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Standardised keys (..., C), and a 1: (..., C + 1)."""
    return F.pad((keys - mean) / deviation, (0, 1), value=1.0)


def fit_consensus(sampled: list[tuple[Tensor, Tensor]], config: TokencutConfig) -> Consensus:
    """Cut groups of frames, take the part that moves by itself for the object, and fit one rule to all of them.

    `sampled` are keys (h, w, C) with those of the frame before. The rule is ridge regression on labels of +1 and -1, in
    which both have the same weight: what only one frame's cut calls an object is outvoted.
    """
    keys = torch.stack([now for now, _ in sampled])
    motion = torch.stack([own_motion(now, before) for now, before in sampled])
    masks, contrasts = [], []
    for first in range(0, len(keys), config.frames):
        part = slice(first, first + config.frames)
        cut = tokencut(keys[part], tau=config.tau, epsilon=config.epsilon, motion=motion[part], share=config.motion)
        masks.append(object_side(cut.foreground, motion[part]))
        contrasts.append(cut.contrast)
    mask = torch.cat(masks).flatten()
    mean, deviation = keys.flatten(0, 2).mean(0), keys.flatten(0, 2).std(0).clamp_min(1e-4)
    x = features_of(keys, mean, deviation).flatten(0, 2)
    y = mask.float() * 2 - 1
    weight = torch.where(mask, 1 / mask.sum().clamp_min(1), 1 / (~mask).sum().clamp_min(1))
    gram = (x * weight[:, None]).T @ x + 0.1 * torch.eye(x.shape[1], device=x.device)
    rule = torch.linalg.solve(gram, (x * weight[:, None]).T @ y)
    return Consensus(mean, deviation, rule, sum(contrasts) / len(contrasts))


def object_side(foreground: Tensor, motion: Tensor) -> Tensor:
    """Of the two parts (T, h, w) the one that is the object: it moves more, and touches the frame's border less."""
    speed = motion.norm(dim=-1)
    border = torch.ones_like(foreground)
    border[:, 1:-1, 1:-1] = False

    def evidence(part: Tensor) -> float:
        if not part.any() or part.all():
            return -1.0
        inside = float(speed[part].mean()) / float(speed.mean() + 1e-6)
        return inside - float(part[border].float().mean()) / float(part.float().mean())

    return foreground if evidence(foreground) >= evidence(~foreground) else ~foreground
