"""From soft labels on a grid to labels of pixels: edges of the image draw the outline.

House notation: K labels with the background, h and w cells, H and W pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def guided_filter(labels: Tensor, frame: Tensor, radius: int, epsilon: float) -> Tensor:
    """In each window the output is an affine function of the colours that fits the labels best: edges carry over.

    a = (cov(I) + epsilon)^-1 cov(I, p);  b = mean(p) - a . mean(I);  out = mean(a) . I + mean(b).

    Shape: labels p (K, H, W), frame I (3, H, W) between 0 and 1 -> (K, H, W). Windows are 2 radius + 1 pixels wide.
    Reference: He et al. 2010, Guided Image Filtering, section 3.4.
    Complexity: O(K H W), whatever the radius would cost in a box filter by running sums; here O(K H W radius).
    """

    def box(x: Tensor) -> Tensor:
        size = 2 * radius + 1
        for kernel, pad in (((size, 1), (radius, 0)), ((1, size), (0, radius))):
            x = F.avg_pool2d(x[None], kernel, 1, pad, count_include_pad=False)[0]
        return x

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
        out.append((box(a) * frame).sum(0) + box(b[None])[0])
    return torch.stack(out)


def sharpen(soft: Tensor, frame: np.ndarray, radius: int, epsilon: float = 1e-3) -> Tensor:
    """Soft labels (K, h, w) -> (K, H, W) along the edges of the frame (H, W, 3) uint8; radius 0: bilinear only."""
    up = F.interpolate(soft[None], frame.shape[:2], mode="bilinear", align_corners=False)[0]
    if not radius:
        return up
    image = torch.from_numpy(frame).permute(2, 0, 1).to(up) / 255
    return guided_filter(up, image, radius, epsilon)


def decide(soft: Tensor, height: int, width: int) -> np.ndarray:
    """The strongest label of each pixel: (K, H, W) -> (height, width) uint8. One label at a time, so that 4K fits."""
    best = torch.full((height, width), -torch.inf)
    labels = torch.zeros(height, width, dtype=torch.uint8)
    for k in range(len(soft)):
        here = F.interpolate(soft[None, None, k].float(), (height, width), mode="bilinear", align_corners=False)[0, 0]
        better = here > best
        labels[better], best = k, torch.where(better, here, best)
    return labels.numpy()
