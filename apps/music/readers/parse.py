"""Many files to tokens, in parallel processes; what cannot be read is named with its reason."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apps.music.codecs import chorale, performance
from apps.music.midi import read_grid, read_notes, read_tracks
from apps.music.notes import Note
from apps.music.readers.bach import read_chorale
from shared.errors import InputError, ManyheadsError

FILES_PER_PROCESS = 8  # a process takes about a second to start


class Job(NamedTuple):
    """`kind`: "notes" (performance), "grid" (a MIDI file as a chorale), "pop909" or "bach" (a score of music21)."""

    name: str
    path: Path
    kind: str
    stretches: tuple[float, ...] = (1.0,)


class Parsed(NamedTuple):
    """The tokens of one file, or the reason why it has none."""

    name: str
    variants: list[np.ndarray]
    source: list[np.ndarray] | None = None
    reason: str = ""


def parse_all(
    jobs: list[Job], workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Parsed]:
    """Parse in `workers` processes (None: one for each core, fewer for few files; 1: here), in the order of the jobs.

    `progress(done, total)` is called after each file.
    """
    if workers is None:
        workers = min(_cores(), len(jobs) // FILES_PER_PROCESS)
    results: list[Parsed] = []

    def collect(parsed: Parsed) -> None:
        results.append(parsed)
        if progress:
            progress(len(results), len(jobs))

    if workers <= 1:
        for job in jobs:
            collect(parse_one(job))
        return results
    # spawn: a forked child could inherit locks that the parent's threads hold (torch starts some).
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for parsed in pool.map(parse_one, jobs, chunksize=4):
                collect(parsed)
    except BrokenProcessPool:
        raise ManyheadsError("a process that parses music was ended from outside (out of memory?); try again") from None
    return results


def parse_one(job: Job) -> Parsed:
    """Parse one file; anything wrong with it becomes a reason."""
    try:
        return Parsed(job.name, *_READERS[job.kind](job))
    except InputError as error:
        return Parsed(job.name, [], reason=str(error).removeprefix(f"{job.path}: ").split("; ")[0])
    except (ValueError, OSError) as error:
        return Parsed(job.name, [], reason=str(error).splitlines()[0] if str(error) else type(error).__name__)


def stretch(notes: list[Note], factor: float) -> list[Note]:
    """The notes with all times multiplied by `factor`."""
    if factor == 1.0:
        return notes
    return [Note(note.start * factor, note.end * factor, note.pitch, note.velocity) for note in notes]


def _encode(notes: list[Note], stretches: tuple[float, ...]) -> list[np.ndarray]:
    return [performance.encode(stretch(notes, factor)) for factor in stretches]


def _notes(job: Job) -> tuple[list[np.ndarray], None]:
    return _encode(read_notes(job.path), job.stretches), None


def _grid(job: Job) -> tuple[list[np.ndarray], None]:
    grid = read_grid(job.path)
    sounding = int((grid >= 0).any(axis=0).sum())
    if sounding < grid.shape[1]:
        raise ValueError(f"only {sounding} of its 4 voices ever sound")
    return [chorale.encode(grid)], None


def _bach(job: Job) -> tuple[list[np.ndarray], None]:
    return [chorale.encode(read_chorale(job.path))], None


def _pop909(job: Job) -> tuple[list[np.ndarray], list[np.ndarray]]:
    melody: list[Note] = []
    accompaniment: list[Note] = []
    for dry, held in zip(read_tracks(job.path), read_tracks(job.path, pedal=True), strict=True):
        if dry.name.upper() == "MELODY":
            melody += dry.notes
        elif dry.name.upper() in ("BRIDGE", "PIANO"):
            accompaniment += held.notes
    if not melody or not accompaniment:
        raise ValueError(f"has no notes in its {'PIANO and BRIDGE tracks' if melody else 'MELODY track'}")
    return _encode(accompaniment, job.stretches), _encode(melody, job.stretches)


_READERS = {"notes": _notes, "grid": _grid, "bach": _bach, "pop909": _pop909}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
