"""Any music that a user has, as a corpus of tokens in train, valid and test."""

from pathlib import Path

from apps.music.pieces import SPLITS, Corpus, Piece
from apps.music.readers.jsb import read_jsb
from shared.errors import InputError

__all__ = ["SPLITS", "Corpus", "Piece", "load_corpus"]


def load_corpus(
    data: Path | None,
    codec: str,
    cache: Path | None = None,
    workers: int | None = None,
    stretches: tuple[float, ...] = (1.0,),
) -> Corpus:
    """Read `data` and encode it by `codec`."""
    if data is not None and data.suffix.lower() in (".json", ".npz"):
        if codec != "chorale":
            raise InputError(f"{data}: holds chorales on a grid; use it with the codec chorale, not {codec}")
        return read_jsb(data)
    raise InputError(f"{data}: not supported yet")
