"""The boundary-matching layer two ways: sparse (the models use it) and dense (the paper's).

64 channels in and out, 32 bins, batch 1; proposals of every length up to the whole window. Sparse: convolve over the
bins first, then sample by one sparse matrix. Dense: sample by a dense mask, then convolve. Either makes its matrix at
the first call, which counts for the memory and not for the time.
"""

from collections.abc import Callable

DIM, HIDDEN, BINS = 64, 64, 32
FORMS = ("sparse", "dense")
SAME = FORMS
AXIS = "snippets"
SIZES = (32, 64, 100)
MODES = ("forward", "forward + backward")


def prepare(form: str, size: int, mode: str) -> Callable[[], object]:
    import numpy as np
    import torch

    from apps.action.boundary_matching import BoundaryMatching, sample_matrix, valid_proposals

    torch.manual_seed(0)
    layer = BoundaryMatching(DIM, HIDDEN, size, BINS)
    x = torch.randn(1, size, DIM, requires_grad=mode != "forward")
    valid = valid_proposals(size, size)
    masks: list[torch.Tensor] = []

    def mask() -> torch.Tensor:
        """(T, N D T), in float32 from the start."""
        row, column, weight = sample_matrix(size, size, BINS)
        bins, snippets = np.divmod(column, size)
        full = torch.zeros(size, BINS, size * size)
        full[snippets, bins, np.flatnonzero(valid)[row]] = torch.from_numpy(weight).float()
        return full.view(size, -1)

    def dense(x: torch.Tensor) -> torch.Tensor:
        if not masks:
            masks.append(mask())
        sampled = (x.transpose(1, 2) @ masks[0]).view(1, DIM, BINS, -1)
        out = torch.einsum("bcnp,nhc->bph", sampled, layer.weight) + layer.bias
        return out.view(1, size, size, HIDDEN) * torch.from_numpy(valid)[None, :, :, None]

    forward = layer if form == "sparse" else dense

    def work() -> torch.Tensor:
        if mode == "forward":
            with torch.no_grad():
                return forward(x)
        layer.zero_grad(set_to_none=True)
        x.grad = None
        out = forward(x)
        out.square().mean().backward()
        return out.detach()

    with torch.no_grad():
        layer(x[:, :8])  # libraries load their parts before memory is read
    return work
