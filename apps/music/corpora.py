"""Any music that a user has, as a corpus of tokens in train, valid and test."""

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from apps.music import cache as kept
from apps.music.codecs import chorale
from apps.music.pieces import SPLITS, Corpus, Piece, summary
from apps.music.readers.archive import is_archive, unpacked
from apps.music.readers.bach import chorale_files
from apps.music.readers.jsb import read_jsb
from apps.music.readers.layouts import Layout, find_layout
from apps.music.readers.parse import Job, Parsed, parse_all
from shared.command import progress as show_progress
from shared.errors import InputError
from shared.io.cache import cache_folder
from shared.io.files import sha256

__all__ = ["SPLITS", "Corpus", "Piece", "load_corpus", "read_corpus", "split_by_key", "summary"]

CODECS = ("performance", "chorale")


def load_corpus(
    data: Path | None,
    codec: str,
    cache: Path | None = None,
    workers: int | None = None,
    stretches: tuple[float, ...] = (1.0,),
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Read `data` and encode it with `codec`, "performance" or "chorale".

    Data:
    - None: the four-part Bach chorales of music21 (chorale only). The split is our own, 80/10/10 by the SHA-1 of the
      music itself, transposed to one key, so that one chorale under two names cannot be in two splits. It is not the
      canonical split of the papers, and the two overlap.
    - a .json or .npz file: JSB Chorales in the canonical split (chorale only; see readers/jsb.py).
    - a folder with `maestro-v*.csv`: the split of that table.
    - a folder with POP909/NNN/NNN.mid: with the performance codec `Piece.source` is the MELODY track and
      `Piece.variants` the BRIDGE and PIANO tracks with their pedal; with the chorale codec as any other folder.
    - any other folder of .mid and .midi files: split by the SHA-1 of each file's bytes, 80/10/10.

    A .zip or .tar.gz of a folder is read as the folder. A hash split leaves no split empty where there are at least
    three different pieces.

    Args:
        cache: folder for parsed corpora; None takes the user's (see cache.py).
        workers: parsing processes; None takes one for each core.
        stretches: time factors; a performance has one variant for each, a chorale always one.
        progress: called as progress(done, total) after each parsed file, and not at all when the cache has the corpus.

    A file that cannot be used is skipped and named with its reason in `Corpus.skipped`. Raises InputError: data missing
    or in no known layout, the codec does not fit, or not one file can be used.
    """
    if codec not in CODECS:
        raise InputError(f"codec: {codec!r} is not known; choose one of {', '.join(CODECS)}")
    if not stretches or min(stretches) <= 0:
        raise InputError(f"stretches: {list(stretches)} must be factors above 0, such as 0.95 or 1.05")
    stretches = tuple(map(float, stretches)) if codec == "performance" else (1.0,)
    folder = cache if cache is not None else cache_folder()
    if data is None:
        if codec != "chorale":
            raise InputError("data: the built-in chorales need the codec chorale; give --data for performances")
        return _through_cache(_bach_layout(), codec, stretches, folder, workers, progress)
    data = Path(data)
    if data.suffix.lower() in (".json", ".npz"):
        if codec != "chorale":
            raise InputError(f"{data}: holds chorales on a grid; use the codec chorale, not {codec}")
        return read_jsb(data)
    if data.is_dir():
        layout = find_layout(data, data.resolve().name, codec)
        return _through_cache(layout, codec, stretches, folder, workers, progress)
    if not data.exists():
        raise InputError(f"{data}: no such file or folder; check the path")
    if not is_archive(data):
        raise InputError(
            f"{data}: is no known music data; give a folder of MIDI files, a .zip or .tar.gz of one, or JSB as .json"
        )
    with unpacked(data) as inside:
        layout = find_layout(inside, data.name.split(".")[0], codec)
        return _through_cache(layout, codec, stretches, folder, workers, progress)


def read_corpus(data: Path | None, codec: str, stretches: tuple[float, ...] = (1.0,)) -> Corpus:
    """`load_corpus` with a progress bar, since the first time may take minutes."""
    with show_progress() as bar:
        task = bar.add_task("files read", total=None)
        return load_corpus(
            data,
            codec,
            stretches=stretches,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def split_by_key(keys: list[str]) -> list[str]:
    """The split of each piece from its key, a hexadecimal hash: the first tenth of the hashes' range is valid, the next
    test, the rest train.

    A piece's split thus does not depend on the other pieces, and equal keys go together. Only where a split would be
    empty does it get one piece from another; two different pieces are train and valid, one is train.
    """
    ordered = sorted(set(keys))
    place = {key: int(key[:8], 16) / 2**32 for key in ordered}
    splits = {key: "valid" if place[key] < 0.1 else "test" if place[key] < 0.2 else "train" for key in ordered}
    if len(ordered) >= len(SPLITS):
        for split in ("valid", "test", "train"):
            if split not in splits.values():
                spare = [key for key in ordered if list(splits.values()).count(splits[key]) > 1]
                splits[spare[-1] if split == "train" else spare[0]] = split
    elif len(ordered) == 2:  # something to learn from, something to watch
        splits = dict(zip(ordered, ("valid", "train"), strict=True))
    else:
        splits = dict.fromkeys(ordered, "train")
    return [splits[key] for key in keys]


def _bach_layout() -> Layout:
    files = {path.stem: path for path in chorale_files()}
    rule = "80/10/10 by the SHA-1 of each chorale's notes (our own; not the canonical split of the papers)"
    return Layout(f"Bach chorales of music21 {version('music21')}", "bach", rule, files)


def _through_cache(
    layout: Layout,
    codec: str,
    stretches: tuple[float, ...],
    folder: Path,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Corpus:
    content = _content_hash(layout)
    path = kept.cache_path(folder, content, codec, stretches)
    corpus = kept.load(path)
    if corpus is None:
        jobs = [Job(name, file, layout.kind, stretches) for name, file in layout.files.items()]
        corpus = _assemble(layout, content, parse_all(jobs, workers, progress))
        kept.save(path, corpus)
    corpus.name = layout.name  # a folder may have been renamed since
    return corpus


def _content_hash(layout: Layout) -> str:
    """Of everything that the corpus is made from: the files' names and bytes, and how they are read."""
    digest = hashlib.sha256(f"{layout.kind}\n{layout.rule}\n".encode())
    for name, path in sorted([*layout.files.items(), *((path.name, path) for path in layout.extra)]):
        digest.update(f"{name}\n{sha256(path)}\n".encode())
    return digest.hexdigest()


def _assemble(layout: Layout, content: str, parsed: list[Parsed]) -> Corpus:
    corpus = Corpus(layout.name, {split: [] for split in SPLITS}, [*layout.skipped], content, layout.rule)
    corpus.skipped += [(item.name, item.reason) for item in parsed if item.reason]
    good = [item for item in parsed if not item.reason]
    if not good:
        name, reason = corpus.skipped[0]
        raise InputError(f"{layout.name}: none of its {len(corpus.skipped)} files can be used; {name}: {reason}")
    if layout.given:
        splits = [layout.given[item.name] for item in good]
    else:
        splits = split_by_key([_key(layout, item) for item in good])
    for item, split in zip(good, splits, strict=True):
        corpus.splits[split].append(Piece(item.name, item.variants, item.source))
    return corpus


def _key(layout: Layout, item: Parsed) -> str:
    if layout.kind != "bach":
        return hashlib.sha1(layout.files[item.name].read_bytes()).hexdigest()
    grid = chorale.decode(item.variants[0])
    last = grid[:, -1][grid[:, -1] >= 0][-1]
    return hashlib.sha1(np.where(grid >= 0, grid - last, -128).astype(np.int16).tobytes()).hexdigest()
