"""`evaluate`: J, F and J&F of masks on a DAVIS layout, of a folder of masks or of what a method makes."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from apps.video.config import VideoConfig
from apps.video.davis import Sequence, find_masks, find_sequences, truth
from apps.video.encoders import load_encoder
from apps.video.masks import read_mask
from apps.video.measures import PROPOSALS, assign, assign_by_frame, measure_frame, statistics
from apps.video.outputs import MaskFolder, mask_folder
from apps.video.propagate import carry
from shared.command import progress
from shared.errors import InputError
from shared.evaluation.bootstrap import bootstrap_interval
from shared.io.files import output_folder, write_json
from shared.io.video import Video
from shared.training.device import pick_device


def evaluate(
    config: VideoConfig,
    data: Path | None,
    out: Path,
    *,
    masks: Path | None = None,
    method: str = "propagate",
    checkpoint: Path | None = None,
    weights: Path | None = None,
    split: str | None = None,
    names: list[str] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> dict:
    """`score_masks`, after making the masks by `method` where none are given; they stay in OUT/Annotations.

    Raises InputError as that does, and for what `method` cannot work with.
    """
    if data is None:
        raise InputError("--data: is required; name a folder in DAVIS's layout (JPEGImages, Annotations)")
    kind = "propagation" if method == "propagate" else "discovery"
    if masks is not None:
        return score_masks(data, masks, out, kind=kind, split=split, names=names)
    sequences = annotated(data, kind, split, names)
    for sequence in sequences:
        for stem in sequence.masks:
            truth(sequence, stem)  # a broken annotation is told of before the work, not after it
    make = maker(config, method, checkpoint, weights, seed, pick_device(device))
    started, frames = time.process_time(), 0
    for sequence in sequences:
        with (
            Video(sequence.frames, config.features.size) as video,
            mask_folder(out, sequence.frames, video.info.frames) as folder,
        ):
            make(sequence, video, folder)
            frames += len(folder.confidence)
    seconds = (time.process_time() - started) / max(1, frames)
    result = score_masks(data, out, out, kind=kind, split=split, names=names)
    return {"method": method, "processor_seconds_a_frame": seconds, **result}


def annotated(data: Path, kind: str, split: str | None, names: list[str] | None) -> list[Sequence]:
    """The sequences that have annotations. Raises InputError when none has, and for one that cannot be scored."""
    sequences = [sequence for sequence in find_sequences(data, split, names) if sequence.masks]
    if not sequences:
        raise InputError(f"{data}: has no annotations; give Annotations/<sequence>/<frame>.png")
    for sequence in sequences:
        count, first = len(sequence.masks), next(iter(sequence.masks))
        if count < 3:
            raise InputError(
                f"{data}: {sequence.name} has {count} annotated frames, of which the first and the last do not count; "
                "annotate more, or choose others by --sequence"
            )
        if kind == "propagation" and not truth(sequence, first)[0].any():
            raise InputError(
                f"{sequence.masks[first]}: marks no object, so that there is none to carry; annotate one, or choose "
                "other sequences by --sequence"
            )
    return sequences


def score_masks(data: Path, masks: Path, out: Path, *, kind: str, split: str | None, names: list[str] | None) -> dict:
    """Score the masks in `masks` (<sequence>/<frame>.png) against the annotations of `data`.

    kind "propagation": labels are those of the first annotation; "discovery": proposals are assigned to objects, one
    for the whole sequence, at most 20. First and last frame do not count, as in DAVIS.
    Raises InputError for masks that are missing, of another size, or too many.
    """
    sequences = annotated(data, kind, split, names)
    masks = masks / "Annotations" if (masks / "Annotations").is_dir() else masks
    output_folder(out)
    rows: list[dict] = []
    baselines: dict[str, list[dict]] = {}
    with progress() as bar:
        for sequence in bar.track(sequences, description="sequences"):
            found, guessed = score(sequence, masks / sequence.name, kind)
            rows += found
            for name, those in guessed.items():
                baselines.setdefault(name, []).extend(those)
    result = summary(rows, baselines, kind)
    result["data"] = {"name": data.name, "split": split, "sequences": len(sequences)}
    write_json(out / "evaluation.json", result)
    return {**result, "written": str(out / "evaluation.json")}


def guesses(first: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """Masks (H, W) that need no method, by what they are: one for all frames, to be compared with.

    Those of a discovery are one proposal, 1, which is held against every object.
    """
    if kind == "propagation":
        return {"holding the first mask": first}
    y, x = (np.linspace(-2, 2, side) for side in first.shape)
    middle = y[:, None] ** 2 + x**2 <= 1
    return {"the whole frame": np.ones_like(first), "an ellipse of half its sides": middle.astype(np.uint8)}


def score(sequence: Sequence, folder: Path, kind: str) -> tuple[list[dict], dict[str, list[dict]]]:
    """The rows of a sequence, one an object, and those of each baseline of `guesses`."""
    first_stem, *stems, _ = sequence.masks
    files = find_masks(folder)
    missing = [stem for stem in stems if stem not in files]
    if missing:
        raise InputError(f"{folder}: has no {missing[0]}.png; every annotated frame needs a mask")
    first = truth(sequence, first_stem)[0]
    wanted = sorted({int(label) for stem in sequence.masks for label in np.unique(truth(sequence, stem)[0])} - {0})
    if kind == "propagation":
        wanted = np.unique(first[first > 0]).tolist()
    if not wanted:
        raise InputError(f"{sequence.masks[stems[0]].parent}: marks no object in any frame; choose other sequences")
    given = sorted({int(label) for stem in stems for label in np.unique(read_mask(files[stem]))} - {0})
    if kind == "propagation":
        given = wanted
    elif len(given) > PROPOSALS:
        raise InputError(f"{folder}: has {len(given)} proposals; DAVIS takes {PROPOSALS} at most (set cluster.most)")
    j = np.zeros((len(stems), len(given), len(wanted)))
    f = np.zeros_like(j)
    fixed = guesses(first, kind)
    base = np.zeros((len(fixed), 2, len(stems), len(wanted)))
    for t, stem in enumerate(stems):
        labels, void = truth(sequence, stem)
        mask = read_mask(files[stem])
        if mask.shape != labels.shape:
            a, b = mask.shape, labels.shape
            raise InputError(f"{files[stem]}: is {a[1]}x{a[0]}, the annotation {b[1]}x{b[0]}; write masks in its size")
        j[t], f[t] = measure_frame(mask, labels, given, wanted, void)
        for values, held in zip(base, fixed.values(), strict=True):
            for column, label in enumerate(wanted):
                pair = measure_frame(held, labels, [label if kind == "propagation" else 1], [label], void)
                values[:, t, column] = pair[0][0, 0], pair[1][0, 0]
    chosen = list(range(len(wanted))) if kind == "propagation" else assign(j, f)
    by_frame = assign_by_frame(j, f)
    rows: list[dict] = []
    guessed: dict[str, list[dict]] = {name: [] for name in fixed}
    for column, label in enumerate(wanted):
        row = chosen[column]
        values = (j[:, row, column], f[:, row, column]) if row is not None else (np.zeros(len(stems)),) * 2
        rows.append(_row(sequence.name, label, *values))
        if kind == "discovery":
            rows[-1]["proposals"] = len(given)
            rows[-1]["J_by_frame"], rows[-1]["F_by_frame"] = (part[:, column].mean() for part in by_frame)
        for name, values in zip(fixed, base, strict=True):
            guessed[name].append(_row(sequence.name, label, values[0, :, column], values[1, :, column]))
    return rows, guessed


def _row(name: str, label: int, j: np.ndarray, f: np.ndarray) -> dict:
    a, b = statistics(j), statistics(f)
    return {
        "sequence": name,
        "object": label,
        "J": a["mean"],
        "F": b["mean"],
        "J_recall": a["recall"],
        "J_decay": a["decay"],
        "F_recall": b["recall"],
        "F_decay": b["decay"],
    }


def summary(rows: list[dict], baselines: dict[str, list[dict]], kind: str) -> dict:
    """Means over objects, with an interval of J&F over them, the baselines, and the table by object."""

    def mean(name: str, table: list[dict] = rows) -> float:
        return float(np.mean([row[name] for row in table]))

    both = [(row["J"] + row["F"]) / 2 for row in rows]
    low, high = bootstrap_interval(both)
    j_low, j_high = bootstrap_interval([row["J"] for row in rows])
    result = {
        "kind": kind,
        "J&F": float(np.mean(both)),
        "interval_95": [low, high],
        "J": mean("J"),
        "J_interval_95": [j_low, j_high],
        "F": mean("F"),
        "J_recall": mean("J_recall"),
        "J_decay": mean("J_decay"),
        "F_recall": mean("F_recall"),
        "F_decay": mean("F_decay"),
    }
    result["baselines"] = [{"what": name, "J": mean("J", t), "F": mean("F", t)} for name, t in baselines.items()]
    if kind == "discovery":
        result["assigned_anew_in_every_frame"] = {
            "what": "not DAVIS's rule: each frame chooses its proposals, which forgives changed identities",
            "J": mean("J_by_frame"),
            "F": mean("F_by_frame"),
        }
    return {**result, "sequences": rows}


def maker(
    config: VideoConfig, method: str, checkpoint: Path | None, weights: Path | None, seed: int, device: torch.device
) -> Callable[[Sequence, Video, MaskFolder], None]:
    """What makes the masks of a sequence by a method."""
    if method == "propagate":
        encoder = load_encoder(weights, device)

        def carried(sequence: Sequence, video: Video, folder: MaskFolder) -> None:
            stem = next(iter(sequence.masks))
            labels, _ = truth(sequence, stem)
            given = folder.stems.index(stem)
            folder.add(given, labels, 1.0)
            carry(config, encoder, video, labels, given, folder)

        return carried
    from apps.video.discover import Discoverer
    from apps.video.remember import Remembering

    encoder = Remembering(load_encoder(weights, device))
    discoverer = Discoverer(config, method, checkpoint, encoder, seed=seed, device=device)
    return lambda sequence, video, folder: discoverer.find(video, folder)
