"""What the sampled frames agree on: one linear rule for what is the object, for all frames of a video.

House notation: T frames, H and W pixels, h and w cells, C channels, N colours, K objects.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from apps.video.config import TokencutConfig
from apps.video.motion import own_motion
from apps.video.tokencut import tokencut


@dataclass(frozen=True)
class Rule:
    """The foreground is where w . (f - mean) / deviation + b is above 0."""

    mean: Tensor
    deviation: Tensor
    weights: Tensor  # (C + 1,)
    contrast: float  # how well it tells the two sides apart: the share of their variance that it explains

    def label(self, keys: Tensor) -> Tensor:
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
    wanted = part.float() * 2 - 1
    rule = torch.linalg.solve(gram, (x * weight[:, None]).T @ wanted)
    missed = float((weight * (x @ rule - wanted).square()).sum() / weight.sum())
    return Rule(mean, deviation, rule, max(0.0, 1 - missed) if part.any() and not part.all() else 0.0)


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
        masks.append(object_side(found, salience[part]))
    return torch.cat(masks)


def object_side(foreground: Tensor, salience: Tensor) -> Tensor:
    """Of the two parts (T, h, w) the one whose mean salience is higher; nothing where there is one part only."""
    if foreground.all() or not foreground.any():
        return torch.zeros_like(foreground)
    return foreground if salience[foreground].mean() >= salience[~foreground].mean() else ~foreground


CELL = 8  # pixels of the cells whose colours part the foreground


@dataclass(frozen=True)
class Palette:
    """Objects in the foreground told apart by the colours that they mostly have."""

    centres: Tensor  # (K, 3), between 0 and 1
    spread: float  # mean squared distance of a colour to its centre

    def label(self, frame: Tensor, soft: Tensor) -> Tensor:
        """A frame (H, W, 3) uint8 and its soft labels (2, h, w) -> (1 + K, H / CELL, W / CELL)."""
        colours = colours_of(frame)
        soft = F.interpolate(soft[None], colours.shape[:2], mode="bilinear", align_corners=False)[0]
        share = (-torch.cdist(colours, self.centres).square() / (2 * self.spread)).softmax(-1)
        return torch.cat([soft[:1], soft[1:] * share.permute(2, 0, 1)])


def colours_of(frame: Tensor) -> Tensor:
    """The mean colours of cells: (H, W, 3) uint8 -> (H / CELL, W / CELL, 3) between 0 and 1."""
    grid = [max(1, side // CELL) for side in frame.shape[:2]]
    return F.interpolate(frame.permute(2, 0, 1)[None].float() / 255, grid, mode="area")[0].permute(1, 2, 0)


def fit_palette(frames: Tensor, soft: list[Tensor], objects: int, seed: int, starts: int = 4) -> Palette | None:
    """K-means of the foreground's colours in frames (T, H, W, 3), the best of some starts; None without a foreground.

    Reference: Arthur and Vassilvitskii 2007, k-means++: the advantages of careful seeding, section 2.2.
    """
    found = []
    for frame, one in zip(frames, soft, strict=True):
        colours = colours_of(frame)
        share = F.interpolate(one[None], colours.shape[:2], mode="bilinear", align_corners=False)[0, 1]
        found.append(colours[share > 0.5])
    colours = torch.cat(found)
    if len(colours) < objects:
        return None
    generator = torch.Generator().manual_seed(seed)
    best = None
    for _ in range(starts):
        centres = colours[torch.randint(len(colours), (1,), generator=generator)]
        while len(centres) < objects:
            far = torch.cdist(colours, centres).amin(1).square() + 1e-12
            centres = torch.cat([centres, colours[torch.multinomial(far.cpu(), 1, generator=generator)]])
        for _ in range(20):
            nearest = F.one_hot(torch.cdist(colours, centres).argmin(1), objects).to(colours)
            centres = nearest.T @ colours / nearest.sum(0)[:, None].clamp_min(1)
        spread = float(torch.cdist(colours, centres).amin(1).square().mean()) + 1e-6
        if best is None or spread < best.spread:
            best = Palette(centres, spread)
    return best
