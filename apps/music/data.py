"""Training sequences out of a corpus. Each is a function of (seed, epoch, index), so that a resumed run repeats it."""

from functools import partial

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from apps.music.codecs import get_codec
from apps.music.codecs.performance import clock_of
from apps.music.config import DataConfig
from apps.music.corpora import Corpus, Piece
from shared.errors import InputError


def with_specials(codec, tokens: np.ndarray) -> np.ndarray:
    """BOS, the tokens, EOS."""
    return np.concatenate([[codec.BOS], tokens, [codec.EOS]]).astype(np.int64)


class Crops(Dataset):
    """Random crops of training pieces: a piece by its length, a transposition, a stretch, a start."""

    def __init__(self, pieces: list[Piece], config: DataConfig, count: int, seed: int, epoch: int) -> None:
        self.pieces, self.config, self.count, self.seed, self.epoch = pieces, config, count, seed, epoch
        self.codec = get_codec(config.codec)
        lengths = np.array([len(piece.variants[0]) + 1 for piece in pieces], float)
        self.share = lengths / lengths.sum()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        piece = self.pieces[rng.choice(len(self.pieces), p=self.share)]
        variant = int(rng.integers(len(piece.variants)))
        tokens, semitones = self._transposed(piece.variants[variant], rng)
        whole = with_specials(self.codec, tokens)
        start = self._start(len(whole), rng)
        item = {"tokens": whole[start : start + self.config.length + 1], "start": np.int64(start)}
        if self.config.accompany and piece.source is not None:
            source = self.codec.transpose(piece.source[variant], semitones)
            item |= aligned_source(
                whole, start, self.config.length, source if source is not None else piece.source[variant]
            )
        return {name: torch.as_tensor(value) for name, value in item.items()}

    def _transposed(self, tokens: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        low = high = self.config.transpose
        if self.config.codec == "chorale":
            down, up = self.codec.transposition_range(tokens)
            low, high = min(low, -down), min(high, up)
        semitones = int(rng.integers(-low, high + 1))
        moved = self.codec.transpose(tokens, semitones)
        return (moved, semitones) if moved is not None else (tokens, 0)

    def _start(self, length: int, rng: np.random.Generator) -> int:
        # Starts before zero count as zero, so that openings are learned as often as the places that follow them.
        step = 4 if self.config.codec == "chorale" else 1
        lowest, highest = -(self.config.length // 4), max(1, length - self.config.length // 2)
        return max(0, int(rng.integers(lowest // step, -(-highest // step))) * step)


def aligned_source(whole: np.ndarray, start: int, length: int, source: np.ndarray) -> dict[str, np.ndarray]:
    """The melody that sounds beside a crop, two seconds more at either end, and both clocks, zero at the crop's start.

    Shape: whole (N,) with BOS; source (M,) -> clock (<= length + 1,), source (<= length,), source_clock likewise.
    """
    clock = clock_of(whole)
    zero = clock[start - 1] if start else 0
    stop = clock[min(start + length, len(clock) - 1)]
    source_clock = clock_of(source)
    near = np.flatnonzero((source_clock >= zero - 200) & (source_clock <= stop + 200))[:length]
    near = near if len(near) else np.array([0])
    return {
        "clock": clock[start : start + length + 1] - zero,
        "source": source[near].astype(np.int64),
        "source_clock": source_clock[near] - zero,
    }


class Windows(Dataset):
    """Whole pieces in windows of `length` tokens, every token counted once and, but for a piece's beginning, read with
    at least half a window before it: what stands further back than a training crop reached is no help but harm.

    Items are those of `Crops`, with `piece`, the number of the piece, and `skip`, how many targets at the window's
    beginning were counted in the window before. Longest first, so that like lengths share a batch.
    """

    def __init__(self, pieces: list[Piece], config: DataConfig) -> None:
        codec, length, stride = get_codec(config.codec), config.length, config.length // 2
        self.items = []
        for number, piece in enumerate(pieces):
            whole = with_specials(codec, piece.variants[0])
            for start in range(0, max(1, len(whole) - 1 - (length - stride)), stride):
                item = {
                    "tokens": whole[start : start + length + 1],
                    "start": np.int64(start),
                    "piece": np.int64(number),
                    "skip": np.int64(length - stride if start else 0),
                }
                if config.accompany and piece.source is not None:
                    item |= aligned_source(whole, start, length, piece.source[0])
                self.items.append(item)
        self.items.sort(key=lambda item: -len(item["tokens"]))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: torch.as_tensor(value) for name, value in self.items[index].items()}


def window_batches(pieces: list[Piece], config: DataConfig) -> DataLoader:
    """Whole pieces for evaluation, some 4,096 tokens a batch, of windows of like length."""
    collate_fn = partial(collate, pad=get_codec(config.codec).PAD)
    return DataLoader(Windows(pieces, config), batch_size=max(1, 4096 // config.length), collate_fn=collate_fn)


def counted(batch: dict[str, Tensor], codec) -> Tensor:
    """(B, L) which targets of a batch of windows are music (no special) and were not counted in the window before."""
    targets = batch["tokens"][:, 1:]
    new = torch.arange(targets.shape[1], device=targets.device) >= batch["skip"][:, None]
    return new & (targets != codec.PAD) & (targets != codec.EOS)


def collate(items: list[dict[str, Tensor]], pad: int) -> dict[str, Tensor]:
    """Pads to the longest of the batch; `source_keep` is False at padding of the melody."""
    batch = {}
    for name in items[0]:
        values = [item[name] for item in items]
        if values[0].ndim == 0:
            batch[name] = torch.stack(values)
        else:
            fill = pad if name in ("tokens", "source") else 0
            batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill)
    if "source" in batch:
        batch["source_keep"] = batch["source"] != pad
    return batch


class MusicData(lightning.LightningDataModule):
    """Crops to train on, whole pieces to validate on."""

    def __init__(
        self, corpus: Corpus, config: DataConfig, *, batch: int, steps: int, seed: int, processes: int = 1
    ) -> None:
        super().__init__()
        for split in ("train", "valid"):
            if not corpus.splits[split]:
                raise InputError(f"{corpus.name}: its {split} split is empty; give more pieces, at least 10 files")
        if config.accompany and corpus.splits["train"][0].source is None:
            raise InputError(
                f"{corpus.name}: data.accompany needs melody and accompaniment tracks in the POP909 layout"
            )
        if batch % processes:
            raise InputError(f"train.batch {batch} is not divisible by the {processes} processes; choose a multiple")
        self.corpus, self.config = corpus, config
        self.batch, self.steps, self.seed, self.processes = batch, steps, seed, processes

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        crops = Crops(self.corpus.splits["train"], self.config, self.steps * self.batch, self.seed, epoch)
        pad = get_codec(self.config.codec).PAD
        return DataLoader(crops, batch_size=self.batch // self.processes, collate_fn=partial(collate, pad=pad))

    def val_dataloader(self) -> DataLoader:
        return window_batches(self.corpus.splits["valid"], self.config)
