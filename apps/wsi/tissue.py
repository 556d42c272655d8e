"""Where the tissue is: Otsu's threshold on saturation, without speckles and with small holes filled."""

import numpy as np

FAINT = 12 / 255  # no tissue is less saturated than this; on a slide of glass alone Otsu would split the noise


def tissue_mask(image: np.ndarray, *, speckle: float = 0.0005, hole: float = 0.002) -> np.ndarray:
    """Tissue in an RGB image (H, W, 3) uint8 -> (H, W) bool.

    Saturation is smoothed by a median, split by Otsu's threshold (at least `FAINT`), rid of pieces smaller than the
    share `speckle` of the image, and holes smaller than `hole` are filled.

    Reference: Otsu 1979, A threshold selection method from gray-level histograms.
    """
    from scipy import ndimage

    rgb = image.astype(np.float32) / 255
    high, low = rgb.max(-1), rgb.min(-1)
    saturation = np.divide(high - low, high, out=np.zeros_like(high), where=high > 0.05)  # black edges have none
    saturation = ndimage.median_filter(saturation, size=5)
    mask = saturation > max(otsu(saturation), FAINT)
    mask = ndimage.binary_opening(mask, iterations=1)
    mask = ~_without_small(~_without_small(mask, speckle * mask.size), hole * mask.size, keep_edge=True)
    return mask


def otsu(values: np.ndarray, bins: int = 256) -> float:
    """The threshold with the most variance between the two sides, for `values > threshold`; values lie in 0 .. 1.

    The upper edge of a bin, since the whole bin counts as below. Of thresholds that are as good, the middle.
    """
    counts, edges = np.histogram(values, bins, (0, 1))
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()
    above = below[-1] - below
    total = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    between = np.nan_to_num(between)
    if not between.any():
        return 0.0  # one value only
    return float(edges[1:][between >= between.max() * (1 - 1e-9)].mean())


def _without_small(mask: np.ndarray, least: float, keep_edge: bool = False) -> np.ndarray:
    """The mask without its pieces of fewer than `least` pixels; with `keep_edge` those at the edge stay."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = sizes >= least
    if keep_edge:
        keep[np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))] = True
    keep[0] = False
    return keep[labels]
