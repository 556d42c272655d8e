"""50 Salads as class scores: the archive of TemporalConvolutionalNetworks, out-of-fold scores and truth."""

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from apps.action.recordings import Corpus, Recording, Segment, Source, check_features, runs
from shared.errors import InputError
from shared.io.files import input_file, sha256

BACKGROUND = 0  # the class that is no action
MEMBER = re.compile(r"(?:^|/)50Salads/mid/mid_video_([^/]+)/(?:Split_)?(\d+)\.mat$")


def is_salads(path: Path) -> bool:
    return path.name.endswith((".tar.gz", ".tgz")) or (path.is_dir() and any(path.glob("**/50Salads/mid")))


def read_salads(path: Path, scores: str) -> Corpus:
    """The middle level: 17 actions, five folds of ten videos as the data have them.

    The scores of a video come from a model that did not see it. The archive does not say how long a snippet lasts, so
    one is counted as a second; overlaps and so all figures do not depend on it. Raises InputError for an archive that
    is damaged or lacks the scores.
    """
    files: dict[str, dict[int, bytes]] = {}
    for name, data in _members(path):
        found = MEMBER.search(name)
        if found:
            files.setdefault(found[1], {})[int(found[2])] = data
    if not files:
        raise InputError(f"{path}: holds no class scores of 50 Salads; unpack data of your own and give the folder")
    wanted = next((name for name in files if name == scores or name.startswith(f"{scores}_")), None)
    if wanted is None:
        raise InputError(f"{path}: has no scores {scores}; set data.scores to one of {', '.join(sorted(files))}")
    recordings, folds, classes = [], [], 0
    for fold, (split, data) in enumerate(sorted(files[wanted].items())):
        for number, (given, truth) in enumerate(_videos(f"{path}: {wanted}/{split}.mat", data)):
            classes = max(classes, given.shape[1])
            recordings.append(_recording(f"split-{split}-video-{number + 1:02d}", given, truth))
            folds.append(fold)
    labels = tuple(f"action {number:02d}" for number in range(1, classes))
    return Corpus(
        name=f"50 Salads, middle level, scores of {wanted}",
        sha256=sha256(path) if path.is_file() else hashlib.sha256(b"".join(files[wanted].values())).hexdigest(),
        recordings=tuple(recordings),
        labels=labels,
        source=Source("scores", 1.0),
        split_rule="the data's own five splits",
        folds=tuple(folds),
        scored=("background", *labels),
        note="a snippet is counted as one second, since the archive does not say how long it lasts",
    )


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(path.rglob("*.mat")):
            yield file.as_posix(), file.read_bytes()
        return
    try:
        with tarfile.open(input_file(path)) as archive:
            for member in archive:
                if member.isfile() and MEMBER.search(member.name):
                    file = archive.extractfile(member)
                    assert file is not None
                    yield member.name, file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(
            f"{path}: is truncated or no archive ({' '.join(str(error).split())}); copy it again"
        ) from None


def _videos(where: str, data: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores (T, K) and truth (T,) of each video of a .mat file."""
    import scipy.io

    try:
        content = scipy.io.loadmat(io.BytesIO(data))
        pairs = list(zip(content["S"].ravel(), content["Y"].ravel(), strict=True))
    except Exception as error:
        raise InputError(f"{where}: is no .mat file with S and Y ({type(error).__name__}); copy it again") from None
    made = []
    for scores, truth in pairs:
        truth = np.asarray(truth).ravel()
        scores = check_features(where, scores if len(scores) == len(truth) else np.asarray(scores).T, "scores")
        if len(scores) != len(truth):
            raise InputError(f"{where}: has {len(scores)} scores for {len(truth)} labels; copy it again")
        made.append((scores, truth))
    return made


def logs_and_shares(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class scores (T, K), probabilities or margins, as features (their logarithms) and as semantics (shares)."""
    if scores.min() < 0:  # an SVM's margins
        scores = np.exp(scores - scores.max(1, keepdims=True))
    shares = scores / np.maximum(scores.sum(1, keepdims=True), 1e-9)
    return np.log(shares + 1e-3).astype(np.float32), shares.astype(np.float32)


def _recording(name: str, scores: np.ndarray, truth: np.ndarray) -> Recording:
    logs, shares = logs_and_shares(scores)
    segments = [
        Segment(float(start), float(end), f"action {label:02d}")
        for label, start, end in runs(truth)
        if label != BACKGROUND
    ]
    return Recording(name, logs, 1.0, tuple(segments), shares)
