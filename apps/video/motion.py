"""Motion out of feature correlation, and what of it is not the camera's.

House notation: h and w cells, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from apps.video.model import local_correlation


def displacement(now: Tensor, before: Tensor, reach: int = 3, temperature: float = 0.05, smooth: int = 1) -> Tensor:
    """Where each cell was in the frame before, in cells: two (h, w, C) -> (h, w, 2), rows first.

    d_i = sum_s softmax_s(c_is / temperature) s over shifts s up to `reach`, with c the cosines, averaged over windows
    of 2 smooth + 1 cells. Complexity: O(h w (2 reach + 1)^2 C).
    """
    alike = local_correlation(now[None], before[None], reach)[0]
    if smooth:
        alike = F.avg_pool2d(alike[None], 2 * smooth + 1, 1, smooth, count_include_pad=False)[0]
    weights = (alike / temperature).softmax(0)
    steps = torch.arange(-reach, reach + 1, device=now.device, dtype=now.dtype)
    shifts = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).flatten(0, 1)
    return torch.einsum("shw,sc->hwc", weights, shifts)


def camera_motion(moved: Tensor, rounds: int = 5) -> Tensor:
    """The affine field (h, w, 2) that most of a displacement field (h, w, 2) follows.

    Least squares, reweighted by 1 / (1 + (residual / median)^2), so that what moves by itself does not count.
    """
    h, w = moved.shape[:2]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, h, device=moved.device), torch.linspace(-1, 1, w, device=moved.device), indexing="ij"
    )
    a = torch.stack([torch.ones_like(y), y, x], -1).flatten(0, 1)
    d = moved.flatten(0, 1)
    weight = torch.ones(len(a), device=moved.device)
    fitted = torch.zeros_like(d)
    for _ in range(rounds):
        scaled = a * weight[:, None]
        solution = torch.linalg.solve(scaled.T @ a + 1e-6 * torch.eye(3, device=a.device), scaled.T @ d)
        fitted = a @ solution
        residual = (d - fitted).norm(dim=-1)
        weight = 1 / (1 + (residual / residual.median().clamp_min(1e-3)).square())
    return fitted.view_as(moved)


def own_motion(now: Tensor, before: Tensor, reach: int = 3) -> Tensor:
    """Displacement without the camera's, (h, w, 2) in cells: what moves by itself.

    What a frame that stands still would show, at the frame's border above all, is taken off first.
    """
    moved = displacement(now, before, reach) - displacement(now, now, reach)
    return moved - camera_motion(moved)
