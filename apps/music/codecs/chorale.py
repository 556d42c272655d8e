"""Four-part chorales as tokens: a raster of 16ths, voice by voice, S1 A1 T1 B1 S2 A2 T2 B2 ...

A token is a MIDI pitch (0-127) or SILENCE. There is no hold token: as in the JSB Chorales data set, a note that goes
on repeats its pitch on every 16th. A repeated note of equal pitch therefore cannot be told from a held one: they merge.

Reference: Huang et al., Music Transformer, arXiv 1809.04281 (data representation of JSB Chorales).
"""

import numpy as np

from apps.music.codecs.chorale_grammar import Grammar
from apps.music.codecs.chorale_tokens import BOS, EOS, PAD, SILENCE, VOCAB_SIZE, VOICE_RANGES, VOICES

__all__ = [
    "BOS",
    "EOS",
    "NAME",
    "PAD",
    "SILENCE",
    "VOCAB_SIZE",
    "VOICES",
    "VOICE_RANGES",
    "Grammar",
    "decode",
    "encode",
    "transpose",
    "transposition_range",
]

NAME = "chorale"


def encode(grid: np.ndarray) -> np.ndarray:
    """A grid as tokens, without specials.

    Shape: grid (T, 4) integers, the columns S A T B, MIDI pitches 0-127 or -1 for silence -> (4T,) int16.
    Raises ValueError when the shape or a pitch is out of range.
    """
    grid = np.asarray(grid)
    if grid.ndim != 2 or grid.shape[1] != len(VOICES):
        raise ValueError(f"a chorale grid has the shape (steps, 4), not {grid.shape}")
    if grid.size and (grid.min() < -1 or grid.max() > 127):
        raise ValueError("a chorale grid holds MIDI pitches 0 to 127, or -1 for silence")
    flat = grid.reshape(-1)
    return np.where(flat < 0, SILENCE, flat).astype(np.int16)


def decode(tokens: np.ndarray) -> np.ndarray:
    """Tokens as a grid; specials are ignored, and so is a last step that lacks a voice.

    Shape: tokens (N,) -> (T, 4) int16, -1 for silence.
    """
    tokens = np.asarray(tokens).reshape(-1)
    tokens = tokens[(tokens >= 0) & (tokens <= SILENCE)].astype(np.int16)
    tokens = tokens[: len(tokens) // len(VOICES) * len(VOICES)]
    return np.where(tokens == SILENCE, -1, tokens).astype(np.int16).reshape(-1, len(VOICES))


def transpose(tokens: np.ndarray, semitones: int) -> np.ndarray | None:
    """The tokens moved by `semitones`, or None when a voice would leave its range; 0 semitones always succeed.

    Silence and specials stay. Shape: tokens (N,) -> (N,) int16.
    """
    tokens = np.asarray(tokens)
    if semitones == 0:
        return tokens.astype(np.int16)
    low, high = transposition_range(tokens)
    if not low <= semitones <= high:
        return None
    return np.where(tokens < SILENCE, tokens + semitones, tokens).astype(np.int16)


def transposition_range(tokens: np.ndarray) -> tuple[int, int]:
    """The lowest and the highest shift in semitones that keep every voice in its range; both ends and 0 are allowed.

    A piece which lies outside the ranges as it stands gets (0, 0); so does one of silence alone.
    """
    tokens = np.asarray(tokens)
    events = tokens[tokens <= SILENCE]
    voices = np.arange(len(events)) % len(VOICES)
    sounding = events < SILENCE
    if not sounding.any():
        return 0, 0
    pitches = events[sounding].astype(int)
    bounds = VOICE_RANGES[voices[sounding]]
    low, high = int((bounds[:, 0] - pitches).max()), int((bounds[:, 1] - pitches).min())
    return (low, high) if low <= 0 <= high else (0, 0)
