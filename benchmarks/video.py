"""Objects in video, a frame with N tokens: in blocks of rows and by matrix products, against the direct forms.

Propagation carries 4 labels from 5 frames of 152 channels, within 12 cells. Ours compares a few rows of cells with the
rows near them; the direct form makes the map of all pairs and closes what is far. Clustering assigns the attention rows
of a frame, over 3 frames, to 20 centroids by symmetric KL. Ours is two matrix products; the direct form holds all of
N x 20 x 3 N differences of logarithms. Grids are 9 by 16.
"""

from collections.abc import Callable

FRAMES, CHANNELS, LABELS, RADIUS, TOP, TEMPERATURE = 5, 152, 4, 12, 7, 0.1
KEY_FRAMES, CLUSTERS = 3, 20
FORMS = ("ours", "direct")
SAME = FORMS
AXIS = "tokens"
SIZES = (144, 576, 2304, 5184)
MODES = ("propagation", "clustering")
MOST_BYTES = 2e9  # of one tensor, of which the direct form of clustering holds several; a larger case is left out


def prepare(form: str, size: int, mode: str) -> Callable[[], object] | None:
    return _propagation(form, size) if mode == "propagation" else _clustering(form, size)


def _propagation(form: str, size: int) -> Callable[[], object]:
    import torch
    import torch.nn.functional as F

    from apps.video.propagation import take_labels

    torch.manual_seed(0)
    h = round((size * 9 / 16) ** 0.5)
    w = size // h
    queries = F.normalize(torch.randn(h, w, CHANNELS), dim=-1)
    keys = F.normalize(torch.randn(FRAMES, h, w, CHANNELS), dim=-1)
    values = torch.rand(FRAMES, h, w, LABELS)
    rows, columns = torch.arange(h), torch.arange(w)
    far = ((rows[:, None] - rows).abs() > RADIUS)[:, None, :, None] | ((columns[:, None] - columns).abs() > RADIUS)[
        None, :, None, :
    ]
    far = far.flatten(2).flatten(0, 1)  # (N, N)

    def direct() -> torch.Tensor:
        alike = (queries.flatten(0, 1) @ keys.flatten(0, 2).T).unflatten(1, (FRAMES, h * w))
        best, at = alike.masked_fill_(far[:, None], -torch.inf).flatten(1).topk(TOP, dim=1)
        weights = (best / TEMPERATURE).softmax(1)
        return (values.flatten(0, 2)[at] * weights[..., None]).sum(1).unflatten(0, (h, w))

    def ours() -> torch.Tensor:
        return take_labels(queries, keys, values, RADIUS, TOP, TEMPERATURE)

    return ours if form == "ours" else direct


def _clustering(form: str, size: int) -> Callable[[], object] | None:
    if form == "direct" and 4 * size * CLUSTERS * KEY_FRAMES * size > MOST_BYTES:
        return None
    import torch

    from apps.video.clustering import assign_rows, plain_divergence

    torch.manual_seed(0)
    rows = (3 * torch.randn(size, KEY_FRAMES * size)).softmax(-1)
    centres = rows[torch.randperm(size)[:CLUSTERS]]

    def ours() -> torch.Tensor:
        return assign_rows(rows, centres)

    def direct() -> torch.Tensor:
        return (-10 * plain_divergence(rows, centres)).softmax(-1)

    return ours if form == "ours" else direct
