"""`stream`: detections while a recording grows, each within a bounded time after its end."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from apps.action.detector import Detector, detections_of, maps_of
from apps.action.features import STATISTICS, VIDEOS, read_recording, sensor_snippets
from apps.action.outputs import CLEAR, chosen
from apps.action.proposals import Detection
from apps.action.recordings import Recording
from shared.errors import InputError


@dataclass
class Stream:
    """Takes snippets as they come and gives detections that are final.

    Every `hop` snippets the last window of T is looked at. A detection is given once its end lies `margin` snippets
    back (by then the model has seen what follows it), if it does not lie over one that was given. So it comes at the
    latest hop + margin snippets after its end, plus the time to compute; memory is one window.
    """

    detector: Detector
    step: float  # seconds a snippet
    threshold: float
    hop: int = 4
    margin: int = 8
    buffer: np.ndarray | None = None
    seen: int = 0  # snippets so far
    given: list[Detection] = field(default_factory=list)

    def push(self, features: np.ndarray) -> list[Detection]:
        """features (n, C), the next snippets -> detections that are final now, in order of time."""
        found = []
        for row in features:
            self.buffer = row[None] if self.buffer is None else np.concatenate([self.buffer, row[None]])
            self.buffer = self.buffer[-self.detector.window.window :]
            self.seen += 1
            if self.seen % self.hop == 0:
                found += self._look(self.seen - self.margin)
        return found

    def close(self) -> list[Detection]:
        """What is left when the recording has ended."""
        return self._look(self.seen) if self.seen else []

    def _look(self, until: int) -> list[Detection]:
        """Detections of the window that end by snippet `until`."""
        assert self.buffer is not None
        first = self.seen - len(self.buffer)
        recording = Recording("stream", self.buffer, self.step)
        shift = first * self.step
        moved = [
            Detection(d.start + shift, d.end + shift, d.label, d.score)
            for d in detections_of(self.detector, recording, maps_of(self.detector, recording))
        ]
        new = []
        for detection in chosen(moved, self.threshold):
            # What begins at the window's edge may have begun before; it was given when it was in sight.
            cut = first > 0 and detection.start <= shift + self.step
            if cut or detection.end > until * self.step + 1e-9:
                continue
            if all(self._shared(detection, other) < CLEAR for other in self.given):
                new.append(detection)
                self.given.append(detection)
        horizon = shift - self.detector.window.window * self.step
        self.given = [d for d in self.given if d.end > horizon]
        return new

    @staticmethod
    def _shared(a: Detection, b: Detection) -> float:
        inter = min(a.end, b.end) - max(a.start, b.start)
        return max(0.0, inter) / max(1e-9, min(a.end - a.start, b.end - b.start))


def stream_file(
    detector: Detector, source: Path, *, threshold: float, hop: int, margin: int, rate: float | None
) -> Iterator[tuple[Detection, float]]:
    """(detection, seconds of the recording when it was given) from a file, or `-`: rows of sensor samples on the
    standard input, a comma between channels."""
    step, parts = _snippets(detector, source, rate)
    stream = Stream(detector, step, threshold, hop, margin)
    for features in parts:
        for detection in stream.push(features):
            yield detection, stream.seen * step
    for detection in stream.close():
        yield detection, stream.seen * step


def _snippets(detector: Detector, source: Path, rate: float | None) -> tuple[float, Iterator[np.ndarray]]:
    if detector.window.whole:
        raise InputError(f"{detector.path}: squeezes whole recordings (data.whole) and cannot follow one as it grows")
    if detector.semantics_scaling is not None:
        raise InputError(f"{detector.path}: reads class scores beside the features, which a stream does not bring")
    if str(source) == "-":
        if detector.source.kind != "sensors" or detector.source.step is None:
            raise InputError(f"-: the model reads {detector.source.kind}; only sensor samples come by standard input")
        samples = rate or detector.source.rate
        if samples is None:
            raise InputError("-: how many samples a second come is unknown; name it by --rate")
        return detector.source.step, _from_input(detector, samples)
    if source.suffix.lower() in VIDEOS and detector.source.kind == "video":
        from apps.action.extract import iterate_features

        step = detector.source.step or 0.5
        return step, (feature[None] for _, feature in iterate_features(source, step))
    recording = read_recording(source, detector.source, detector.width, rate)
    return recording.step, (row[None] for row in recording.features)


def _from_input(detector: Detector, rate: float) -> Iterator[np.ndarray]:
    step, channels = detector.source.step, detector.width // len(STATISTICS)
    assert step is not None
    rows: list[list[float]] = []
    start, taken = 0, 0
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        cells = line.split(",")
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            raise InputError(f"-: line {number}: {line.strip()[:30]!r} is no row of numbers; mend the source") from None
        if len(values) != channels or not np.isfinite(values).all():
            raise InputError(
                f"-: line {number}: has {len(values)} channels, the model reads {channels}; mend the source"
            )
        rows.append(values)
        if start + len(rows) >= round((taken + 1) * step * rate):
            signal = np.array(rows, np.float32)
            yield sensor_snippets(signal, np.arange(len(signal)) / rate, len(signal) / rate)
            start, taken, rows = start + len(rows), taken + 1, []
