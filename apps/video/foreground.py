"""What the sampled frames agree on: one linear rule for what is the object, for all frames of a video.

House notation: T frames, h and w cells, C channels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from apps.video.config import TokencutConfig
from apps.video.motion import own_motion
from apps.video.tokencut import contrast_of, tokencut


@dataclass(frozen=True)
class Rule:
    """The foreground is where w . (f - mean) / deviation + b is above 0."""

    mean: Tensor
    deviation: Tensor
    weights: Tensor  # (C + 1,)
    contrast: float  # how far apart the two sides are, from 0 to 1

    def label(self, keys: Tensor, _: Tensor) -> Tensor:
        """Keys (h, w, C) -> soft labels (2, h, w)."""
        score = features_of(keys, self.mean, self.deviation) @ self.weights
        share = (4 * score).sigmoid()
        return torch.stack([1 - share, share])


def features_of(keys: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Standardised keys (..., C), and a 1: (..., C + 1)."""
    return F.pad((keys - mean) / deviation, (0, 1), value=1.0)


def fit_rule(keys: Tensor, mask: Tensor) -> Rule:
    """One rule for the object in keys (T, h, w, C), which mask (T, h, w) marks roughly.

    Ridge regression on labels of +1 and -1, in which both sides have the same weight: what is called an object in one
    frame and looks like the rest of all others is outvoted.
    """
    flat, part = keys.flatten(0, 2), mask.flatten()
    mean, deviation = flat.mean(0), flat.std(0).clamp_min(1e-4)
    x = features_of(flat, mean, deviation)
    weight = torch.where(part, 1 / part.sum().clamp_min(1), 1 / (~part).sum().clamp_min(1))
    gram = (x * weight[:, None]).T @ x + 0.1 * torch.eye(x.shape[1], device=x.device)
    rule = torch.linalg.solve(gram, (x * weight[:, None]).T @ (part.float() * 2 - 1))
    return Rule(mean, deviation, rule, sum(map(contrast_of, keys.flatten(1, 2), mask.flatten(1))) / len(keys))


def salient(salience: Tensor, above: float) -> Tensor:
    """Which cells (T, h, w) lie `above` deviations over the mean of all; none where all are the same."""
    return salience - salience.mean() > above * salience.std().clamp_min(1e-6)


def cut(keys: Tensor, before: Tensor, salience: Tensor, config: TokencutConfig) -> Tensor:
    """TokenCut on groups of frames, of which the more salient part is the object: (T, h, w, C) twice -> (T, h, w)."""
    masks = []
    for first in range(0, len(keys), config.frames):
        part = slice(first, first + config.frames)
        motion = None
        if config.motion:
            motion = torch.stack([own_motion(a, b) for a, b in zip(keys[part], before[part], strict=True)])
        found = tokencut(keys[part], tau=config.tau, epsilon=config.epsilon, motion=motion, share=config.motion)
        masks.append(object_side(found.foreground, salience[part]))
    return torch.cat(masks)


def object_side(foreground: Tensor, salience: Tensor) -> Tensor:
    """Of the two parts (T, h, w) the one whose mean salience is higher; nothing where there is one part only."""
    if foreground.all() or not foreground.any():
        return torch.zeros_like(foreground)
    return foreground if salience[foreground].mean() >= salience[~foreground].mean() else ~foreground
