"""`explain`: how the attention of a model lies on slides."""

from pathlib import Path

import numpy as np

from apps.wsi.classifier import Classifier
from apps.wsi.metrics import attention_measures
from apps.wsi.predict import user_bags
from shared.io.files import output_folder, write_json


def explain(classifier: Classifier, data: Path, out: Path, mpp: float | None) -> dict:
    """How attention lies on the slides of `data`: mass of the ten strongest, effective tiles, overlap of branches.

    effective tiles = exp(entropy of the mean map): that many tiles of equal weight would be as spread out. Writes
    explanation.json and .png.
    """
    bags, failed = user_bags(classifier, data, mpp)
    _, weights = classifier.predict(bags)
    rows = []
    for bag, weight in zip(bags, weights, strict=True):
        mean = weight.mean(0)
        entropy = float(-(mean * np.log(np.maximum(mean, 1e-12))).sum())
        strongest = {int(index) for one in weight for index in np.argsort(-one)[:10]}
        measures = attention_measures(weight, bag.truth)
        rows.append(
            {
                "slide": bag.name,
                "tiles": len(bag.features),
                **{key: round(value, 4) for key, value in measures.items()},
                "effective_tiles": round(float(np.exp(entropy)), 2),
                "different_top_tiles": len(strongest),
            }
        )
    folder = output_folder(out)
    write_json(folder / "explanation.json", {"model": str(classifier.path), "slides": rows, "failed": failed})
    _draw_explanation(folder / "explanation.png", weights)
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "slide"}
    written = str(folder / "explanation.json")
    return {"model": str(classifier.path), "mean": mean, "slides": rows, "failed": failed, "written": written}


def _draw_explanation(path: Path, weights: list[np.ndarray]) -> None:
    from shared.report.figures import new_figure, save_figure

    figure = new_figure(9, 4)
    left, right = figure.subplots(1, 2)
    longest = min(200, max(one.shape[1] for one in weights))
    for one in weights[:50]:
        mass = np.sort(one.mean(0))[::-1].cumsum()[:longest]
        left.plot(np.arange(1, len(mass) + 1), mass, color="#0072b2", alpha=0.4, linewidth=1)
    left.set(xlabel="strongest tiles", ylabel="their attention", ylim=(0, 1.02), title="concentration, a line a slide")
    branches = weights[0].shape[0]
    cosines = np.zeros((branches, branches))
    for one in weights:
        unit = one / np.linalg.norm(one, axis=1, keepdims=True)
        cosines += unit @ unit.T / len(weights)
    shown = right.imshow(cosines, vmin=0, vmax=1, cmap="viridis")
    right.grid(False)
    ticks = range(branches)
    right.set(title="overlap of branches, mean cosine", xticks=ticks, yticks=ticks, xlabel="branch", ylabel="branch")
    right.set_xticklabels([m + 1 for m in ticks])
    right.set_yticklabels([m + 1 for m in ticks])
    figure.colorbar(shown, ax=right)
    save_figure(figure, path)
