"""Which tokens may come next in a performance: makes every generated sequence canonical, of one length, and ended."""

import numpy as np

from apps.music.codecs.performance_tokens import (
    EOS,
    MAX_SHIFT,
    NOTE_OFF,
    NOTE_ON,
    PAD,
    PITCHES,
    SHIFT,
    STEPS_PER_SECOND,
    VELOCITY,
    VOCAB_SIZE,
)

_PITCH = np.arange(PITCHES)
_SHIFTS = np.arange(1, MAX_SHIFT + 1)
_BINS = np.arange(PAD - VELOCITY)


class Grammar:
    """Legal next tokens for a batch of performances: the codec's canonical order, and an end after `seconds`.

    Only a silent pitch may start and only a sounding one may stop. The clock never passes `seconds` (the primer's time
    included; rounded to 10 ms); once it is there, what sounds stops in ascending pitch, then comes EOS, then PAD alone.
    As the order within an instant is canonical, every sequence ends after a bounded number of tokens.

    Args:
        batch: number of sequences B.
        seconds: length of each sequence.
    """

    def __init__(self, batch: int, seconds: float):
        if batch < 1 or not seconds > 0:
            raise ValueError(f"a grammar needs a batch of at least 1 and seconds above 0, not {batch} and {seconds}")
        self.batch = batch
        self.end = max(1, round(seconds * STEPS_PER_SECOND))
        self._rows = np.arange(batch)
        self._done = np.zeros(batch, dtype=bool)
        self._sounding = np.zeros((batch, PITCHES), dtype=bool)
        self._clock = np.zeros(batch, dtype=int)
        self._bin = np.full(batch, -1)  # -1: no velocity token yet
        # Within the instant: the last pitch that stopped and that started (-1: none).
        self._last_off = np.full(batch, -1)
        self._last_on = np.full(batch, -1)
        self._after_velocity = np.zeros(batch, dtype=bool)  # a velocity token announces a note-on
        self._may_shift = np.ones(batch, dtype=bool)  # not right after a shift below the largest
        self._mask: np.ndarray | None = None

    @property
    def done(self) -> np.ndarray:
        """(B,) bool: which sequences have had their EOS."""
        return self._done.copy()

    @property
    def progress(self) -> float:
        """How much of the length is written, 0 to 1; of the batch the least."""
        return min(1.0, int(self._clock.min()) / self.end)

    def allowed(self) -> np.ndarray:
        """(B, VOCAB_SIZE) bool, a new array: the legal next tokens; every row has at least one."""
        if self._mask is None:
            self._mask = self._legal()
        return self._mask.copy()

    def advance(self, tokens: np.ndarray) -> None:
        """Take one token for each sequence, (B,). ValueError when one of them is not legal."""
        tokens = np.asarray(tokens)
        if tokens.shape != (self.batch,):
            raise ValueError(f"expected one token for each of {self.batch} sequences, got the shape {tokens.shape}")
        if self._mask is None:
            self._mask = self._legal()
        if not self._mask[self._rows, tokens].all():
            raise ValueError(f"a token of {tokens.tolist()} is not legal here")
        self._take(tokens)

    def prime(self, tokens: np.ndarray) -> None:
        """Take a primer (N,) that all sequences share; specials in it are ignored, and its order need not be canonical.

        A primer of `seconds` or longer is legal: what sounds then stops, and EOS follows.
        """
        tokens = np.asarray(tokens)
        for token in tokens[tokens < PAD]:
            self._take(np.full(self.batch, token))

    def _legal(self) -> np.ndarray:
        mask = np.zeros((self.batch, VOCAB_SIZE), dtype=bool)
        remaining = self.end - self._clock
        running = (remaining > 0) & ~self._done
        startable = ~self._sounding & (self._last_on[:, None] < _PITCH) & running[:, None]
        # A primer may announce a note-on that the order no longer admits: then the announcement counts for nothing.
        startable_any = startable.any(axis=1)
        event = running & ~(self._after_velocity & startable_any)
        mask[:, NOTE_ON:NOTE_OFF] = startable & (self._bin >= 0)[:, None]
        stoppable = event & (self._last_on < 0)
        mask[:, NOTE_OFF:SHIFT] = self._sounding & (self._last_off[:, None] < _PITCH) & stoppable[:, None]
        mask[:, SHIFT:VELOCITY] = np.where(event & self._may_shift, remaining, 0)[:, None] >= _SHIFTS
        mask[:, VELOCITY:PAD] = (event & startable_any)[:, None] & (self._bin[:, None] != _BINS)
        if not running.all():
            self._close(mask, ~running)
        return mask

    def _close(self, mask: np.ndarray, over: np.ndarray) -> None:
        lowest = self._sounding.argmax(axis=1)
        loud = self._sounding.any(axis=1)
        mask[over & loud, NOTE_OFF + lowest[over & loud]] = True
        mask[over & ~loud & ~self._done, EOS] = True
        mask[self._done, PAD] = True

    def _take(self, tokens: np.ndarray) -> None:
        self._mask = None
        rows = self._rows
        on = tokens < NOTE_OFF
        off = (tokens >= NOTE_OFF) & (tokens < SHIFT)
        shift = (tokens >= SHIFT) & (tokens < VELOCITY)
        velocity = (tokens >= VELOCITY) & (tokens < PAD)
        pitch = tokens % NOTE_OFF
        self._sounding[rows, pitch] = on | (self._sounding[rows, pitch] & ~off)
        self._clock += np.where(shift, tokens - (SHIFT - 1), 0)
        self._bin = np.where(velocity, tokens - VELOCITY, self._bin)
        self._last_on = np.where(on, pitch, np.where(shift, -1, self._last_on))
        self._last_off = np.where(off, pitch, np.where(shift, -1, self._last_off))
        self._after_velocity = velocity
        self._may_shift = np.where(velocity, self._may_shift, on | off | (tokens == VELOCITY - 1))
        self._done |= tokens == EOS
