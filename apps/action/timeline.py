"""Pictures of a recording over time: what is annotated, what was found, what the model said, what it attended to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.action.detector import Maps
from apps.action.proposals import Detection
from apps.action.recordings import Recording, Segment
from shared.report.figures import COLOURS, new_figure, save_figure

MOST_ROWS = 20  # classes that get a row of their own


def colour_of(labels: Sequence[str], label: str) -> str:
    return COLOURS[list(labels).index(label) % 6] if label in labels else "#888888"


def timeline(
    path: Path,
    recording: Recording,
    shown: Sequence[Detection],
    maps: Maps,
    labels: Sequence[str],
    *,
    pictures: Sequence[np.ndarray] = (),
    gates: dict[str, np.ndarray] | None = None,
    title: str = "",
) -> None:
    """A row for each class with the detections (and the truth, hatched, where there is any), and curves beneath.

    `pictures` (H, W, 3) are put on top, evenly over time. `gates`: curves (N,) between 0 and 1 by name.
    """
    named = _rows(shown, recording.segments, maps, labels)
    heights = ([0.9] if len(pictures) else []) + [0.34 * len(named) + 0.5, 0.2 * len(named) + 0.6]
    heights += [1.0] if maps.start is not None else []
    heights += [1.0] if gates else []
    figure = new_figure(11, sum(heights) + 0.9)
    all_axes = np.atleast_1d(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    axes = list(all_axes)
    if len(pictures):
        _strip(axes.pop(0), pictures, recording.duration)
    _segments(axes[0], named, shown, recording.segments, labels)
    axes[0].set_title(title or recording.name)
    _classes(axes[1], recording, maps, named, labels)
    rest = axes[2:]
    time = (np.arange(len(maps.classes)) + 0.5) * recording.step
    if maps.start is not None and maps.end is not None:
        ax = rest.pop(0)
        ax.plot(time, maps.start, color=COLOURS[2], lw=1, label="start")
        ax.plot(time, maps.end, color=COLOURS[1], lw=1, label="end")
        ax.set(ylim=(0, 1), ylabel="boundary")
        ax.legend(**_above)
    if gates:
        for number, (name, curve) in enumerate(gates.items()):
            rest[0].plot(time, curve, color=COLOURS[3 + number], lw=1.2, label=name)
        rest[0].set(ylabel="attention")
        rest[0].legend(**_above)
    axes[-1].set(xlabel="seconds", xlim=(0, recording.duration))
    save_figure(figure, path)


_above = {"loc": "lower right", "bbox_to_anchor": (1, 0.95), "ncols": 2, "fontsize": 7, "frameon": False}


def _rows(shown: Sequence[Detection], truth: Sequence[Segment], maps: Maps, labels: Sequence[str]) -> list[str]:
    """The classes that get a row: those shown or annotated, then the likeliest, in the model's order."""
    wanted = list(dict.fromkeys([*(s.label for s in truth), *(d.label for d in shown)]))
    by_weight = [labels[k] for k in np.argsort(-maps.classes[:, :-1].mean(0))]
    if len(labels) <= 12:
        wanted = list(dict.fromkeys([*wanted, *by_weight]))
    wanted = (wanted or by_weight[:3])[:MOST_ROWS]
    order = list(labels)
    return sorted(wanted, key=lambda label: (order.index(label) if label in order else len(order), label))


def _segments(ax, named: list[str], shown, truth, labels) -> None:
    for segment in truth:
        if segment.label in named:
            at = named.index(segment.label)
            box = {"facecolor": "#dddddd", "edgecolor": "#555555", "lw": 0.6}
            ax.broken_barh([(segment.start, segment.end - segment.start)], (at - 0.42, 0.28), **box)
    for d in shown:
        if d.label in named:
            at = named.index(d.label)
            bottom, height = (at - 0.1, 0.5) if truth else (at - 0.35, 0.7)
            ax.broken_barh([(d.start, d.end - d.start)], (bottom, height), color=colour_of(labels, d.label))
            ax.text((d.start + d.end) / 2, bottom + height / 2, f"{100 * d.score:.0f}", **_inside)
    ax.set_yticks(range(len(named)), named)
    ax.set(ylim=(len(named) - 0.4, -0.6))
    if truth:
        ax.text(
            1, 1.01, "grey: annotated; colour: found, with its score", transform=ax.transAxes, ha="right", va="bottom"
        )


_inside = {"ha": "center", "va": "center", "fontsize": 7, "color": "white", "clip_on": True}


def _classes(ax, recording: Recording, maps: Maps, named: list[str], labels: Sequence[str]) -> None:
    columns = [list(labels).index(label) for label in named if label in labels]
    rows = [label for label in named if label in labels]
    shares = maps.classes[:, columns].T
    extent = (0, recording.duration, len(columns) - 0.5, -0.5)
    ax.imshow(shares, aspect="auto", extent=extent, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    ax.set_yticks(range(len(rows)), rows, fontsize=7)
    ax.set_ylabel("snippet classes")
    ax.grid(visible=False)


def _strip(ax, pictures: Sequence[np.ndarray], duration: float) -> None:
    width = duration / len(pictures)
    for number, picture in enumerate(pictures):
        ax.imshow(picture, extent=(number * width, (number + 1) * width, 0, 1), aspect="auto")
    ax.set(xlim=(0, duration), ylim=(0, 1))
    ax.axis("off")


def channel_picture(path: Path, gates: dict[str, np.ndarray], title: str) -> None:
    """The channel gates (C,) of each attention, strongest first."""
    figure = new_figure(9, 1.2 + 1.5 * len(gates))
    for number, (name, values) in enumerate(gates.items(), 1):
        ax = figure.add_subplot(len(gates), 1, number)
        ax.bar(range(len(values)), np.sort(values)[::-1], color=COLOURS[number - 1], width=0.9)
        ax.set(ylim=(0, 1), ylabel="gate", xlabel="channels of the encoder, strongest first", title=f"{title}: {name}")
    save_figure(figure, path)
