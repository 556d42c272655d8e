"""`extract`: videos as snippet features of EfficientNet-Lite0, and class scores where a model is given."""

import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from apps.action.corpora import EXTRACTED
from apps.action.features import VIDEOS
from shared.command import progress
from shared.errors import InputError
from shared.io.files import output_folder, read_json, replacing, write_json
from shared.training.device import pick_device

SIZE = 224  # pixels of the shorter side
PER_SNIPPET = 2  # frames that a snippet's feature is the mean of, at most
CHUNK = 16  # frames that are in memory at once


@lru_cache(maxsize=1)
def _encoder(device: str):
    import torch

    from shared.encoders.efficientnet import EfficientNetLite0

    return EfficientNetLite0().to(torch.device(device))


def video_features(
    path: Path, step: float, *, device: str = "cpu", timeout: float = 60.0
) -> tuple[np.ndarray, float, float]:
    """Snippet features (T, 1280) of a video, seconds a snippet, and its duration.

    A snippet's feature is the mean of `PER_SNIPPET` frames spread over it (all of them in a slow video). Memory is that
    of one chunk of frames. Raises InputError for a file that is missing, damaged or hangs longer than `timeout`.
    """
    parts = list(iterate_features(path, step, device=device, timeout=timeout))
    if not parts:
        raise InputError(f"{path}: no frame could be read; copy it again or convert it")
    features = np.stack([feature for _, feature in parts])
    return features, step, len(features) * step


def iterate_features(
    path: Path, step: float, *, device: str = "cpu", timeout: float = 60.0
) -> Iterator[tuple[float, np.ndarray]]:
    """(end of the snippet in seconds, feature (1280,)) of one snippet after another, as the video is read."""
    import torch

    from shared.encoders.efficientnet import encode
    from shared.io.video import Video

    encoder = _encoder(device)
    with Video(path, size=SIZE, timeout=timeout) as video:
        stride = max(1, int(video.info.fps * step / PER_SNIPPET))
        current, total, count = 0, np.zeros(1280), 0
        for chunk in video.chunks(CHUNK, stride=stride):
            features = encode(encoder, torch.from_numpy(chunk.frames)).numpy()
            for time, feature in zip(chunk.times, features, strict=True):
                at = int(time / step + 1e-6)
                while at > current and count:  # a gap in the frames repeats the snippet before it
                    yield (current + 1) * step, (total / count).astype(np.float32)
                    current += 1
                    if at == current:
                        total, count = np.zeros(1280), 0
                total, count = total + feature, count + 1
        if count:
            yield (current + 1) * step, (total / count).astype(np.float32)
        if video.note:
            print(f"note: {path}: {video.note}; what follows is missing", file=sys.stderr)


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
    note = out / EXTRACTED
    if note.exists() and read_json(note)["snippet_seconds"] != snippet_seconds:
        raise InputError(
            f"{note}: the features there have snippets of {read_json(note)['snippet_seconds']:g} s; name another folder"
        )
    made = {"snippet_seconds": snippet_seconds, "encoder": "EfficientNet-Lite0", "channels": 1280}
    rows, skipped = [], []
    with progress() as bar:
        for file in bar.track(files, description="videos"):
            target = out / f"{file.stem}.npy"
            try:
                if not target.exists():
                    features, _, _ = video_features(file, snippet_seconds, device=where, timeout=timeout)
                    write_json(note, made)  # not before there are features to which it applies
                    _save(target, features)
                features = np.load(target, allow_pickle=False)
            except InputError as error:
                skipped.append(str(error))
                continue
            if detector is not None:
                scores = maps_of(detector, Recording(file.stem, features, snippet_seconds)).classes
                _save(output_folder(out.parent / "scores") / f"{file.stem}.npy", scores.astype(np.float32))
            rows.append({"video": file.name, "snippets": len(features), "seconds": len(features) * snippet_seconds})
    if not rows:
        raise InputError(skipped[0])
    return {"written": str(out), "videos": rows, "skipped": skipped}


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
