"""`extract`: videos as snippet features of EfficientNet-Lite0, and class scores where a model is given."""

import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apps.action.features import EXTRACTED, VIDEOS, extracted_step, read_array
from shared.command import progress
from shared.errors import InputError
from shared.io.files import output_folder, replacing, write_json
from shared.training.device import pick_device

if TYPE_CHECKING:
    from shared.io.video import Video

SIZE = 224  # pixels of the shorter side
PER_SNIPPET = 2  # frames that a snippet's feature is the mean of, at most
CHUNK = 16  # frames that are in memory at once


@lru_cache(maxsize=1)
def _encoder(device: str):
    import torch

    from shared.encoders.efficientnet import EfficientNetLite0

    return EfficientNetLite0().to(torch.device(device))


def video_features(path: Path, step: float, *, device: str = "cpu", timeout: float = 60.0) -> np.ndarray:
    """Features (T, 1280) of a video in snippets of `step` seconds, under a progress bar.

    A snippet's feature is the mean of `PER_SNIPPET` frames spread over it (all of them in a slow video). Memory is that
    of one chunk of frames. Raises InputError for a file that is missing, damaged or hangs longer than `timeout`.
    """
    from shared.io.video import Video

    features = []
    with Video(path, size=SIZE, timeout=timeout) as video, progress() as bar:
        task = bar.add_task(f"seconds of {path.name}", total=round(video.info.duration))
        for feature in _snippets(video, step, device):
            features.append(feature)
            bar.update(task, completed=round(len(features) * step))
    if not features:
        raise InputError(f"{path}: no frame could be read; copy it again or convert it")
    return np.stack(features)


def iterate_features(path: Path, step: float, *, device: str = "cpu", timeout: float = 60.0) -> Iterator[np.ndarray]:
    """The features (1280,) of one snippet after another, each as soon as the video has been read so far."""
    from shared.io.video import Video

    with Video(path, size=SIZE, timeout=timeout) as video:
        yield from _snippets(video, step, device)


def _snippets(video: "Video", step: float, device: str) -> Iterator[np.ndarray]:
    import torch

    from shared.encoders.efficientnet import encode

    encoder = _encoder(device)
    stride = max(1, int(video.info.fps * step / PER_SNIPPET))
    current, total, count = 0, np.zeros(1280), 0
    for chunk in video.chunks(CHUNK, stride=stride):
        encoded = encode(encoder, torch.from_numpy(chunk.frames)).numpy()
        for time, feature in zip(chunk.times, encoded, strict=True):
            at = int(time / step + 1e-6)
            while at > current and count:  # a gap in the frames repeats the snippet before it
                yield (total / count).astype(np.float32)
                current += 1
                if at == current:
                    total, count = np.zeros(1280), 0
            total, count = total + feature, count + 1
    if count:
        yield (total / count).astype(np.float32)
    if video.note:
        print(f"note: {video.path}: {video.note}; what follows is missing", file=sys.stderr)


def extract(
    videos: Path, out: Path, *, snippet_seconds: float, checkpoint: Path | None, device: str, timeout: float
) -> dict:
    """Features of a video, or of all in a folder, as NAME.npy; with a model its class probabilities as scores/NAME.npy.

    What is there already is left, so that a run that was ended goes on. A video that cannot be read is named and left
    out; InputError when none can be read, or the folder holds features of other snippets.
    """
    from apps.action.detector import load, maps_of
    from apps.action.recordings import Recording

    files = _video_files(videos)
    where = str(pick_device(device))
    detector = load(checkpoint, device) if checkpoint else None
    if detector is not None and detector.source.kind != "video":
        raise InputError(
            f"{checkpoint}: reads {detector.source.kind}, not video features; give a model trained on them"
        )
    output_folder(out)
    there = extracted_step(out)
    if there not in (None, snippet_seconds):
        raise InputError(f"{out / EXTRACTED}: the features there have snippets of {there:g} s; name another folder")
    made = {"snippet_seconds": snippet_seconds, "encoder": "EfficientNet-Lite0", "channels": 1280}
    rows, skipped = [], []
    for file in files:
        target = out / f"{file.stem}.npy"
        try:
            if not target.exists():
                features = video_features(file, snippet_seconds, device=where, timeout=timeout)
                write_json(out / EXTRACTED, made)  # not before there are features to which it applies
                _save(target, features)
            features, _ = read_array(target)
        except InputError as error:
            skipped.append(str(error))
            continue
        if detector is not None:
            scores = maps_of(detector, Recording(file.stem, features, snippet_seconds)).classes
            _save(output_folder(out.parent / "scores") / f"{file.stem}.npy", scores.astype(np.float32))
        rows.append({"video": file.name, "snippets": len(features), "seconds": len(features) * snippet_seconds})
    if not rows:
        raise InputError(skipped[0])
    written = {"written": str(out)} | ({"scores": str(out.parent / "scores")} if detector is not None else {})
    return {**written, "videos": rows, "skipped": skipped}


def _save(path: Path, values: np.ndarray) -> None:
    with replacing(path) as partial, open(partial, "wb") as file:
        np.save(file, values, allow_pickle=False)


def _video_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the path")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEOS)
    if not files:
        raise InputError(f"{path}: holds no video ({', '.join(VIDEOS)}); name a folder of videos")
    stems = [file.stem for file in files]
    twice = next((file.name for file in files if stems.count(file.stem) > 1), None)
    if twice:
        raise InputError(f"{path}: {twice}: another video has the same name; rename one")
    return files
