"""The JSB Chorales data set in its canonical split (229 / 76 / 77 pieces), as JSON or as a plain numeric .npz."""

import zipfile
from pathlib import Path

import numpy as np

from apps.music.codecs import chorale
from apps.music.pieces import SPLITS, Corpus, Piece
from shared.errors import InputError
from shared.io.files import input_file, read_json, sha256


def read_jsb(path: Path) -> Corpus:
    """Read `Jsb16thSeparated.json` or an .npz with the same content; the split is the file's own.

    JSON: split -> pieces -> steps of a 16th -> `[S, A, T, B]`, MIDI pitches, -1 for silence. NPZ: for each split an int
    array `<split>` (steps of all its pieces, 4) and `<split>_lengths` (pieces,), the steps of each piece.
    The published .npz is a pickle, which could run code when it is opened: refused, with the JSON form named.
    Raises InputError: missing, empty, not in this layout. A single bad piece is skipped and named.
    """
    path = input_file(path)
    pieces = _read_npz(path) if path.suffix.lower() == ".npz" else _read_splits(path)
    corpus = Corpus(
        name=path.stem,
        splits={split: [] for split in SPLITS},
        sha256=sha256(path),
        split_rule=f"the split of {path.name}",
    )
    for split in SPLITS:
        for index, steps in enumerate(pieces[split]):
            name = f"{split}/{index:03d}"
            try:
                tokens = chorale.encode(_grid(steps))
            except ValueError as error:
                corpus.skipped.append((name, str(error)))
                continue
            corpus.splits[split].append(Piece(name, [tokens]))
    if not any(corpus.splits.values()):
        reason = corpus.skipped[0][1] if corpus.skipped else "the splits are empty"
        raise InputError(f"{path}: holds no chorale that can be read ({reason})")
    return corpus


def _grid(steps: list | np.ndarray) -> np.ndarray:
    """The (T, 4) grid of one piece, NaN as silence (older files of the data set use it). ValueError otherwise."""
    try:
        values = np.asarray(steps, dtype=float)
    except (TypeError, ValueError):
        raise ValueError("its steps are not lists of four numbers") from None
    if values.ndim != 2 or values.shape[1] != 4 or not len(values):
        raise ValueError("its steps are not lists of four numbers")
    values = np.nan_to_num(values, nan=-1.0)
    if (values != np.round(values)).any():
        raise ValueError("a pitch is not a whole number")
    return values.astype(int) if np.abs(values).max() < 1000 else np.full((1, 4), 999)  # encode() names the range


def _read_splits(path: Path) -> dict[str, list]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(split), list) for split in SPLITS):
        raise InputError(
            f'{path}: expected an object with the lists "train", "valid" and "test", as in Jsb16thSeparated.json'
        )
    return content


def _read_npz(path: Path) -> dict[str, list]:
    fields = [name for split in SPLITS for name in (split, f"{split}_lengths")]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not all(f"{split}" in arrays.files for split in SPLITS):
                raise InputError(f"{path}: expected the arrays {', '.join(fields)}, found {', '.join(arrays.files)}")
            missing = [name for name in fields if name not in arrays.files]
            if missing:
                # The published file: object arrays named train, valid, test, and nothing else.
                raise ValueError(f"lacks {missing[0]}")
            return {split: _cut(path, arrays[split], arrays[f"{split}_lengths"]) for split in SPLITS}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not a plain numeric .npz ({_first_line(error)}); the published .npz is a pickle, "
            "which is never opened: give Jsb16thSeparated.json instead"
        ) from None


def _cut(path: Path, steps: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    fits = steps.ndim == 2 and lengths.ndim == 1 and lengths.dtype.kind in "iu" and (lengths > 0).all()
    if not fits or int(lengths.sum()) != len(steps):
        raise InputError(f"{path}: <split> has the shape (steps, 4) and <split>_lengths counts each piece's steps")
    return np.split(steps, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
