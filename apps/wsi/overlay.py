"""Attention as pictures: overlays, a map for each branch, the strongest tiles."""

from pathlib import Path

import numpy as np

from shared.io.files import replacing

CLIP = 8.0  # a tile with so many times the mean weight has the strongest colour


def strength(weights: np.ndarray) -> np.ndarray:
    """Weights (..., N) that sum to 1 -> 0 .. 1 for colours: their ratio to the mean, by square root, up to `CLIP`."""
    return np.sqrt(np.clip(weights * weights.shape[-1], 0, CLIP) / CLIP)


def colours(values: np.ndarray) -> np.ndarray:
    """0 .. 1 -> RGB uint8 (..., 3), of matplotlib's inferno, which rises in lightness."""
    import matplotlib

    return (matplotlib.colormaps["inferno"](values)[..., :3] * 255).astype(np.uint8)


def paint(
    image: np.ndarray, coords: np.ndarray, side: float, values: np.ndarray, scale: float, opacity: float = 0.55
) -> np.ndarray:
    """Tiles in the colours of their values over an image (H, W, 3); `scale` image pixels a level-0 pixel."""
    out = image.astype(np.float32)
    for (x, y), colour, value in zip(coords * scale, colours(values), values, strict=True):
        rows = slice(max(0, round(y)), max(0, round(y + side * scale)))
        columns = slice(max(0, round(x)), max(0, round(x + side * scale)))
        cover = opacity * (0.35 + 0.65 * value)  # what matters little lets the tissue through
        out[rows, columns] = (1 - cover) * out[rows, columns] + cover * colour
    return out.astype(np.uint8)


def draw_heatmap(
    path: Path, image: np.ndarray, coords: np.ndarray, side: float, weights: np.ndarray, scale: float, title: str
) -> None:
    """The slide and, beside it, the mean map of the branches over it, with the scale of the colours."""
    mean = weights.mean(0)
    panels = [("slide", image), (title, paint(image, coords, side, strength(mean), scale))]
    _panels(path, panels, width=5.2)


def draw_branches(
    path: Path, image: np.ndarray, coords: np.ndarray, side: float, weights: np.ndarray, scale: float
) -> None:
    """The map of every branch."""
    panels = [
        (f"branch {number}: top-10 mass {np.sort(one)[::-1][:10].sum():.2f}", paint(image, coords, side, values, scale))
        for number, (one, values) in enumerate(zip(weights, strength(weights), strict=True), 1)
    ]
    _panels(path, panels, width=3.4)


def _panels(path: Path, panels: list[tuple[str, np.ndarray]], width: float) -> None:
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm

    from shared.report.figures import new_figure, save_figure

    high, wide = panels[0][1].shape[:2]
    columns = min(len(panels), 5)
    rows = -(-len(panels) // columns)
    figure = new_figure(columns * width * min(1, wide / high * 1.4) + 1, rows * (width * min(1.6, high / wide) + 0.3))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (title, image) in zip(grid.flat, panels, strict=False):
        axes.imshow(image, interpolation="antialiased")
        axes.set_title(title)
    mappable = ScalarMappable(PowerNorm(0.5, 0, CLIP), matplotlib.colormaps["inferno"])
    figure.colorbar(mappable, ax=list(grid.flat), label="attention, times the mean", shrink=0.6, extend="max")
    save_figure(figure, path)


def draw_sheet(path: Path, tiles: list[np.ndarray], captions: list[str], columns: int = 5) -> None:
    """Tiles (pixels, pixels, 3) in rows, each with a caption below."""
    from PIL import Image, ImageDraw, ImageFont

    size, margin, line = tiles[0].shape[0], 8, 16
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (size + margin) + margin, rows * (size + margin + line) + margin), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        x = margin + (index % columns) * (size + margin)
        y = margin + (index // columns) * (size + margin + line)
        sheet.paste(Image.fromarray(tile), (x, y))
        pen.text((x, y + size + 1), caption, fill="black", font=font)
    with replacing(path) as partial:
        sheet.save(partial)
