"""`inspect`: what data hold, and everything that is wrong with them, before anything is trained."""

from pathlib import Path
from typing import Any

import numpy as np

from apps.action.annotations import SUFFIXES, read_annotations
from apps.action.config import DataConfig
from apps.action.corpora import annotation_file, load_corpus, summary
from apps.action.readers.salads import is_salads
from apps.action.recordings import Corpus, problems
from shared.errors import InputError

MOST = 20  # problems that are listed


def inspect(data: Path | None, config: DataConfig) -> dict[str, Any]:
    """Recordings, classes with their durations, splits, and a line for each problem. InputError as `load_corpus`."""
    found: list[str] = []
    if data is not None and (data.suffix.lower() in SUFFIXES or data.is_dir()) and not is_salads(data):
        found = _problems_of(data)
    try:
        corpus = load_corpus(data, config)
    except InputError as error:
        if not found:
            raise
        if not any(str(error).startswith(line) for line in found):
            found = [str(error), *found]
        return {"usable": False, "problems": found[:MOST], "more_problems": max(0, len(found) - MOST)}
    return {"usable": True, **_facts(corpus, config), "problems": found[:MOST]}


def _problems_of(data: Path) -> list[str]:
    """What the annotations alone show to be wrong: times against the durations they name, order, lengths."""
    try:
        path = data if data.is_file() else annotation_file(data)
        annotated = read_annotations(path)
    except InputError as error:
        return [str(error)]
    found = []
    for name, entry in annotated.items():
        found += problems(f"{path}: {name}", entry.segments, entry.duration, None)
        found += [
            f"{path}: {name}: {a.label} is annotated twice from {a.start:g} to {a.end:g}; remove one"
            for a, b in zip(entry.segments[:-1], entry.segments[1:], strict=True)
            if a == b
        ]
    return found


def _facts(corpus: Corpus, config: DataConfig) -> dict[str, Any]:
    segments = [(r, s) for r in corpus.recordings for s in r.segments]
    parts = corpus.split(config.fold)
    step = corpus.recordings[0].step
    lengths = np.array([(s.end - s.start) / r.step for r, s in segments])
    trained = {s.label for r in parts["train"] for s in r.segments}
    notes = [corpus.note] if corpus.note else []
    absent = sorted({s.label for _, s in segments} - trained)
    if absent:
        notes.append(f"no training recording has {', '.join(absent)}: it cannot be learned")
    bare = sum(not r.segments for r in corpus.recordings)
    if bare:
        notes.append(f"{bare} recordings have no segment; they are learned as background")
    return {
        **summary(corpus),
        "kind": corpus.source.kind,
        "channels": corpus.recordings[0].features.shape[1],
        "snippet_seconds": step if corpus.source.step else None,
        "snippets": {
            "shortest_recording": min(len(r.features) for r in corpus.recordings),
            "longest_recording": max(len(r.features) for r in corpus.recordings),
            "segment_median": float(np.median(lengths)),
            "segment_longest": float(lengths.max()),
            "suggested_longest": int(np.ceil(np.quantile(lengths, 0.98))),
        },
        "recordings_in": {name: len(part) for name, part in parts.items()},
        "classes": [
            {
                "class": label,
                "segments": sum(s.label == label for _, s in segments),
                "in_training": sum(s.label == label for r in parts["train"] for s in r.segments),
                "median_seconds": _median([s.end - s.start for _, s in segments if s.label == label]),
            }
            for label in corpus.labels
        ],
        "skipped": list(corpus.skipped[:MOST]),
        "notes": notes,
    }


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
