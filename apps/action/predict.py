"""`detect` and `explain`: a trained model on a user's recordings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apps.action.annotations import read_annotations
from apps.action.detector import (
    Detector,
    Maps,
    detections_of,
    maps_of,
    read_for,
    ready,
    run_windows,
)
from apps.action.features import VIDEOS
from apps.action.outputs import chosen, write_activitynet, write_csv, write_srt
from apps.action.recordings import Recording, checked
from apps.action.timeline import channel_picture, timeline
from apps.action.windows import window_starts
from shared.attention.record import record_attention
from shared.errors import InputError
from shared.io.files import output_folder, write_json

THUMBNAILS = 10


def detect(
    detector: Detector,
    files: Sequence[Path],
    out: Path,
    *,
    threshold: float,
    annotations: Path | None,
    rate: float | None,
    video: bool,
    timeout: float,
) -> dict[str, Any]:
    """Labelled segments of recordings: detections.json (ActivityNet), and for each NAME.csv, .srt, .png, for a video
    .mp4.

    The JSON has every detection; the rest those above `threshold` that do not lie over a surer one. Raises InputError
    for a file that cannot be read, before anything is written.
    """
    names = [file.stem for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"{twice}: is the name of two recordings; detect them into folders of their own")
    truth = read_annotations(annotations) if annotations else {}
    recordings = [_with_truth(read_for(detector, file, rate, timeout), truth, annotations) for file in files]
    output_folder(out)
    found, rows, files_written = {}, [], []
    for file, recording in zip(files, recordings, strict=True):
        maps = maps_of(detector, recording)
        found[recording.name] = detections_of(detector, recording, maps)
        shown = chosen(found[recording.name], threshold)
        table, subtitles, picture = (out / f"{recording.name}{suffix}" for suffix in (".csv", ".srt", ".png"))
        write_csv(table, recording.name, shown)
        write_srt(subtitles, shown)
        is_video = file.suffix.lower() in VIDEOS
        timeline(
            picture,
            recording,
            shown,
            maps,
            detector.labels,
            pictures=thumbnails(file, timeout) if is_video else (),
            title=f"{recording.name}: {len(shown)} segment{'s' * (len(shown) != 1)} in {recording.duration:.1f} s",
        )
        files_written += [table, subtitles, picture]
        if is_video and video:
            from apps.action.overlay import annotated_video

            files_written.append(annotated_video(file, out / f"{recording.name}.mp4", shown, detector.labels, timeout))
        for d in shown:
            times = {"start": round(d.start, 2), "end": round(d.end, 2)}
            rows.append({"recording": recording.name, **times, "label": d.label, "score": round(d.score, 4)})
    facts = {"model": detector.card.get("sha256", ""), "checkpoint": str(detector.path), "threshold": threshold}
    write_activitynet(out / "detections.json", found, facts)
    return {
        "written": str(out / "detections.json"),
        "files": [str(path) for path in files_written],
        "recordings": len(files),
        "detections": sum(len(found[name]) for name in found),
        "shown": rows,
    }


def thumbnails(file: Path, timeout: float) -> list[np.ndarray]:
    """Some frames, evenly over the video, small."""
    from shared.io.video import Video

    with Video(file, size=96, timeout=timeout) as video:
        places = (np.arange(THUMBNAILS) + 0.5) / THUMBNAILS * video.info.frames
        return [frame for place in sorted({int(p) for p in places}) for frame in _frame(video, place)]


def _frame(video, place: int) -> list[np.ndarray]:
    try:
        return list(video.read([place]))
    except InputError:  # a damaged end has no picture
        return []


def _with_truth(recording: Recording, truth: dict, where: Path | None) -> Recording:
    if where is None or recording.name not in truth:
        return recording
    segments, _ = checked(f"{where}: {recording.name}", truth[recording.name].segments, recording.duration, None, False)
    return replace(recording, segments=segments)


def attention_of(detector: Detector, recording: Recording) -> dict[str, np.ndarray]:
    """The gates over a recording: `temporal` (N,), and `channel`, `excitation` (C,), means over windows that cover it.

    Raises InputError for a model without attention.
    """
    scaled, size = ready(detector, recording), detector.window.window
    length = len(recording.features)
    starts = [0] if detector.window.whole else window_starts(length, size, max(1, size // 2))
    total, times = np.zeros(length), np.zeros(length)
    channels: dict[str, list[np.ndarray]] = {}
    for start in starts:
        with record_attention(detector.model) as maps:
            run_windows(detector, scaled, [start])
        gates = {name.rsplit(".", 1)[-1]: values[0].float().cpu() for name, values in maps.items()}
        for name in ("channel", "excitation"):
            if name in gates:
                channels.setdefault(name, []).append(gates[name].flatten().numpy())
        if "temporal" in gates:
            curve = gates["temporal"].flatten()
            if detector.window.whole:
                curve = torch.nn.functional.interpolate(curve[None, None], length, mode="linear")[0, 0]
            there = min(length - start, len(curve))
            total[start : start + there] += curve[:there].numpy()
            times[start : start + there] += 1
    if not channels:
        raise InputError(f"{detector.path}: was trained without attention; explain needs model.attention csa or se")
    means = {name: np.mean(values, 0) for name, values in channels.items()}
    return {"temporal": total / times, **means} if times.any() else means


def explain(
    detector: Detector,
    file: Path,
    out: Path,
    *,
    threshold: float,
    annotations: Path | None,
    rate: float | None,
    timeout: float,
) -> dict[str, Any]:
    """Channel and temporal attention under the timeline of a recording: attention.png, channels.png, attention.json."""
    truth = read_annotations(annotations) if annotations else {}
    recording = _with_truth(read_for(detector, file, rate, timeout), truth, annotations)
    gates = attention_of(detector, recording)
    output_folder(out)
    maps: Maps = maps_of(detector, recording)
    detections = detections_of(detector, recording, maps)
    curves = {"temporal gate": gates["temporal"]} if "temporal" in gates else None
    path = out / "attention.png"
    timeline(path, recording, chosen(detections, threshold), maps, detector.labels, gates=curves)
    channels = {name: values for name, values in gates.items() if name != "temporal"}
    channel_picture(out / "channels.png", channels, recording.name)
    inside = _inside_and_out(gates.get("temporal"), maps)
    write_json(out / "attention.json", {"recording": recording.name, "step": recording.step, "gates": gates, **inside})
    return {"written": str(path), "figures": [str(path), str(out / "channels.png")], **inside}


def _inside_and_out(temporal: np.ndarray | None, maps: Maps) -> dict[str, float]:
    if temporal is None:
        return {}
    action = maps.classes.argmax(1) < maps.classes.shape[1] - 1
    sides = {"temporal_gate_in_actions": temporal[action], "temporal_gate_in_background": temporal[~action]}
    return {name: float(values.mean()) for name, values in sides.items() if len(values)}
