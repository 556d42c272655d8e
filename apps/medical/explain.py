"""`explain`: what a voxel looks at, how channels mix, whether attention is used, and where the model is unsure."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from apps.medical.data import Slices, prepare
from apps.medical.figures import contours, grey_range, show_slice
from apps.medical.predict import read_scans
from apps.medical.segmenter import Found, Segmenter, load, segment_slices
from shared.attention.guided import ChannelAttention, PositionAttention
from shared.errors import InputError
from shared.io.files import output_folder, write_json
from shared.report.figures import new_figure, save_figure

UNUSED = 0.05  # a gamma nearer to zero than this leaves the features almost as they were


def explain(scan: Path, checkpoint: Path | None, out: Path, *, voxel: str | None, device: str) -> dict[str, Any]:
    """Write explanation.png and explanation.json for one voxel of a scan (None: the middle of the largest organ).

    Raises InputError for an unfit scan, a voxel outside of it, and a model without guided attention.
    """
    segmenter = load(checkpoint, device, ("guided",))
    at = None if voxel is None else parse_voxel(voxel)
    scans = read_scans([scan], segmenter.channels)
    if len(scans) > 1:
        raise InputError(f"{scan}: holds {len(scans)} scans; name one of them")
    (examination,) = scans
    volume = examination.first
    slices = prepare(examination.images, segmenter.config, examination.case())
    if at is not None and not all(0 <= i < n for i, n in zip(at, volume.voxels.shape, strict=True)):
        shape = " x ".join(map(str, volume.voxels.shape))
        raise InputError(f"--voxel {voxel}: lies outside of {scan}, which is {shape} voxels, counted from 0")
    found = segment_slices(segmenter, slices)
    at = at if at is not None else middle_of(found.labels)
    row, rows, maps = attention_at(segmenter, slices, at)
    gammas = gammas_of(segmenter.models[0])
    folder = output_folder(out)
    label = int(found.labels[at])
    facts = {
        "scan": str(scan),
        "model": segmenter.card["sha256"],
        "voxel": list(at),
        "label": segmenter.labels[label - 1] if label else "background",
        "entropy": float(found.entropy[at]),
        "disagreement": float(found.disagreement[at]),
        "gammas": gammas,
        "unused": [one["part"] for one in gammas if abs(one["gamma"]) < UNUSED],
        "attention": [{"scale": scale, **spread(weights, row)} for scale, weights in rows],
    }
    picture = folder / "explanation.png"
    draw(picture, segmenter, slices, found, at, rows, maps)
    write_json(folder / "explanation.json", facts)
    return {**facts, "written": [str(picture), str(folder / "explanation.json")]}


def parse_voxel(text: str) -> tuple[int, int, int]:
    """ "12,30,20" as three whole numbers, voxels of the file counted from 0."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--voxel {text}: is not of the form 12,30,20 (voxels of the file, from 0)")
    return tuple(int(part) for part in parts)


def middle_of(labels: np.ndarray) -> tuple[int, int, int]:
    """The labelled voxel nearest to the middle of the largest label; of an empty map the middle of the volume."""
    counts = np.bincount(labels.ravel())[1:]
    if not counts.any():
        return tuple(n // 2 for n in labels.shape)
    places = np.argwhere(labels == counts.argmax() + 1)
    return tuple(int(i) for i in places[np.linalg.norm(places - places.mean(0), axis=1).argmin()])


@torch.inference_mode()
def attention_at(segmenter: Segmenter, slices: Slices, voxel: tuple[int, int, int]):
    """The position of the voxel in the maps, for each scale the row of the last position attention (h, w), and the last
    channel map (C, C). Only the asked row of the position map is made."""
    model = segmenter.models[0]
    number, line, column = slices.grid.index(voxel)
    share = [size / whole for size, whole in zip(slices.grid.size, slices.grid.shape[1:], strict=True)]
    row = tuple(int((place + 0.5) * part) // model.stride for place, part in zip((line, column), share, strict=True))
    inputs: dict[nn.Module, Tensor] = {}
    parts = [part for part in model.modules() if isinstance(part, (PositionAttention, ChannelAttention))]
    hooks = [part.register_forward_pre_hook(lambda part, given: inputs.update({part: given[0]})) for part in parts]
    try:
        model(torch.from_numpy(slices.stack(np.array([number]), segmenter.config)).to(segmenter.device))
    finally:
        for hook in hooks:
            hook.remove()
    rows, maps = [], []
    for scale, guided in enumerate(model.attention):
        if len(guided.positions):
            rows.append((scale, guided.positions[-1].row(inputs[guided.positions[-1]], row)[0].cpu().numpy()))
        if len(guided.channels):
            maps.append((scale, guided.channels[-1].weights(inputs[guided.channels[-1]])[0].cpu().numpy()))
    return row, rows, maps


def gammas_of(model: nn.Module) -> list[dict[str, Any]]:
    """How much each attention adds to the features: at 0, where it began, nothing."""
    return [
        {"part": name.removesuffix(".gamma"), "gamma": float(value.detach())}
        for name, value in model.named_parameters()
        if name.endswith(".gamma")
    ]


def spread(weights: np.ndarray, at: tuple[int, ...]) -> dict[str, float]:
    """How wide a row looks: the share of even attention that its entropy comes to, its weight on itself, and its mean
    distance in positions."""
    flat = weights.ravel()
    entropy = float(-(flat * np.log(np.maximum(flat, 1e-12))).sum() / np.log(max(2, flat.size)))
    rows, columns = np.indices(weights.shape)
    distance = float((weights * np.hypot(rows - at[0], columns - at[1])).sum())
    return {"entropy": entropy, "on_itself": float(weights[at]), "mean_distance": distance}


def draw(path: Path, segmenter: Segmenter, slices: Slices, found: Found, voxel, rows, maps) -> None:
    """First line: the slice, and where its voxel looks at each scale. Second: uncertainty and the channel maps."""
    grid, model = slices.grid, segmenter.models[0]
    number, line, column = grid.index(voxel)
    image, labels = grid.cut(slices.volume.voxels)[number], grid.cut(found.labels)[number]
    greys = grey_range(slices.volume.voxels, segmenter.config.clip)
    figure = new_figure(2.5 * 5, 5.6)
    panels = figure.subplots(2, 5)
    for axes in panels.flat:
        show_slice(axes, image, grid, greys)
    contours(panels[0, 0], labels, len(segmenter.labels))
    panels[0, 0].set_title("found; the voxel asked")
    for axes, (scale, weights) in zip(panels[0, 1:], rows, strict=False):
        high, wide = (
            n * model.stride * whole / size
            for n, size, whole in zip(weights.shape, grid.size, grid.shape[1:], strict=True)
        )
        axes.imshow(
            weights.T,
            cmap="inferno",
            alpha=0.7,
            origin="lower",
            interpolation="nearest",
            extent=(-0.5, high - 0.5, -0.5, wide - 0.5),
            aspect=grid.spacing[2] / grid.spacing[1],
        )
        axes.set(xlim=(image.shape[0] - 0.5, -0.5), ylim=(-0.5, image.shape[1] - 0.5))
        axes.set_title(f"where it looks, scale {scale + 1}")
    for axes in panels[0]:
        axes.plot(line, column, "+", color="#00ffd0", ms=11, mew=2)
    for axes, values, name in zip(
        panels[1], (found.entropy, found.disagreement), ("entropy", "disagreement"), strict=False
    ):
        shown = grid.cut(values)[number]
        axes.imshow(
            shown.T,
            cmap="inferno",
            alpha=0.75,
            vmin=0,
            vmax=1,
            origin="lower",
            aspect=grid.spacing[2] / grid.spacing[1],
        )
        axes.set_xlim(image.shape[0] - 0.5, -0.5)
        axes.set_title(f"uncertainty: {name}")
    for axes, (scale, weights) in zip(panels[1, 2:], maps[-3:], strict=False):
        axes.clear()
        axes.imshow(weights, cmap="viridis", vmin=0, aspect="equal")
        axes.set(xlabel="channel looked at", ylabel="channel")
        axes.set_title(f"channels, scale {scale + 1}")
        axes.grid(False)
    for axes in panels[1, 2 + len(maps[-3:]) :]:
        axes.set_visible(False)
    save_figure(figure, path)
