"""Clips of frozen features as training batches. Draws are a function of (seed, epoch), so that a resumed run repeats.

House notation: F frames of a video, T of a clip, h and w cells, C channels.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from apps.video.davis import Sequence, find_sequences
from apps.video.encoders import Encoder, device_of
from shared.command import progress
from shared.errors import InputError
from shared.io.files import read_json, to_json
from shared.io.video import Video

DATA = "data.json"  # in a run folder: what it is trained on


@dataclass(frozen=True)
class Features:
    """The features of one video: keys (F, h, w, C) and class tokens (F, C), in half precision."""

    name: str
    keys: Tensor
    cls: Tensor


def read_videos(data: Path | None, split: str | None, names: list[str] | None) -> list[Sequence]:
    """The videos to train on. Raises InputError when there are fewer than two: one is held out."""
    if data is None:
        raise InputError("--data: is required; name a folder of videos, of frames by video, or in DAVIS's layout")
    sequences = find_sequences(data, split, names)
    if len(sequences) < 2:
        raise InputError(f"{data}: holds {len(sequences)} video; training needs two or more, one to validate with")
    return sequences


def fingerprint(sequences: list[Sequence]) -> str:
    """A SHA-256 of the names and sizes of all files."""
    digest = hashlib.sha256()
    for sequence in sequences:
        files = sorted(sequence.frames.iterdir()) if sequence.frames.is_dir() else [sequence.frames]
        for file in files:
            digest.update(f"{sequence.name}/{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def same_data(run: Path, about: dict) -> None:
    """Raises InputError when the run folder's `DATA` says that it began with other data than `about`."""
    path = run / DATA
    if path.exists() and (before := read_json(path)) != json.loads(to_json(about)):
        raise InputError(f"{path}: the run began with other data ({before.get('name')}); resume it with the same")


@torch.inference_mode()
def encode_videos(sequences: list[Sequence], encoder: Encoder, size: int, most: int, chunk: int) -> list[Features]:
    """The features of at most `most` frames of each video, evenly spread. InputError: one has no frame."""
    device = device_of(encoder)
    found = []
    with progress() as bar:
        for sequence in bar.track(sequences, description="videos"):
            with Video(sequence.frames, size) as video:
                stride = max(1, -(-video.info.frames // most))
                parts = [
                    encoder.keys(torch.from_numpy(part.frames).to(device))
                    for part in video.chunks(chunk, stride=stride)
                ]
            keys, cls = (torch.cat([part[i] for part in parts]).half().cpu().clone() for i in (0, 1))
            found.append(Features(sequence.name, keys, cls))
    return found


class Clips(Dataset):
    """Every clip of every video by (number, draw): keys (T, h, w, C), class tokens (T, C), and the draw.

    The draw seeds what is random in a loss for this clip alone, so that it does not matter who else is in its batch.
    A video that is shorter than a clip gives one, in which its last frame stands still.
    """

    def __init__(self, videos: list[Features], frames: int, gap: int) -> None:
        self.videos, self.frames, self.gap = videos, frames, gap
        span = (frames - 1) * gap + 1
        self.places = [(i, s) for i, v in enumerate(videos) for s in range(max(1, len(v.keys) - span + 1))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        number, draw = item
        video, start = self.places[number]
        features = self.videos[video]
        at = torch.arange(self.frames).mul(self.gap).add(start).clamp_max(len(features.keys) - 1)
        return {"keys": features.keys[at].float(), "cls": features.cls[at].float(), "draw": torch.tensor(draw)}


class ClipData(lightning.LightningDataModule):
    """Random clips for training, four from each held-out video for validation; a batch has one size of frame.

    `batch` clips make a step, which the processes share: each has the same number of them.
    """

    def __init__(
        self, videos: list[Features], *, frames: int, gap: int, batch: int, steps: int, valid: float, seed: int
    ) -> None:
        super().__init__()
        order = np.random.default_rng(seed).permutation(len(videos))
        held = max(1, min(len(videos) - 1, round(valid * len(videos))))
        self.valid_videos = [videos[i] for i in sorted(order[:held])]
        self.train_videos = [videos[i] for i in sorted(order[held:])]
        self.frames, self.gap, self.batch, self.steps, self.seed = frames, gap, batch, steps, seed

    def train_dataloader(self) -> DataLoader:
        clips = Clips(self.train_videos, self.frames, self.gap)
        rng = np.random.default_rng((self.seed, self.trainer.current_epoch if self.trainer else 0))
        processes = self.trainer.world_size if self.trainer else 1
        grids = [tuple(self.train_videos[video].keys.shape[1:3]) for video, _ in clips.places]
        batches = []
        for _ in range(self.steps):
            grid = grids[rng.integers(len(grids))]
            same = [i for i, other in enumerate(grids) if other == grid]
            step = [(int(rng.choice(same)), int(rng.integers(2**62))) for _ in range(self.batch)]
            batches += [step[i::processes] for i in range(processes)]  # dealt out one by one
        return DataLoader(clips, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader:
        clips = Clips(self.valid_videos, self.frames, self.gap)
        batches = []
        for video in range(len(self.valid_videos)):
            own = [i for i, (v, _) in enumerate(clips.places) if v == video]
            chosen = np.unique(np.linspace(0, len(own) - 1, 4).round().astype(int))
            batches += [[(own[i], own[i])] for i in chosen]
        return DataLoader(clips, batch_sampler=batches)
