"""`explain`: where the attention of a clicked point goes through time."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from apps.video.config import VideoConfig
from apps.video.discover import load_trained
from apps.video.encoders import load_encoder
from apps.video.model import SlotModel, TemporalModel
from apps.video.outputs import SHEET, contact_sheet, video_name
from shared.errors import InputError
from shared.io.files import output_folder, write_json
from shared.io.video import Video
from shared.training.device import pick_device


@torch.inference_mode()
def explain(
    config: VideoConfig,
    source: Path,
    out: Path,
    *,
    point: str,
    frame: int,
    checkpoint: Path | None,
    weights: Path | None,
    device: str = "auto",
) -> dict:
    """Write a heat map over frames of `source`: how much the cell at `point` ("x,y" in pixels of `frame`) looks there.

    With a temporal block its attention, averaged over heads; with slots how alike the shares of the slots are; without
    a model the likeness of the encoder's features. Raises InputError for a point outside the frame.
    """
    where = pick_device(device)
    encoder = load_encoder(weights, where)
    model, kind = load_trained(checkpoint, encoder, where) if checkpoint is not None else (None, None)
    with Video(source, config.features.size) as video:
        x, y = parse_point(point, video.info.source_size)
        if frame >= video.info.frames:
            raise InputError(f"--frame {frame}: {source} has {video.info.frames} frames, counted from 0")
        count = min(SHEET[0] * SHEET[1], video.info.frames)
        shown = np.unique(np.append(np.linspace(0, video.info.frames - 1, count).round().astype(int), frame)).tolist()
        frames = np.concatenate([video.read([index]) for index in shown])
        height, width = video.info.source_size
    keys = torch.cat([encoder.keys(torch.from_numpy(one[None]).to(where))[0] for one in frames])
    asked, (h, w) = shown.index(frame), keys.shape[1:3]
    cell = min(h - 1, y * h // height), min(w - 1, x * w // width)
    maps = attention_of(model, keys, asked, cell)
    name = video_name(source)
    path = output_folder(out) / f"{name}.attention.png"
    tiles = [heat(one, m / maps.max().clamp_min(1e-12)) for one, m in zip(frames, maps, strict=True)]
    spot = tiles[asked]
    mark(spot, cell[0] * spot.shape[0] / h, cell[1] * spot.shape[1] / w, spot.shape[0] / h, spot.shape[1] / w)
    contact_sheet(path, tiles)
    by_frame = maps.flatten(1).sum(1)
    result = {
        "video": str(source),
        "point": [x, y],
        "frame": frame,
        "of": {"attention": "attention of the block", "slots": "likeness of slots", None: "likeness of features"}[kind],
        "frames": [
            {"frame": i, "share": float(s)}
            for i, s in zip(shown, by_frame / by_frame.sum().clamp_min(1e-12), strict=True)
        ],
    }
    write_json(out / f"{name}.attention.json", {**result, "maps": maps.cpu().numpy().round(6)})
    return {**result, "figure": str(path), "written": str(out / f"{name}.attention.json")}


def attention_of(model: TemporalModel | SlotModel | None, keys: Tensor, asked: int, cell: tuple[int, int]) -> Tensor:
    """How much the cell looks at every cell of the frames (T, h, w): at least 0."""
    if isinstance(model, TemporalModel):
        return model.signatures(keys[asked][cell][None], keys.flatten(0, 2)).view(keys.shape[:3])
    if model is not None:
        before = torch.cat([keys[:1], keys[:-1]])
        noise = torch.zeros(len(keys), model.slots.instances, *model.slots.gaussians.mean.shape, device=keys.device)
        keys = model(keys, before, noise)[1].semantic_masks.unflatten(2, keys.shape[1:3]).permute(0, 2, 3, 1)
    else:
        keys = keys - keys.flatten(0, 2).mean(0)
    f = F.normalize(keys, dim=-1)
    return (f @ f[asked][cell]).clamp_min(0)


def parse_point(text: str, size: tuple[int, int]) -> tuple[int, int]:
    """ "x,y" as pixels. Raises InputError when it is none, or lies outside."""
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--point {text}: is not of the form X,Y in pixels, such as 120,80") from None
    if not (0 <= x < size[1] and 0 <= y < size[0]):
        raise InputError(f"--point {text}: lies outside the frame of {size[1]}x{size[0]} pixels")
    return x, y


def heat(frame: np.ndarray, strength: Tensor) -> np.ndarray:
    """A frame darkened where strength (h, w), from 0 to 1, is low, and warm where it is high."""
    size = frame.shape[:2]
    up = F.interpolate(strength[None, None].float().cpu(), size, mode="bilinear", align_corners=False)[0, 0]
    s = up.sqrt().numpy()[..., None]
    warm = np.array([255, 120, 0]) * s + frame * (1 - s)
    return (frame * 0.35 * (1 - s) + (0.55 * warm + 0.45 * frame) * s).clip(0, 255).astype(np.uint8)


def mark(frame: np.ndarray, top: float, left: float, height: float, width: float) -> None:
    """A white box around the cell that is asked about."""
    a, b = int(top), int(left)
    c, d = min(frame.shape[0] - 1, int(top + height)), min(frame.shape[1] - 1, int(left + width))
    frame[a : c + 1, [b, d]] = 255
    frame[[a, c], b : d + 1] = 255
