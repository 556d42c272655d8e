"""Parsed corpora, kept so that a second run starts at once. A cache may be deleted at any time."""

import hashlib
import json
import logging
import zipfile
from pathlib import Path

import numpy as np

from apps.music.pieces import SPLITS, Corpus, Piece
from shared.errors import InputError
from shared.io.files import replacing

VERSION = 2  # raise it when a reader or a codec gives other tokens than before

_log = logging.getLogger(__name__)


def cache_path(folder: Path, content: str, codec: str, stretches: tuple[float, ...]) -> Path:
    """Where the corpus of this content (a hash), codec and stretches lies."""
    key = json.dumps([VERSION, content, codec, list(stretches)])
    return folder / f"music-{codec}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"


def load(path: Path) -> Corpus | None:
    """The corpus kept at `path`; None when there is none, or when the file is damaged (it is then made anew)."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            sequences = np.split(arrays["tokens"], np.cumsum(arrays["lengths"])[:-1])
        corpus = Corpus(**about["corpus"], splits={split: [] for split in SPLITS})
        corpus.skipped = [(name, reason) for name, reason in corpus.skipped]
        rest = iter(sequences)
        for split, name, variants, sources in about["pieces"]:
            tokens = [next(rest) for _ in range(variants)]
            corpus.splits[split].append(Piece(name, tokens, [next(rest) for _ in range(sources)] or None))
        return corpus
    except (OSError, ValueError, KeyError, TypeError, EOFError, StopIteration, zipfile.BadZipFile) as error:
        _log.warning("%s: is damaged (%s) and is made anew", path, type(error).__name__)
        return None


def save(path: Path, corpus: Corpus) -> None:
    """Keep `corpus` at `path`; a place that cannot be written to costs time at the next run, and nothing else."""
    pieces = [(split, piece) for split in SPLITS for piece in corpus.splits[split]]
    sequences = [tokens for _, piece in pieces for tokens in (*piece.variants, *(piece.source or []))]
    about = {
        "corpus": {
            "name": corpus.name,
            "skipped": corpus.skipped,
            "sha256": corpus.sha256,
            "split_rule": corpus.split_rule,
        },
        "pieces": [[split, piece.name, len(piece.variants), len(piece.source or [])] for split, piece in pieces],
    }
    try:
        with replacing(path) as partial:
            np.savez(
                partial,
                tokens=np.concatenate(sequences),
                lengths=np.array([len(tokens) for tokens in sequences], dtype=np.int64),
                about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
            )
    except (OSError, InputError) as error:
        _log.warning("the parsed music is not kept for the next run: %s", error)
