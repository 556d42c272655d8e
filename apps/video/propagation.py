"""Labels that follow their features through time: top-k label propagation.

House notation: h and w cells of the grid, C channels, K labels with the background, T frames looked back at.
"""

from collections import deque

import torch
import torch.nn.functional as F
from torch import Tensor


class Propagator:
    """Each cell takes the labels of the cells most like it, in the first frame and the last ones, not far from it.

    l_i = sum_j softmax_j(f_i . f_j / temperature) l_j over the `top_k` likest j within `radius` cells in each frame.

    Memory holds the first frame and the last `context` ones, whatever the length of the video.

    Reference:
        Jabri et al. 2020, Space-Time Correspondence as a Contrastive Random Walk, arXiv 2006.14613, section 4.1; Caron
        et al. 2021 (DINO), arXiv 2104.14294, section 4.2.1.
    Deviations:
        The window is a square, not a disk.
    Complexity:
        A frame costs O(h w (2 radius + block) w T C): keys are those of the rows nearby, `block` rows at a time.
    """

    def __init__(self, radius: int = 12, top_k: int = 7, temperature: float = 0.1, context: int = 4) -> None:
        self.radius, self.top_k, self.temperature = radius, top_k, temperature
        self.first: tuple[Tensor, Tensor] | None = None
        self.last: deque[tuple[Tensor, Tensor]] = deque(maxlen=context)

    def begin(self, features: Tensor, labels: Tensor) -> None:
        """The frame whose labels (K, h, w) are given; features (h, w, C) have length one."""
        self.first = (features, labels)
        self.last.clear()

    def step(self, features: Tensor) -> Tensor:
        """The labels (K, h, w) of the next frame, which sum to one over K."""
        assert self.first is not None
        frames = [self.first, *self.last]
        keys = torch.stack([f for f, _ in frames])
        values = torch.stack([labels for _, labels in frames]).permute(0, 2, 3, 1)  # (T, h, w, K)
        labels = take_labels(features, keys, values, self.radius, self.top_k, self.temperature).permute(2, 0, 1)
        self.last.append((features, labels))
        return labels


def take_labels(
    queries: Tensor, keys: Tensor, values: Tensor, radius: int, top_k: int, temperature: float, block: int = 8
) -> Tensor:
    """queries (h, w, C), keys (T, h, w, C), values (T, h, w, K) -> (h, w, K); see `Propagator`."""
    h, w, _ = queries.shape
    columns = torch.arange(w, device=queries.device)
    far = (columns[:, None] - columns).abs() > radius  # (w, w)
    out = queries.new_empty(h, w, values.shape[-1])
    for top in range(0, h, block):
        rows = torch.arange(top, min(top + block, h), device=queries.device)
        near = torch.arange(max(0, top - radius), min(h, int(rows[-1]) + radius + 1), device=queries.device)
        k = keys[:, near[0] : near[-1] + 1].flatten(0, 2)
        v = values[:, near[0] : near[-1] + 1].flatten(0, 2)
        alike = queries[rows].flatten(0, 1) @ k.T  # (rows w, T near w)
        shape = (len(rows), w, len(keys), len(near), w)
        closed = ((rows[:, None] - near).abs() > radius)[:, None, :, None] | far[:, None, :]
        alike = alike.view(shape).masked_fill_(closed[:, :, None], -torch.inf).flatten(2).flatten(0, 1)
        best, at = alike.topk(min(top_k, alike.shape[1]), dim=1)
        weights = (best / temperature).softmax(1)
        out[rows] = (v[at] * weights[..., None]).sum(1).unflatten(0, (len(rows), w))
    return out


def plain_step(queries: Tensor, keys: Tensor, values: Tensor, radius: int, top_k: int, temperature: float) -> Tensor:
    """`take_labels` cell by cell, from its equation: the reference of its tests and of the benchmark."""
    h, w, _ = queries.shape
    out = queries.new_empty(h, w, values.shape[-1])
    for y in range(h):
        for x in range(w):
            rows = slice(max(0, y - radius), y + radius + 1)
            columns = slice(max(0, x - radius), x + radius + 1)
            alike = (keys[:, rows, columns] * queries[y, x]).sum(-1).flatten()
            best, at = alike.topk(min(top_k, len(alike)))
            nearby = values[:, rows, columns].flatten(0, 2)
            out[y, x] = ((best / temperature).softmax(0)[:, None] * nearby[at]).sum(0)
    return out


def soft_labels(labels: Tensor, ids: list[int], h: int, w: int) -> Tensor:
    """Labels (H, W) -> the share (1 + K, h, w) of each cell that the background and the objects `ids` cover."""
    masks = torch.stack([labels == i for i in ids]).float()
    masks = torch.cat([1 - masks.sum(0, keepdim=True), masks])
    return F.adaptive_avg_pool2d(masks[None], (h, w))[0]
