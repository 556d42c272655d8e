"""Figures in the house style. Each belongs to its caller alone: nothing here has matplotlib's global state."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.io.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision can tell apart, without their yellow, pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e5e7ea",
    "grid.linewidth": 0.6,
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small, searchable, and the same file from the same data
    "svg.hashsalt": "manyheads",
}


def new_figure(width: float = 8.0, height: float = 4.5) -> "Figure":
    """An empty figure of this many inches; axes that it makes (`subplots`, `add_subplot`, ...) have the house style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")

    # Axes take their style when they are made, which the caller does later.
    def styled(make: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(make)
        def made(*args: Any, **kwargs: Any) -> Any:
            with matplotlib.rc_context(STYLE):
                axes = make(*args, **kwargs)
                axes.set_prop_cycle(color=COLOURS)
            return axes

        return made

    figure.add_subplot = styled(figure.add_subplot)
    figure.add_axes = styled(figure.add_axes)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a PNG or SVG, by the suffix; the same figure gives the same bytes. `ValueError` for another suffix."""
    import matplotlib

    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path}: figures are written as .png or .svg")
    # Without the date and the version the file is the same whenever and wherever it is made.
    metadata = {"Software": None} if path.suffix == ".png" else {"Date": None, "Creator": None}
    with matplotlib.rc_context(STYLE), replacing(path) as partial:
        figure.savefig(partial, dpi=150, facecolor="white", metadata=metadata)
