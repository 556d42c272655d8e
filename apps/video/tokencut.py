"""TokenCut: tokens of one or several frames as a graph, cut in two where it is thinnest.

House notation: N tokens in all, T frames, h and w cells, C channels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def likeness(keys: Tensor, motion: Tensor | None = None, share: float = 0.0) -> Tensor:
    """Cosines of tokens (N, C) -> (N, N); `share` of it from their motion (N, 2) in cells a frame, where that is given.

    Of two motions u and v the likeness is 2 exp(-|u - v|^2 / 2) - 1.
    """
    f = F.normalize(keys, dim=-1)
    alike = f @ f.T
    if motion is None or not share:
        return alike
    apart = torch.cdist(motion, motion).square()
    return (1 - share) * alike + share * (2 * torch.exp(-apart / 2) - 1)


def second_eigenvector(edges: Tensor) -> Tensor:
    """Of (D - E) y = lambda D y the second smallest: edges (N, N), symmetric and above 0 -> y (N,).

    By Lanczos on D^-1/2 E D^-1/2, whose largest eigenvalues are the smallest of the cut. The largest |y| is above 0.
    """
    from scipy.sparse.linalg import eigsh

    degree = edges.sum(1)
    scale = degree.rsqrt()
    matrix = (edges * scale[:, None] * scale).double().cpu().numpy()
    if len(matrix) < 3:
        return torch.zeros_like(degree)
    start = np.random.default_rng(0).normal(size=len(matrix))  # the same vector every time
    values, vectors = eigsh(matrix, k=2, which="LA", v0=start, tol=1e-6)
    y = torch.from_numpy(vectors[:, np.argsort(values)[0]].copy()).float().to(edges.device) * scale
    return y * (1 if y[y.abs().argmax()] > 0 else -1)


def tokencut(
    keys: Tensor,
    *,
    tau: float = 0.2,
    epsilon: float = 1e-5,
    motion: Tensor | None = None,
    share: float = 0.0,
) -> Tensor:
    """Split the tokens of T frames: keys (T, h, w, C), motion (T, h, w, 2) -> the foreground (T, h, w) bool.

    Edges are 1 where the likeness is above tau, else epsilon; y is the second eigenvector of the normalised cut; its
    mean parts the tokens; the part with the largest |y|, the seed, is the foreground.

    Reference:
        Wang et al. 2022, Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut, arXiv
        2202.11539, section 3.2; over time: Wang et al. 2023, TokenCut, arXiv 2209.00383, section 4.
    Deviations:
        Keys are centred first: those of a convolutional network, all positive, would all be alike.
    Complexity:
        O(N^2 C) for the graph, O(N^2) an iteration of Lanczos.
    """
    shape = keys.shape[:3]
    flat = keys.flatten(0, 2)
    flat = flat - flat.mean(0)
    alike = likeness(flat, None if motion is None else motion.flatten(0, 2), share)
    y = second_eigenvector((alike > tau).float().clamp_min(epsilon))
    return (y > y.mean()).view(shape)
