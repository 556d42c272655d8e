"""`manyheads demo wsi`: a heat map of a slide whose marred places are known, and branches against one on digit bags."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from apps.wsi.classic import digit_bags
from apps.wsi.classifier import load
from apps.wsi.config import CONFIGS, WsiConfig
from apps.wsi.crossval import cross_validate
from apps.wsi.heatmap import heatmap
from apps.wsi.practice import write_whole
from apps.wsi.slide import open_slide
from shared.config import load_config
from shared.report.page import Section

SLIDE = Path(__file__).resolve().parents[2] / "data" / "CMU-1-Small-Region.svs"
SEED = 7


def run(out: Path, progress: Callable[[str], None]) -> Section:
    """Mars a real slide, asks the shipped model where, and cross-validates small models; about a minute on one core."""
    progress("draws ink on a slide, and takes a part of it out of focus")
    with closing(open_slide(SLIDE)) as slide:
        whole, truth = write_whole(slide.whole(), slide.mpp, np.random.default_rng(SEED), out)
    progress("finds its tiles, encodes them, and asks the shipped model")
    classifier = load(None, "cpu")
    marred = heatmap(classifier, whole, None, out, mpp=None, longest=1200, top=10, annotations=truth)
    clean = heatmap(classifier, SLIDE, None, out, mpp=None, longest=1200, top=10)
    progress("cross-validates models on bags of digits")
    config = load_config(WsiConfig, CONFIGS / "classic.toml", ["train.epochs=20"])
    names = ["gated-abmil", "acmil", "mean", "max"]
    compared = cross_validate(digit_bags(), config, names, out / "digits", count=5, repeats=1, seed=SEED, resume=False)
    text = (
        "A real slide was marred by a stroke of ink and a part out of focus. The shipped model, a toy that knows clean "
        "from marred slides, was not trained on that part of it: it calls the marred slide "
        f"{_called(marred)} and the slide as it was {_called(clean)}. The heat map shows which of the "
        f"{marred['tiles']} tiles it looked at (AUROC of the attention for the marred tiles: "
        f"{marred['instance_auroc']:.2f}); the attention of each branch lies in a file that opens in QuPath, "
        "and on a page to zoom in.\n\n"
        "The table: bags of handwritten digits, positive with a nine. Models on the same five folds, and how well "
        "their attention finds the nines, which they were not told of. One repeat, for a glimpse; the results in the "
        "docs have ten, and real data."
    )
    table = [
        {
            "model": row["model"],
            "accuracy": f"{100 * row['accuracy']:.1f} %",
            "AUROC": f"{row['auroc']:.3f}",
            "AUROC of attention for the nines": f"{row['instance_auroc']:.3f}",
        }
        for row in compared["models"]
    ]
    folder = Path(marred["written"])
    return Section(
        "Whole slides: attention-challenging MIL",
        text,
        figures=[folder / "heatmap.png", folder / "top_tiles.png", Path(compared["figure"])],
        table=table,
        code="uv run manyheads wsi extract MY_SLIDES --out runs/features\n"
        "uv run manyheads wsi train --data runs/features --labels labels.csv --out runs/mine\n"
        "uv run manyheads wsi heatmap MY_SLIDES/one.svs --checkpoint runs/mine",
        links=[folder / "viewer.html", folder / "attention.geojson", folder / "branches.png"],
    )


def _called(found: dict) -> str:
    return f"{found['prediction']} ({100 * found['probabilities'][found['prediction']]:.0f} %)"
