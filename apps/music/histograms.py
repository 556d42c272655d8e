"""Histograms of pitch classes and note lengths over many pieces, and how far two of them are apart.

A piece is a chorale grid, int (T, 4) on the sixteenth grid with -1 for silence, or a performance, a list of `Note`.
In a grid a note is a maximal stretch of steps with one pitch in one voice: a repeated note counts as one held note,
and so its length. Every note counts once, however long it is and whichever piece it is from.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from apps.music.notes import Note

# Chorales: notes of 1 to 16 sixteenths, and longer ones together.
LENGTHS_16THS = (*(str(length) for length in range(1, 17)), ">16")
# Performances: bounds in seconds, each twice the one before; a note falls into [low, high).
LENGTH_BOUNDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
LENGTHS_SECONDS = ("<0.05", "0.05", "0.1", "0.2", "0.4", "0.8", "1.6", "≥3.2")

Piece = np.ndarray | Sequence[Note]


def pitch_class_histogram(pieces: Iterable[Piece]) -> np.ndarray:
    """Share of the notes in each pitch class, C to B as in `notes.PITCH_CLASSES`: (12,) float, sums to one.

    All zero when there are no notes.
    """
    pitches = [_pitches_and_lengths(piece)[0] % 12 for piece in pieces]
    return _shares(pitches, 12)


def duration_histogram(pieces: Iterable[Piece]) -> tuple[tuple[str, ...], np.ndarray]:
    """Share of the notes by length: the bins' labels and (bins,) float, which sums to one.

    Grids: `LENGTHS_16THS`, in sixteenths. Performances: `LENGTHS_SECONDS`, each label the lower bound of its bin. The
    share is all zero when there are no notes. Raises ValueError when grids and performances are mixed.
    """
    pieces = list(pieces)
    grids = [isinstance(piece, np.ndarray) for piece in pieces]
    if any(grids) and not all(grids):
        raise ValueError("lengths in sixteenths and in seconds do not go into one histogram")
    lengths = [_pitches_and_lengths(piece)[1] for piece in pieces]
    if any(grids):
        bins = [np.minimum(length, len(LENGTHS_16THS)).astype(np.int64) - 1 for length in lengths]
        return LENGTHS_16THS, _shares(bins, len(LENGTHS_16THS))
    # Times are sums of 10 ms, which are not exact; a note of 0.1 s must not fall below 0.1 s.
    bins = [np.searchsorted(LENGTH_BOUNDS, length + 1e-6, side="right") for length in lengths]
    return LENGTHS_SECONDS, _shares(bins, len(LENGTHS_SECONDS))


def distance(p: np.ndarray, q: np.ndarray) -> float:
    """The Jensen-Shannon distance of two histograms (N,), in [0, 1]: 0 when they agree, 1 when they share no bin.

    sqrt(H((p + q) / 2) - (H(p) + H(q)) / 2) with H the entropy in bits, p and q scaled to sum to one. It is a metric;
    its square is the Jensen-Shannon divergence.
    Reference: Lin, Divergence measures based on the Shannon entropy, 1991; Endres and Schindelin, 2003, for the root.
    Raises ValueError when the shapes differ, a share is negative, or a histogram is empty.
    """
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if p.shape != q.shape or p.ndim != 1:
        raise ValueError(f"two histograms of the same bins are compared, not {p.shape} and {q.shape}")
    if (p < 0).any() or (q < 0).any() or p.sum() <= 0 or q.sum() <= 0:
        raise ValueError("a histogram to compare needs shares that are not negative and not all zero")
    p, q = p / p.sum(), q / q.sum()
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return float(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def _shares(bins: list[np.ndarray], count: int) -> np.ndarray:
    if not bins:
        return np.zeros(count)
    counts = np.bincount(np.concatenate(bins), minlength=count).astype(np.float64)
    return counts / max(counts.sum(), 1.0)


def _pitches_and_lengths(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """Pitch (N,) int and length (N,) of each note: sixteenths for a grid, seconds for a performance."""
    if not isinstance(piece, np.ndarray):
        pitches = np.array([note.pitch for note in piece], dtype=np.int64)
        return pitches, np.array([note.end - note.start for note in piece], dtype=np.float64)
    if piece.ndim != 2 or piece.shape[1] != 4:
        raise ValueError(f"a chorale grid has the shape (steps, 4), not {piece.shape}")
    if len(piece) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    voices = piece.T  # (4, T)
    begins = np.ones(voices.shape, dtype=bool)
    begins[:, 1:] = voices[:, 1:] != voices[:, :-1]
    # Row by row: each voice begins a note at its first step, so lengths end at voices' ends.
    at = np.flatnonzero(begins)
    length = np.diff(at, append=voices.size)
    pitch = voices.reshape(-1)[at].astype(np.int64)
    return pitch[pitch >= 0], length[pitch >= 0].astype(np.float64)
