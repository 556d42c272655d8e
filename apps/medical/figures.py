"""Pictures of scans: slices with the contours of what was found, and maps over them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apps.medical.geometry import Grid
from apps.medical.volumes import Volume
from shared.report.figures import COLOURS, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Seen on grey: bright, and as far from one another as so many can be.
PALETTE = ("#ff5a36", "#37b6ff", "#58d45a", "#ffd23f", "#d77bff", "#00e0c6", "#ff8ac2", "#b8e986", "#ffa64d", "#9aa8ff")


def colour(label: int) -> str:
    return PALETTE[(label - 1) % len(PALETTE)]


def grey_range(voxels: np.ndarray, clip: tuple[float, float] | None) -> tuple[float, float]:
    """The intensities that become black and white: those of the model, else from the 1st to the 99.5th percentile."""
    if clip is not None:
        return clip
    low, high = np.percentile(voxels, [1, 99.5])
    return float(low), float(max(high, low + 1e-6))


def show_slice(axes: "Axes", image: np.ndarray, grid: Grid, greys: tuple[float, float]) -> None:
    """A slice (rows, columns) as radiology shows it: the patient's right (or front) on the left, true proportions."""
    axes.imshow(
        image.T,
        cmap="gray",
        vmin=greys[0],
        vmax=greys[1],
        origin="lower",
        aspect=grid.spacing[2] / grid.spacing[1],
        interpolation="bilinear",
    )
    axes.set(xticks=[], yticks=[], xlim=(image.shape[0] - 0.5, -0.5))
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)


def contours(axes: "Axes", labels: np.ndarray, count: int, style: str = "-", width: float = 1.4) -> None:
    """Outlines of each label of a slice (rows, columns)."""
    for label in range(1, count + 1):
        mask = np.pad(labels == label, 1).astype(float)
        if mask.any():
            rows, columns = (np.arange(-1, n + 1) for n in labels.shape)
            axes.contour(rows, columns, mask.T, [0.5], colors=[colour(label)], linewidths=width, linestyles=style)


def telling_slices(labels: np.ndarray, count: int, wanted: int = 4) -> list[int]:
    """Slices (of S) to show: where each label is largest, then evenly through what is labelled."""
    held = np.flatnonzero(labels.any((1, 2)))
    if not len(held):
        return sorted({int(i) for i in np.linspace(0, len(labels) - 1, wanted + 2)[1:-1]})
    largest = [int((labels == k).sum((1, 2)).argmax()) for k in range(1, count + 1) if (labels == k).any()]
    even = [int(held[round(i)]) for i in np.linspace(0, len(held) - 1, wanted + 2)[1:-1]]
    return sorted(list(dict.fromkeys([*largest, *even]))[:wanted])


def overlay(
    path: Path,
    volume: Volume,
    grid: Grid,
    found: np.ndarray,
    names: list[str],
    clip: tuple[float, float] | None,
    *,
    truth: np.ndarray | None = None,
    uncertainty: np.ndarray | None = None,
    title: str = "",
) -> None:
    """Slices of a case with contours and a legend; the truth's, where given, dashed; below them the uncertainty.

    Shape: found, truth and uncertainty (X, Y, Z) on the file's grid.
    """
    images, labels = grid.cut(volume.voxels), grid.cut(found)
    real = None if truth is None else grid.cut(truth)
    doubt = None if uncertainty is None else grid.cut(uncertainty)
    chosen = telling_slices(labels if labels.any() or real is None else real, len(names))
    greys = grey_range(volume.voxels, clip)
    lines = 1 + (doubt is not None)
    high = 2.9 * min(1.3, grid.shape[2] * grid.spacing[2] / (grid.shape[1] * grid.spacing[1]))
    figure = new_figure(2.9 * len(chosen), lines * high + 0.9)
    panels = np.atleast_2d(figure.subplots(lines, len(chosen), squeeze=False))
    for column, at in enumerate(chosen):
        axes = panels[0, column]
        show_slice(axes, images[at], grid, greys)
        contours(axes, labels[at], len(names))
        if real is not None:
            contours(axes, real[at], len(names), "--", 0.9)
        axes.set_title(f"slice {at + 1} of {grid.shape[0]}", fontsize=8)
        if doubt is not None:
            show_slice(panels[1, column], images[at], grid, greys)
            panels[1, column].imshow(
                doubt[at].T,
                cmap="inferno",
                vmin=0,
                vmax=1,
                alpha=0.65,
                origin="lower",
                aspect=grid.spacing[2] / grid.spacing[1],
            )
            panels[1, column].set_xlim(labels.shape[1] - 0.5, -0.5)
            panels[1, column].set_title("uncertainty (entropy)", fontsize=8)
    from matplotlib.lines import Line2D

    shown = [k for k in range(1, len(names) + 1) if (labels == k).any() or (real is not None and (real == k).any())]
    handles = [Line2D([], [], color=colour(k), label=names[k - 1]) for k in shown]
    if real is not None:
        handles.append(Line2D([], [], color="#777777", linestyle="--", label="truth"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def strip(path: Path, rows: list[dict], measure: str = "dice") -> None:
    """Every case of each organ as a dot, and the mean as a line."""
    organs = list(dict.fromkeys(row["organ"] for row in rows))
    figure = new_figure(max(4.0, 1.0 + 0.9 * len(organs)), 3.4)
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for number, organ in enumerate(organs):
        values = np.array([row[measure] for row in rows if row["organ"] == organ and row[measure] is not None])
        if len(values):
            axes.plot(number + rng.uniform(-0.18, 0.18, len(values)), values, "o", ms=3, alpha=0.6, color=COLOURS[0])
            axes.hlines(values.mean(), number - 0.3, number + 0.3, color=COLOURS[1], lw=2)
    axes.set(xticks=range(len(organs)), ylabel=measure.replace("_", " "), ylim=(0, 1))
    axes.set_xticklabels(organs, rotation=30 if len(organs) > 4 else 0)
    axes.set_title("each dot is a case, the line is their mean")
    save_figure(figure, path)


def bars(path: Path, table: list[dict]) -> None:
    """Mean Dice of the entries of a comparison, with the interval over cases."""
    figure = new_figure(8, 0.7 + 0.42 * len(table))
    axes = figure.subplots()
    for number, row in enumerate(table):
        low, high = (float(part) for part in row["interval_95"].split(" to "))
        axes.plot([low, high], [number, number], color=COLOURS[0], lw=2)
        axes.plot(row["mean_dice"], number, "o", color=COLOURS[1])
    axes.set(yticks=range(len(table)), xlabel="mean Dice of the test cases, 95 % interval over cases")
    axes.set_yticklabels([row["entry"] for row in table])
    axes.invert_yaxis()
    save_figure(figure, path)
