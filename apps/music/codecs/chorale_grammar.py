"""Which tokens may come next in a chorale: makes every generated sequence a whole chorale of the length asked for."""

import numpy as np

from apps.music.codecs.chorale_tokens import EOS, PAD, SILENCE, VOCAB_SIZE, VOICE_RANGES

FREE = -2
VOICE_COUNT = 4


class Grammar:
    """Legal next tokens for a batch of chorales that grow together: voice order, voice ranges, EOS after `steps`.

    Args:
        batch: number of sequences B.
        steps: length in 16ths, a primer included; EOS comes exactly after them, then PAD alone.
        fixed: (T, 4) given cells, S A T B: a pitch or -1 (silence) forces that token, -2 leaves the cell free. T may be
            less than `steps`; the rest is free. A fixed pitch may lie outside the ranges.

    Silence is always legal. A primer (`prime`) is taken as it is: its pitches need not be in range or agree with
    `fixed`.
    """

    def __init__(self, batch: int, steps: int, fixed: np.ndarray | None = None):
        if batch < 1 or steps < 1:
            raise ValueError(f"a grammar needs a batch and steps of at least 1, not {batch} and {steps}")
        self.batch = batch
        self.length = steps * VOICE_COUNT
        self.position = 0
        self.ended = False
        self._fixed = np.full(self.length, FREE, dtype=int)
        if fixed is not None:
            cells = _checked_cells(fixed)[:steps].reshape(-1)
            self._fixed[: len(cells)] = cells
        self._voice_masks = np.zeros((VOICE_COUNT, VOCAB_SIZE), dtype=bool)
        self._voice_masks[:, SILENCE] = True
        for voice, (low, high) in enumerate(VOICE_RANGES):
            self._voice_masks[voice, low : high + 1] = True

    @property
    def done(self) -> np.ndarray:
        """(B,) bool: which sequences have had their EOS."""
        return np.full(self.batch, self.ended)

    @property
    def progress(self) -> float:
        """How much of the length is written, 0 to 1."""
        return self.position / self.length

    def allowed(self) -> np.ndarray:
        """(B, VOCAB_SIZE) bool, a new array: the legal next tokens; every row has at least one."""
        return np.repeat(self._mask()[None], self.batch, axis=0)

    def advance(self, tokens: np.ndarray) -> None:
        """Take one token for each sequence, (B,). ValueError when one of them is not legal."""
        tokens = np.asarray(tokens)
        if tokens.shape != (self.batch,):
            raise ValueError(f"expected one token for each of {self.batch} sequences, got the shape {tokens.shape}")
        if not self._mask()[tokens].all():
            raise ValueError(f"token {tokens.tolist()} is not legal at position {self.position}")
        if self.position < self.length:
            self.position += 1
        else:
            self.ended = True

    def prime(self, tokens: np.ndarray) -> None:
        """Take a primer (N,) that all sequences share; specials are ignored. ValueError when it exceeds `steps`."""
        tokens = np.asarray(tokens)
        count = int((tokens <= SILENCE).sum())
        if self.position + count > self.length:
            raise ValueError(f"the primer has {count} tokens, more than the {self.length} asked for")
        self.position += count

    def _mask(self) -> np.ndarray:
        if self.position < self.length:
            cell = self._fixed[self.position]
            if cell == FREE:
                return self._voice_masks[self.position % VOICE_COUNT]
            return _only(SILENCE if cell < 0 else cell)
        return _only(PAD if self.ended else EOS)


def _only(token: int) -> np.ndarray:
    mask = np.zeros(VOCAB_SIZE, dtype=bool)
    mask[token] = True
    return mask


def _checked_cells(fixed: np.ndarray) -> np.ndarray:
    cells = np.asarray(fixed)
    if cells.ndim != 2 or cells.shape[1] != VOICE_COUNT:
        raise ValueError(f"fixed cells have the shape (steps, 4), not {cells.shape}")
    if cells.size and (cells.min() < FREE or cells.max() > 127):
        raise ValueError("fixed cells hold pitches 0 to 127, -1 for silence or -2 for free")
    return cells.astype(int)
