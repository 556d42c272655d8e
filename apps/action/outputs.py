"""What detections are written as: ActivityNet's JSON, CSV, SRT subtitles; and which of them a person is shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apps.action.proposals import Detection
from shared.io.files import write_json, write_text

CLEAR = 0.3  # of the shorter one: how far two that are shown may overlap


def chosen(detections: Sequence[Detection], threshold: float) -> list[Detection]:
    """Those worth showing, in order of time: by score, above `threshold`, none much over one that is surer."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda d: -d.score):
        if detection.score < threshold:
            break
        if all(shared_part(detection, other) < CLEAR for other in kept):
            kept.append(detection)
    return sorted(kept)


def shared_part(a: Detection, b: Detection) -> float:
    """How long both last together, as a share of the shorter one."""
    inter = min(a.end, b.end) - max(a.start, b.start)
    return max(0.0, inter) / max(1e-9, min(a.end - a.start, b.end - b.start))


def write_activitynet(path: Path, found: dict[str, Sequence[Detection]], facts: dict[str, Any]) -> None:
    """ActivityNet's form of results: every detection, by score."""
    results = {
        name: [
            {"label": d.label, "score": round(d.score, 6), "segment": [round(d.start, 3), round(d.end, 3)]}
            for d in sorted(detections, key=lambda d: -d.score)
        ]
        for name, detections in found.items()
    }
    write_json(path, {"version": "VERSION 1.3", "results": results, "external_data": {"used": False, **facts}})


def write_csv(path: Path, name: str, detections: Sequence[Detection]) -> None:
    """A header and a line each: recording, start, end, label, score. `read_annotations` reads it again."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["recording", "start", "end", "label", "score"])
    for d in detections:
        writer.writerow([name, f"{d.start:.3f}", f"{d.end:.3f}", d.label, f"{d.score:.4f}"])
    write_text(path, text.getvalue())


def write_srt(path: Path, detections: Sequence[Detection]) -> None:
    """Subtitles: the class, and how sure, while the action lasts."""
    blocks = [
        f"{number}\n{timestamp(d.start)} --> {timestamp(d.end)}\n{d.label} ({100 * d.score:.0f} %)\n"
        for number, d in enumerate(detections, 1)
    ]
    write_text(path, "\n".join(blocks))


def timestamp(seconds: float) -> str:
    """HH:MM:SS,mmm."""
    milliseconds = round(max(0.0, seconds) * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d},{rest % 1000:03d}"
