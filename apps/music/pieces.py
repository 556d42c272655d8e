"""What a corpus is made of. Apart from corpora.py, because the readers make these and corpora.py calls the readers."""

from dataclasses import dataclass, field

import numpy as np

SPLITS = ("train", "valid", "test")


@dataclass
class Piece:
    """One piece as tokens without specials: `variants[i]` (N_i,) int16 is the piece at the i-th time stretch.

    `source` holds the melody in the same stretches where the task is melody -> accompaniment (the variants are then the
    accompaniment), else None.
    """

    name: str
    variants: list[np.ndarray]
    source: list[np.ndarray] | None = None


@dataclass
class Corpus:
    """Pieces by split (always the keys train, valid and test; a split may be empty), and what was left out and why."""

    name: str
    splits: dict[str, list[Piece]]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    sha256: str = ""
    split_rule: str = ""


def summary(corpus: Corpus) -> dict:
    """Plain numbers for model cards and `info`: pieces and tokens (of the first variant) by split, what was skipped."""
    return {
        "name": corpus.name,
        "sha256": corpus.sha256,
        "split_rule": corpus.split_rule,
        "pieces": {split: len(corpus.splits[split]) for split in SPLITS},
        "tokens": {split: sum(len(piece.variants[0]) for piece in corpus.splits[split]) for split in SPLITS},
        "skipped": len(corpus.skipped),
    }
