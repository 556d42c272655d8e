"""Windows of snippets out of recordings: a function of (seed, epoch, index), so that a resumed run repeats them."""

from collections.abc import Sequence

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from apps.action.boundary_matching import valid_proposals
from apps.action.config import DataConfig
from apps.action.recordings import Corpus, Recording
from apps.action.targets import boundary_targets, class_targets, overlap_targets
from apps.action.windows import cut, window_starts
from shared.errors import InputError

INSIDE = 0.75  # the share of a segment that has to lie in a window for it to be a target there


def truth(
    recording: Recording, start: int, config: DataConfig, longest: int, labels: Sequence[str]
) -> dict[str, np.ndarray]:
    """The targets of a window: start, end (T,), overlap (D, T), classes (T, K + 1)."""
    scale = config.window / len(recording.features) if config.whole else 1.0
    known = [segment for segment in recording.segments if segment.label in labels]
    spans = np.array([[s.start, s.end] for s in known]).reshape(-1, 2) / recording.step * scale - start
    classes = np.array([labels.index(s.label) for s in known], int)
    end = min(config.window, len(recording.features) - start) if not config.whole else config.window
    clipped = np.clip(spans, 0, end)
    inside = clipped[:, 1] - clipped[:, 0] >= INSIDE * (spans[:, 1] - spans[:, 0])
    first, last = boundary_targets(spans, config.window)
    return {
        "start": first,
        "end": last,
        "overlap": overlap_targets(clipped[inside], config.window, longest),
        "classes": class_targets(spans, classes, config.window, len(labels)),
    }


class Windows(Dataset):
    """Windows of recordings that overlap by half; `shift` moves them, so that an epoch does not repeat the last."""

    def __init__(
        self, recordings: Sequence[Recording], config: DataConfig, longest: int, labels: Sequence[str], shift: int = 0
    ) -> None:
        self.recordings, self.config, self.longest, self.labels = recordings, config, longest, labels
        stride = max(1, config.window // 2)
        self.places = [
            (number, start)
            for number, recording in enumerate(recordings)
            for start in ([0] if config.whole else window_starts(len(recording.features), config.window, stride, shift))
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number, start = self.places[index]
        recording = self.recordings[number]
        item = cut(recording, start, self.config.window, self.config.whole)
        item |= truth(recording, start, self.config, self.longest, self.labels)
        item["valid"] = valid_proposals(self.config.window, self.longest, int(item["keep"].sum()))
        return {name: torch.as_tensor(value) for name, value in item.items()}


class ActionData(lightning.LightningDataModule):
    """Shuffled windows to train on, fixed ones to validate on. Features are scaled before they come here."""

    def __init__(
        self,
        train: Sequence[Recording],
        valid: Sequence[Recording],
        labels: Sequence[str],
        config: DataConfig,
        longest: int,
        *,
        batch: int,
        seed: int,
        processes: int = 1,
    ) -> None:
        super().__init__()
        if batch % processes:
            raise InputError(f"train.batch {batch} is not divisible by the {processes} processes; choose a multiple")
        self.train, self.valid, self.labels, self.config, self.longest = train, valid, labels, config, longest
        self.batch, self.seed, self.processes = batch, seed, processes

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        rng = np.random.default_rng((self.seed, epoch))
        windows = Windows(
            self.train, self.config, self.longest, self.labels, int(rng.integers(self.config.window // 2))
        )
        order = rng.permutation(len(windows)).tolist()
        shuffled = torch.utils.data.Subset(windows, order)
        return DataLoader(shuffled, batch_size=self.batch // self.processes)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Windows(self.valid, self.config, self.longest, self.labels), batch_size=self.batch)


def check_corpus(corpus: Corpus, parts: dict[str, list[Recording]], select: str) -> None:
    """Raises InputError when there is nothing to train on, or nothing to select by."""
    if not parts["train"]:
        raise InputError(f"{corpus.name}: its training split is empty; name more recordings, or set data.fold")
    if not any(recording.segments for recording in parts["train"]):
        raise InputError(f"{corpus.name}: no training recording has a segment; annotate at least one")
    if select == "best" and not parts["valid"]:
        raise InputError(
            f"{corpus.name}: its validation split is empty; add recordings, or use --set train.select=last"
        )
