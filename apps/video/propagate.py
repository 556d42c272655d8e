"""`propagate`: the mask of one frame carried through the whole video, forwards and backwards."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from apps.video.config import VideoConfig
from apps.video.encoders import Encoder, device_of, load_encoder
from apps.video.masks import read_mask, resize_labels
from apps.video.outputs import MaskFolder, frame_stems, mask_folder, present, video_name
from apps.video.propagation import Propagator, soft_labels
from apps.video.refine import confidence_of, decide, sharpen
from shared.command import progress
from shared.errors import InputError
from shared.io.files import write_json
from shared.io.video import Video
from shared.training.device import pick_device


def propagate(
    config: VideoConfig,
    source: Path,
    mask: Path,
    out: Path,
    *,
    frame: int | None = None,
    weights: Path | None = None,
    device: str = "auto",
) -> dict:
    """Carry the objects in `mask`, which belongs to frame `frame` (None: told by its name, else 0), through `source`.

    Writes what `apps.video.outputs` lists, and NAME.propagation.json, which is returned too.
    Raises InputError for a mask without objects, of another shape, or with more labels than fit.
    """
    labels = read_mask(mask)
    with Video(source, config.features.size) as video:
        given = first_frame(video, source, mask, frame)
        labels, note = fitted(labels, mask, video.info.source_size)
        encoder = load_encoder(weights, pick_device(device))
        with mask_folder(out, source, video.info.frames) as folder:
            folder.add(given, labels, 1.0)
            ids = carry(config, encoder, video, labels, given, folder)
        notes = [text for text in (note, video.note) if text]
    result = {
        "video": str(source),
        "frames": len(folder.confidence),
        "objects": ids,
        "given_frame": given,
        "encoder": encoder.name,
        **present(out, source, folder),
        "mean_confidence": float(np.mean(list(folder.confidence.values()))),
    }
    if notes:
        result["note"] = "; ".join(notes)
    confidence = [folder.confidence[index] for index in sorted(folder.confidence)]
    path = out / f"{video_name(source)}.propagation.json"
    write_json(path, {**result, "confidence": confidence, "settings": config.model_dump(mode="json")})
    return {**result, "written": str(path)}


def first_frame(video: Video, source: Path, mask: Path, frame: int | None) -> int:
    """Which frame the mask belongs to. Raises InputError when the video has no such frame."""
    if frame is None:
        stems = frame_stems(source, video.info.frames)
        frame = stems.index(mask.stem) if mask.stem in stems else 0
    if frame >= video.info.frames:
        raise InputError(f"--frame {frame}: {source} has {video.info.frames} frames, counted from 0")
    return frame


def fitted(labels: np.ndarray, path: Path, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """The labels in the size of the frames, and a note when they had another. Raises InputError for another shape."""
    if not labels.any():
        raise InputError(f"{path}: marks no object; give a mask with labels from 1 on")
    (height, width), (rows, columns) = size, labels.shape
    if (rows, columns) == (height, width):
        return labels, ""
    if abs(columns / rows - width / height) > 0.02 * width / height:
        raise InputError(f"{path}: is {columns}x{rows}, the video {width}x{height}; give a mask of the video's size")
    return resize_labels(labels, height, width), f"the mask was resized from {columns}x{rows} to {width}x{height}"


@torch.inference_mode()
def carry(
    config: VideoConfig, encoder: Encoder, video: Video, labels: np.ndarray, given: int, folder: MaskFolder
) -> list[int]:
    """Add the masks of all other frames to `folder`: those after the given one in order, then those before it."""
    ids = np.unique(labels[labels > 0]).tolist()
    numbers = np.array([0, *ids], np.uint8)
    truth = torch.from_numpy(labels)
    settings = config.propagate
    height, width = video.info.source_size
    with progress() as bar:
        task = bar.add_task("frames", total=video.info.frames - 1)
        for order in (range(given, video.info.frames), range(given, -1, -1)):
            propagator = Propagator(settings.radius, settings.top_k, settings.temperature, settings.context)
            for index, frame, features in encoded(encoder, video, order, config.features.chunk):
                if index == given:
                    propagator.begin(features, soft_labels(truth, ids, *features.shape[:2]).to(features))
                    continue
                soft = propagator.step(features).cpu()
                pixels = sharpen(soft, frame, config.features.refine)
                folder.add(index, numbers[decide(pixels, height, width)], confidence_of(soft))
                bar.advance(task)
    return ids


def encoded(encoder: Encoder, video: Video, order: range, chunk: int) -> Iterator[tuple[int, np.ndarray, torch.Tensor]]:
    """(index, frame (H, W, 3), fine features (h, w, C)) in `order`, which may run backwards; ends with the file."""
    device = device_of(encoder)
    if order.step > 0:
        parts = ((c.indices.tolist(), c.frames) for c in video.chunks(chunk, start=order.start, stop=order.stop))
    else:
        runs = (list(order[i : i + chunk]) for i in range(0, len(order), chunk))
        parts = ((run, video.read(run[::-1])[::-1]) for run in runs)
    for indices, frames in parts:
        for index, frame in zip(indices, frames, strict=True):
            features = encoder.fine(torch.from_numpy(np.ascontiguousarray(frame))[None].to(device))[0]
            yield index, frame, features
