"""`stream`: detections while a recording grows, each within a bounded time after its end."""

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from apps.action.detector import Detector, detections_of, maps_of
from apps.action.features import STATISTICS, VIDEOS, read_recording, statistics
from apps.action.outputs import CLEAR, chosen, shared_part
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
            if all(shared_part(detection, other) < CLEAR for other in self.given):
                new.append(detection)
                self.given.append(detection)
        horizon = shift - self.detector.window.window * self.step
        self.given = [d for d in self.given if d.end > horizon]
        return new


def stream_file(
    detector: Detector, source: Path, *, threshold: float, hop: int, margin: int, rate: float | None, timeout: float
) -> Iterator[tuple[Detection, float]]:
    """(detection, seconds of the recording when it was given) from a file, or `-`: rows of sensor samples on the
    standard input, a comma between channels. Raises InputError for what the model does not read as a stream."""
    step, parts = _snippets(detector, source, rate, timeout)
    stream = Stream(detector, step, threshold, hop, margin)
    for features in parts:
        for detection in stream.push(features):
            yield detection, stream.seen * step
    for detection in stream.close():
        yield detection, stream.seen * step


def _snippets(
    detector: Detector, source: Path, rate: float | None, timeout: float
) -> tuple[float, Iterator[np.ndarray]]:
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
        channels = detector.width // len(STATISTICS)
        return detector.source.step, snippets_of(sys.stdin, channels, detector.source.step * samples)
    device = str(next(detector.model.parameters()).device)
    if source.suffix.lower() in VIDEOS and detector.source.kind == "video":
        from apps.action.extract import iterate_features

        step = detector.source.step or 0.5
        return step, (row[None] for row in iterate_features(source, step, device=device, timeout=timeout))
    recording = read_recording(source, detector.source, detector.width, rate=rate)
    return recording.step, (row[None] for row in recording.features)


def snippets_of(lines: Iterable[str], channels: int, size: float) -> Iterator[np.ndarray]:
    """Snippets (1, 5 channels) out of lines of samples, each as soon as its `size` samples are there (a fraction, too).

    They are those that `sensor_snippets` makes of the whole. Raises InputError that names the line.
    """
    rows: list[list[float]] = []
    before: np.ndarray | None = None
    count, taken = 0, 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        rows.append(_sample(line, number, channels))
        count += 1
        if count >= math.ceil((taken + 1) * size - 1e-9):
            signal = np.array(rows, np.float32)
            yield statistics(signal, np.zeros(1, int), before)
            before, rows, taken = signal[-1], [], taken + 1
    if rows and len(rows) >= size / 2:
        yield statistics(np.array(rows, np.float32), np.zeros(1, int), before)


def _sample(line: str, number: int, channels: int) -> list[float]:
    try:
        values = [float(cell) for cell in line.split(",")]
    except ValueError:
        raise InputError(f"-: line {number}: {line.strip()[:30]!r} is no row of numbers; mend the source") from None
    if len(values) != channels:
        raise InputError(f"-: line {number}: has {len(values)} channels, the model reads {channels}; mend the source")
    if not np.isfinite(values).all():
        raise InputError(f"-: line {number}: {line.strip()[:30]!r} holds no finite number; mend the source")
    return values
