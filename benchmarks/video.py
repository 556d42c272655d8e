"""The video app's figures on annotated sequences: propagation and discovery, a sequence at a time, to be gone on with.

uv run python benchmarks/video.py propagation --data DAVIS --out runs/benchmark-video
uv run python benchmarks/video.py discovery --data DAVIS --method tokencut --out runs/benchmark-video

Each finished sequence is a line in OUT/NAME.jsonl; a killed or timed run goes on after it. One pass over a sequence
scores every variant (with and without refinement), by the code of `manyheads video evaluate`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from apps.video.config import VideoConfig
from apps.video.davis import Sequence, find_sequences, truth
from apps.video.encoders import load_encoder
from apps.video.evaluate import score
from apps.video.masks import write_mask
from apps.video.outputs import mask_folder
from apps.video.propagate import encoded
from apps.video.propagation import Propagator, soft_labels
from apps.video.refine import decide, sharpen
from shared.config import load_config
from shared.evaluation.bootstrap import bootstrap_interval
from shared.io.video import Video


def propagation(config: VideoConfig, data: Path, out: Path, names: list[str] | None, minutes: float) -> Path:
    """Score propagation from the first annotation, with refinement (as set) and without."""
    encoder = load_encoder(None)
    log, end = out / "propagation.jsonl", time.monotonic() + 60 * minutes
    done = finished(log)
    for sequence in find_sequences(data, None, names):
        if sequence.name in done or time.monotonic() > end:
            continue
        started = time.process_time()
        folders = {"refined": out / "refined" / sequence.name, "plain": out / "plain" / sequence.name}
        frames = carry_both(config, encoder, sequence, folders)
        seconds = (time.process_time() - started) / frames
        rows = {}
        for kind, folder in folders.items():
            rows[kind], held = score(sequence, folder, "propagation")
            rows["holding the first mask"] = held
        append(log, {"sequence": sequence.name, "frames": frames, "seconds_a_frame": seconds, "rows": rows})
    return log


@torch.inference_mode()
def carry_both(config: VideoConfig, encoder, sequence: Sequence, folders: dict[str, Path]) -> int:
    """Write the masks of both variants; returns the number of frames."""
    stems = sequence.stems()
    labels, _ = truth(sequence, stems[0])
    ids = np.unique(labels[labels > 0]).tolist()
    numbers = np.array([0, *ids], np.uint8)
    settings = config.propagate
    propagator = Propagator(settings.radius, settings.top_k, settings.temperature, settings.context)
    with Video(sequence.frames, config.features.size) as video:
        size = video.info.source_size
        for index, frame, features in encoded(encoder, video, range(video.info.frames), config.features.chunk):
            if not index:
                propagator.begin(features, soft_labels(torch.from_numpy(labels), ids, *features.shape[:2]))
                pair = labels, labels
            else:
                soft = propagator.step(features)
                pair = (numbers[decide(sharpen(soft, frame, r), *size)] for r in (config.features.refine, 0))
            for folder, mask in zip(folders.values(), pair, strict=True):
                write_mask(folder / f"{stems[index]}.png", mask)
    return len(stems)


def discovery(
    config: VideoConfig,
    data: Path,
    out: Path,
    names: list[str] | None,
    minutes: float,
    method: str,
    checkpoint: Path | None,
    label: str,
) -> Path:
    """Score a method's proposals by DAVIS's rule, and per frame beside it."""
    from apps.video.discover import Discoverer

    log, end = out / f"{label or method}.jsonl", time.monotonic() + 60 * minutes
    done = finished(log)
    discoverer = Discoverer(config, method, checkpoint, None, seed=0, device="cpu")
    for sequence in find_sequences(data, None, names):
        if sequence.name in done or time.monotonic() > end:
            continue
        started = time.process_time()
        with (
            Video(sequence.frames, config.features.size) as video,
            mask_folder(out / (label or method), sequence.frames, video.info.frames) as folder,
        ):
            found = discoverer.find(video, folder)
            frames = len(folder.confidence)
        seconds = (time.process_time() - started) / frames
        rows, held = score(sequence, out / (label or method) / "Annotations" / sequence.name, "discovery")
        rows = {"found": rows, "the whole frame": held}
        append(log, {"sequence": sequence.name, "frames": frames, "seconds_a_frame": seconds, "rows": rows, **found})
    return log


def finished(log: Path) -> set[str]:
    return {line["sequence"] for line in lines(log)}


def lines(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def append(log: Path, line: dict) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line["sequence"], {kind: round(rows[0]["J"], 3) for kind, rows in line["rows"].items()}, flush=True)


def show(log: Path) -> None:
    """The means over the sequences that are done."""
    found = lines(log)
    if not found:
        print("nothing yet")
        return
    print(
        f"{len(found)} sequences, {np.mean([line['seconds_a_frame'] for line in found]):.3f} processor seconds a frame"
    )
    for kind in found[0]["rows"]:
        rows = [row for line in found for row in line["rows"][kind]]
        j, f = ([row[name] for row in rows] for name in ("J", "F"))
        low, high = bootstrap_interval(j)
        text = f"{kind}: J {np.mean(j):.3f} ({low:.3f} to {high:.3f}) F {np.mean(f):.3f} J&F {np.mean(j + f):.3f}"
        if "J_by_frame" in rows[0]:
            text += f"; assigned in every frame: J {np.mean([row['J_by_frame'] for row in rows]):.3f}"
        print(text, f"recall {np.mean([row['J_recall'] for row in rows]):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["propagation", "discovery"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-video"))
    parser.add_argument("--sequence", action="append", help="one sequence; repeatable")
    parser.add_argument("--method", default="tokencut")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--label", default="", help="the name of this variant in OUT")
    parser.add_argument("--set", action="append", dest="sets")
    parser.add_argument("--minutes", type=float, default=600)
    options = parser.parse_args()
    config = load_config(VideoConfig, None, options.sets)
    if options.part == "propagation":
        log = propagation(config, options.data, options.out, options.sequence, options.minutes)
    else:
        log = discovery(
            config,
            options.data,
            options.out,
            options.sequence,
            options.minutes,
            options.method,
            options.checkpoint,
            options.label,
        )
    show(log)


if __name__ == "__main__":
    main()
