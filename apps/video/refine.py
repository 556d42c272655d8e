"""From soft labels on a grid to labels of pixels: edges of the image draw the outline.

House notation: K labels with the background, h and w cells, H and W pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STEP = 2  # the filter's coefficients are found on every second pixel


def guided_filter(labels: Tensor, frame: Tensor, radius: int, epsilon: float) -> Tensor:
    """In each window the output is an affine function of the colours that fits the labels best: edges carry over.

    a = (cov(I) + epsilon)^-1 cov(I, p);  b = mean(p) - a . mean(I);  out = mean(a) . I + mean(b).

    Shape: labels p (K, h, w), frame I (3, H, W) between 0 and 1, of any two sizes -> (K, H, W). Windows are
        2 radius + 1 of the labels' cells wide.
    Reference: He et al. 2010, Guided Image Filtering, section 3.4; He and Sun 2015, Fast Guided Filter, arXiv
        1505.00996: a and b are found on the coarser grid and drawn large.
    Complexity: O(K (h w + H W)), whatever the radius.
    """
    full, size = frame, frame.shape[1:]
    frame = F.interpolate(frame[None], labels.shape[1:], mode="area")[0]

    def box(x: Tensor) -> Tensor:
        return window_mean(window_mean(x, radius, -1), radius, -2)

    mean_i, mean_p = box(frame), box(labels)
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    products = box(torch.stack([frame[i] * frame[j] for i, j in pairs]))
    rr, rg, rb, gg, gb, bb = (products[n] - mean_i[i] * mean_i[j] for n, (i, j) in enumerate(pairs))
    rr, gg, bb = rr + epsilon, gg + epsilon, bb + epsilon
    # The inverse of a symmetric matrix of 3 x 3, written out: far quicker than solving at each pixel.
    inverse = [gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb]
    inverse += [rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg]
    determinant = rr * inverse[0] + rg * inverse[1] + rb * inverse[2]
    i00, i01, i02, i11, i12, i22 = (part / determinant for part in inverse)
    out = []
    for k in range(len(labels)):
        c = box(frame * labels[k]) - mean_i * mean_p[k]
        a = torch.stack(
            [
                i00 * c[0] + i01 * c[1] + i02 * c[2],
                i01 * c[0] + i11 * c[1] + i12 * c[2],
                i02 * c[0] + i12 * c[1] + i22 * c[2],
            ]
        )
        b = mean_p[k] - (a * mean_i).sum(0)
        a, b = box(a), box(b[None])
        a, b = (F.interpolate(x[None], size, mode="bilinear", align_corners=False)[0] for x in (a, b))
        out.append((a * full).sum(0) + b[0])
    return torch.stack(out)


def window_mean(x: Tensor, radius: int, dim: int) -> Tensor:
    """The mean of the 2 radius + 1 neighbours along an axis, of fewer at the ends; by running sums."""
    size = x.shape[dim]
    sums = F.pad(x.cumsum(dim), (1, 0) if dim == -1 else (0, 0, 1, 0))
    at = torch.arange(size, device=x.device)
    low, high = (at - radius).clamp_min(0), (at + radius + 1).clamp_max(size)
    count = (high - low).to(sums)
    total = sums.index_select(dim, high) - sums.index_select(dim, low)
    return (total / (count if dim == -1 else count[:, None])).to(x)


def sharpen(soft: Tensor, frame: np.ndarray, radius: int, epsilon: float = 1e-3) -> Tensor:
    """Soft labels (K, h, w), which sum to one, -> (K, H, W) along the edges of the frame (H, W, 3) uint8.

    `radius` is in pixels; 0: bilinear only. All labels but the first are filtered, where they are the strongest of any
    cell: what they leave is the first's.
    """
    height, width = frame.shape[:2]
    if not radius or len(soft) < 2:
        return F.interpolate(soft[None], (height, width), mode="bilinear", align_corners=False)[0]
    others = F.interpolate(soft[None, 1:], (height, width), mode="bilinear", align_corners=False)[0]
    shown = [k - 1 for k in soft.argmax(0).unique().tolist() if k]
    if shown:
        grid = (-(-height // STEP), -(-width // STEP))
        coarse = F.interpolate(soft[None, 1:][:, shown], grid, mode="bilinear", align_corners=False)[0]
        image = torch.from_numpy(frame).permute(2, 0, 1).to(soft) / 255
        others[shown] = guided_filter(coarse, image, max(1, round(radius / STEP)), epsilon)
    return torch.cat([1 - others.sum(0, keepdim=True), others])


def decide(soft: Tensor, height: int, width: int) -> np.ndarray:
    """The strongest label of each pixel: (K, H, W) -> (height, width) uint8. One label at a time, so that 4K fits."""
    best = torch.full((height, width), -torch.inf)
    labels = torch.zeros(height, width, dtype=torch.uint8)
    for k in range(len(soft)):
        here = F.interpolate(soft[None, None, k].float(), (height, width), mode="bilinear", align_corners=False)[0, 0]
        better = here > best
        labels[better], best = k, torch.where(better, here, best)
    return labels.numpy()


def confidence_of(soft: Tensor) -> float:
    """How sure soft labels (K, h, w) are: the mean share of the strongest where it is an object; 0 where none is."""
    best, label = soft.max(0)
    return float(best[label > 0].mean()) if bool((label > 0).any()) else 0.0
