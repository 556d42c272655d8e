"""The course of a training as a picture."""

import json
from pathlib import Path

from shared.report.figures import new_figure, save_figure


def learning_curve(run: Path, *panels: tuple[str, dict[str, str]]) -> Path:
    """Draws `metrics.jsonl` of a run folder by step, as `learning_curve.png` there; returns its path.

    A panel is the label of its axis and the metrics in it with their names; a metric that was not logged is left out.
    """
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    figure = new_figure(3 + 4 * len(panels), 3.5)
    for axes, (label, metrics) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for metric, name in metrics.items():
            points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set(xlabel="step", ylabel=label)
        axes.legend()
    path = run / "learning_curve.png"
    save_figure(figure, path)
    return path
