"""Files as snippets: features and class scores in .npy, .npz, .h5 and .csv, sensor streams, and videos."""

import math
from pathlib import Path

import numpy as np

from apps.action.recordings import Recording, Source, check_features
from shared.errors import InputError
from shared.io.files import input_file, read_json

ARRAYS = (".npy", ".npz", ".h5", ".hdf5", ".csv")
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
STATISTICS = ("mean", "standard deviation", "lowest", "highest", "mean step")  # of each channel, in a snippet
EXTRACTED = "extracted.json"  # what `extract` leaves beside the features
TIME = ("time", "t", "timestamp", "seconds")


def read_array(path: Path) -> tuple[np.ndarray, list[str]]:
    """(T, C) float32 and the columns' names (a CSV's header, else none). Raises InputError that names file and place.

    A .npz or .h5 has `features`, `scores` or `signal`, or a single array.
    """
    path = input_file(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return check_features(str(path), np.load(path, allow_pickle=False)), []
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return check_features(str(path), file[_key(path, list(file.files))]), []
        if suffix in (".h5", ".hdf5"):
            import h5py

            with h5py.File(path) as file:
                node = file[_key(path, list(file))]
                if not isinstance(node, h5py.Dataset):
                    raise InputError(f"{path}: {node.name} is a group, not an array; put the array at the top")
                return check_features(str(path), node[()]), []
        if suffix == ".csv":
            return _read_csv(path)
    except InputError:
        raise
    except (ValueError, OSError, EOFError, KeyError) as error:
        reason = " ".join(str(error).split())[:100]
        if "pickle" in reason or "Object" in reason:
            raise InputError(f"{path}: holds pickled objects, which are never loaded; save plain numbers") from None
        raise InputError(f"{path}: is truncated or damaged ({reason}); write it again") from None
    except Exception as error:  # zipfile's and zlib's own
        raise InputError(f"{path}: is damaged ({type(error).__name__}); write it again") from None
    raise InputError(f"{path}: is no array file; give one of {', '.join(ARRAYS)}")


def _key(path: Path, keys: list[str]) -> str:
    for key in ("features", "scores", "signal"):
        if key in keys:
            return key
    if len(keys) == 1:
        return keys[0]
    raise InputError(f"{path}: holds {', '.join(keys[:6]) or 'nothing'}; name the array features")


def _read_csv(path: Path) -> tuple[np.ndarray, list[str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; give a table of numbers") from None
    header: list[str] = []
    first = [cell.strip() for cell in lines[0].split(",")]
    if not all(_number(cell) for cell in first):
        header, lines = [cell.lower() for cell in first], lines[1:]
    rows = []
    for number, line in enumerate(lines, 2 if header else 1):
        if not line.strip():
            continue
        cells = line.split(",")
        if len(cells) != len(first):
            raise InputError(f"{path}: line {number}: has {len(cells)} columns, not {len(first)}; mend the line")
        try:
            rows.append([float(cell) for cell in cells])
        except ValueError:
            bad = next(cell for cell in cells if not _number(cell))
            raise InputError(f"{path}: line {number}: {bad.strip()[:20]!r} is no number; mend the line") from None
    if not rows:
        raise InputError(f"{path}: holds no numbers; give a row for each snippet or sample")
    # Times of years in milliseconds need more digits than float32 has; they are made relative before the check.
    values = np.array(rows)
    if header and header[0] in TIME:
        values[:, 0] -= values[0, 0]
    return check_features(str(path), values), header


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def sensor_snippets(signal: np.ndarray, times: np.ndarray, step: float) -> np.ndarray:
    """A sensor stream as snippets of `step` seconds: (samples, channels) -> (T, 5 channels), see `STATISTICS`.

    times (samples,) in seconds, rising. The last snippet counts when at least half of it is there. A snippet without a
    sample has the one after it. Raises ValueError when the stream is shorter than half a snippet.
    """
    times = times - times[0]
    rest = times[-1] + (times[-1] / (len(times) - 1) if len(times) > 1 else 0)
    count = int(rest / step + 0.5)
    if count < 1:
        raise ValueError(f"it lasts {rest:.3g} s, less than half a snippet of {step:g} s")
    at = np.minimum(np.searchsorted(times, np.arange(count) * step - 1e-9), len(times) - 1)
    stop = max(int(np.searchsorted(times, count * step - 1e-9)), int(at[-1]) + 1)
    return statistics(signal[:stop], at)


def statistics(signal: np.ndarray, at: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    """`STATISTICS` of the parts of a signal (samples, channels) that begin at `at` (T,) -> (T, 5 channels) float32.

    before: the sample (channels,) ahead of the signal, from which its first step is taken; None where there is none.
    """
    x = signal.astype(np.float64)
    sizes = np.maximum(np.diff(at, append=len(x)), 1)[:, None]
    mean = np.add.reduceat(x, at) / sizes
    square = np.add.reduceat(x**2, at) / sizes
    steps = np.abs(np.diff(x, axis=0, prepend=x[:1] if before is None else before[None]))
    parts = [
        mean,
        np.sqrt(np.maximum(square - mean**2, 0)),
        np.minimum.reduceat(x, at),
        np.maximum.reduceat(x, at),
        np.add.reduceat(steps, at) / sizes,
    ]
    return np.concatenate(parts, 1).astype(np.float32)


def read_sensors(path: Path, step: float, rate: float | None) -> tuple[np.ndarray, int]:
    """A sensor file as snippets (T, 5 channels), and its number of channels.

    A CSV's first column may be `time` in seconds (or milliseconds, which is told by a step above 1); else `rate`, in
    samples a second, says when they were taken.
    """
    values, header = read_array(path)
    if header and header[0] in TIME:
        times, values = values[:, 0].astype(np.float64), values[:, 1:]
        if len(times) > 1 and np.median(np.diff(times)) > 1:
            times = times / 1000
        if (np.diff(times) <= 0).any():
            row = int(np.flatnonzero(np.diff(times) <= 0)[0]) + 2
            raise InputError(f"{path}: row {row}: time does not rise; sort the rows and remove doubles")
    elif rate is None:
        raise InputError(f"{path}: has no column time; add it, or set data.rate to the samples a second")
    else:
        times = np.arange(len(values)) / rate
    if not values.shape[1]:
        raise InputError(f"{path}: has no channel beside the time; add the sensor's columns")
    try:
        return sensor_snippets(values, times, step), values.shape[1]
    except ValueError as error:
        raise InputError(f"{path}: {error}; give a longer recording") from None


def extracted_step(folder: Path) -> float | None:
    """Seconds a snippet of the features that `extract` wrote into a folder; None for features from elsewhere."""
    path = folder / EXTRACTED
    if not path.exists():
        return None
    noted = read_json(path)
    step = noted.get("snippet_seconds") if isinstance(noted, dict) else None
    if not isinstance(step, int | float) or not 0 < step < math.inf:
        raise InputError(f"{path}: names no snippet_seconds above 0; extract the features again")
    return float(step)


def read_recording(
    path: Path,
    source: Source,
    width: int,
    *,
    rate: float | None = None,
    device: str = "cpu",
    timeout: float = 60.0,
) -> Recording:
    """A user's file as the snippets that a model reads. Raises InputError when it is of another kind, width or step.

    `rate` (a second) is that of the samples of a sensor file without a time column, and goes before the model's own; or
    of the snippets of features, where neither the model nor `extract` says. `device` encodes a video's frames, each of
    which may take `timeout` seconds to decode.
    """
    if path.suffix.lower() in VIDEOS:
        if source.kind != "video":
            raise InputError(
                f"{path}: is a video, but the model reads {source.kind}; give a --checkpoint trained on videos"
            )
        from apps.action.extract import video_features

        step = source.step or 0.5
        features = video_features(path, step, device=device, timeout=timeout)
    elif source.kind == "sensors":
        assert source.step is not None
        step = source.step
        features, channels = read_sensors(path, step, rate or source.rate)
        if channels != source.channels:
            raise InputError(
                f"{path}: has {channels} channels, the model reads {source.channels}; give the same sensors"
            )
    else:
        features, _ = read_array(path)
        step = _step_of_array(path, source, rate)
    if features.shape[1] != width:
        raise InputError(
            f"{path}: has {features.shape[1]} channels, the model reads {width}; extract the same features"
        )
    return Recording(path.stem, features, step)


def _step_of_array(path: Path, source: Source, rate: float | None) -> float:
    own = (1 / rate if rate else extracted_step(path.parent)) or source.step
    if own is None:
        raise InputError(f"{path}: how long a snippet lasts is not known; name the snippets a second by --rate")
    if source.step is not None and not math.isclose(own, source.step, rel_tol=0.01):
        raise InputError(
            f"{path}: has snippets of {own:g} s, the model reads {source.step:g} s; extract the features anew with"
            f" --snippet-seconds {source.step:g}"
        )
    return own
