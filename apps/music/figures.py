"""Pictures of music: the piano roll, attention over it, pairs of histograms, the mel spectrogram."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.music.histograms import distance
from apps.music.midi import Track
from apps.music.notes import Note
from shared.errors import InputError
from shared.report.figures import COLOURS, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 11.0  # inches
ROW_SECONDS = 40.0  # of a roll in one row; longer pieces go on in the next one
MOST_ROWS = 8
BLACK_KEYS = (1, 3, 6, 8, 10)
MELS = 128
FLOOR = -80.0  # dB below the loudest

Arc = tuple[int, int, float, int]


def piano_roll(
    path: Path | str, music: Sequence[Track] | Sequence[Note], title: str = "", *, bar_seconds: float | None = None
) -> None:
    """Draw tracks, each in its colour with a legend, or plain notes, as a piano roll (PNG or SVG).

    bar_seconds: the length of a bar, for bar lines and bar numbers; without it time is in seconds. Loud notes are
    darker. A piece longer than `ROW_SECONDS` goes on in further rows. Raises InputError when there are no notes.
    """
    tracks = _tracks(music)
    notes = [note for track in tracks for note in track.notes]
    if not notes:
        raise InputError(f"{path}: there are no notes to draw")
    end = max(0.01, *(note.end for note in notes))  # a file may hold notes of no length alone, at its very beginning
    rows, length = _rows(end, bar_seconds)
    figure = new_figure(WIDTH, 0.7 + rows * _row_height(notes))
    axes = [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
    halved = _unisons(tracks)
    for row, ax in enumerate(axes):
        _keyboard(ax, notes, row * length, (row + 1) * length if rows > 1 else end, bar_seconds)
        for index, track in enumerate(tracks):
            _bars(ax, track.notes, _colour(index), halved[index])
    axes[-1].set_xlabel("bar" if bar_seconds else "seconds")
    if any(track.name for track in tracks):
        named = [track.name or f"track {index + 1}" for index, track in enumerate(tracks)]
        _legend(axes[0], named, [_colour(index) for index in range(len(tracks))])
    axes[0].set_title(title, loc="left", pad=10)
    save_figure(figure, Path(path))


def attention_arcs(
    path: Path | str,
    notes: Sequence[Note],
    arcs: Sequence[Arc],
    title: str = "",
    *,
    strongest: int = 12,
    bar_seconds: float | None = None,
) -> None:
    """Draw which notes a model looked back at: arcs (from note, to note, weight, head) over a piano roll (PNG or SVG).

    from and to are indices into `notes`: the note that was being made and the one looked at; the latter has a dot, the
    former an outline. Each head has its own roll and colour. Width and strength of a line show the weight relative to
    the greatest of all. Of each head the `strongest` arcs are drawn that have at least a twentieth of its greatest
    weight, none from a note to itself; only the bars around them are shown.
    Raises InputError when there are no notes, ValueError for an arc from or to a note that does not exist or with a
    weight below zero.
    """
    if not notes:
        raise InputError(f"{path}: there are no notes to draw")
    if any(not (0 <= a < len(notes) and 0 <= b < len(notes)) or not weight >= 0 for a, b, weight, _ in arcs):
        raise ValueError("an arc goes from note to note, with a weight that is not below zero")
    heads = sorted({head for *_, head in arcs}) or [0]
    chosen = [_strongest([arc for arc in arcs if arc[3] == head], strongest) for head in heads]
    drawn = [arc for kept in chosen for arc in kept]
    start, end = _window(notes, drawn, bar_seconds)
    seen = [note for note in notes if note.end > start and note.start < end]
    columns = 2 if len(heads) > 3 else 1
    rows = -(-len(heads) // columns)
    figure = new_figure(WIDTH, 0.7 + rows * (_row_height(seen) + 0.6))
    for index, (head, kept) in enumerate(zip(heads, chosen, strict=True)):
        ax = figure.add_subplot(rows, columns, index + 1)
        _keyboard(ax, seen, start, end, bar_seconds, headroom=4, columns=columns)
        _bars(ax, [note._replace(velocity=127) for note in seen], "#b8bfc8")
        if kept:
            _arcs(ax, notes, kept, _colour(index), max(weight for _, _, weight, _ in drawn))
        _legend(ax, [f"head {head + 1}"] if arcs else [], [_colour(index)] if arcs else [])
        if index + columns >= len(heads):
            ax.set_xlabel("bar" if bar_seconds else "seconds")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize="large")
    save_figure(figure, Path(path))


def histogram_pair(
    path: Path | str, data: np.ndarray, model: np.ndarray, labels: Sequence[str], title: str = ""
) -> None:
    """Draw two histograms (N,) of the same bins side by side, with their Jensen-Shannon distance (PNG or SVG)."""
    figure = new_figure(8, 3.4)
    ax = figure.add_subplot()
    places = np.arange(len(labels))
    for shift, shares, colour in ((-0.2, data, "#8a94a3"), (0.2, model, COLOURS[0])):
        ax.bar(places + shift, 100 * np.asarray(shares), width=0.38, color=colour)
    ax.set_xticks(places, list(labels))
    ax.set_xlim(-0.6, len(labels) - 0.4)
    ax.tick_params(length=0)
    ax.grid(axis="x", visible=False)
    ax.set_ylabel("% of notes")
    if np.any(data) and np.any(model):
        title = f"{title}   Jensen-Shannon distance {distance(data, model):.3f}".strip()
    ax.set_title(title, loc="left")
    _legend(ax, ["data", "model"], ["#8a94a3", COLOURS[0]])
    save_figure(figure, Path(path))


def mel_spectrogram(waveform: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mel spectrogram of a sound (N,) or (channels, N), whose channels are averaged.

    Returns decibels below the loudest (M, T), from `FLOOR` to 0, the middles of the M bands in Hz and of the T frames
    in seconds. A window is about 93 ms long, so that neighbouring low notes stand apart.
    """
    import torch
    from torchaudio.transforms import MelSpectrogram

    mono = np.atleast_2d(np.asarray(waveform, dtype=np.float32)).mean(axis=0)
    window = 2 ** round(math.log2(rate * 0.093))
    hop = max(window // 4, len(mono) // 4000)
    low, high = 27.5, min(8000.0, rate / 2)
    transform = MelSpectrogram(rate, n_fft=window, hop_length=hop, n_mels=MELS, f_min=low, f_max=high)
    padded = np.pad(mono, (0, max(window - len(mono), 0)))
    power = transform(torch.from_numpy(padded)).numpy().astype(np.float64)
    loudest = power.max(initial=0.0) or 1.0
    decibels = np.maximum(10 * np.log10(np.maximum(power / loudest, 1e-12)), FLOOR)
    mels = np.linspace(_mel(low), _mel(high), MELS + 2)[1:-1]
    return decibels, 700 * (10 ** (mels / 2595) - 1), np.arange(power.shape[1]) * hop / rate


def mel_picture(path: Path | str, waveform: np.ndarray, rate: int, title: str = "") -> None:
    """Draw the mel spectrogram of a sound, (N,) or (channels, N) at `rate` Hz (PNG or SVG).

    Raises InputError when the sound is silent or empty.
    """
    if not np.any(waveform):
        raise InputError(f"{path}: the sound is silent; there is nothing to draw")
    decibels, _, seconds = mel_spectrogram(waveform, rate)
    figure = new_figure(WIDTH, 3.6)
    ax = figure.add_subplot()
    low, high = _mel(27.5), _mel(min(8000.0, rate / 2))
    step = seconds[1] if len(seconds) > 1 else 1.0
    extent = (0.0, float(seconds[-1] + step), low, high)
    image = ax.imshow(decibels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=FLOOR, vmax=0)
    notes = {110: "A2", 220: "A3", 440: "A4", 880: "A5", 1760: "A6", 3520: "A7", 7040: "A8"}
    shown = {hertz: name for hertz, name in notes.items() if low < _mel(hertz) < high}
    ax.set_yticks([_mel(hertz) for hertz in shown], [f"{name}  {hertz:,} Hz" for hertz, name in shown.items()])
    ax.grid(visible=False)
    ax.set_xlim(0, np.shape(waveform)[-1] / rate)
    ax.set_xlabel("seconds")
    ax.set_title(title, loc="left")
    figure.colorbar(image, ax=ax, label="dB below the loudest", pad=0.01)
    save_figure(figure, Path(path))


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _tracks(music: Sequence[Track] | Sequence[Note]) -> list[Track]:
    if all(isinstance(item, Note) for item in music):
        return [Track("", 0, False, list(music))]  # type: ignore[arg-type]
    return [track for track in music if isinstance(track, Track)]


def _rows(end: float, bar_seconds: float | None) -> tuple[int, float]:
    """How many rows a roll takes and how long one is in seconds, whole bars where there are bars."""
    rows = min(math.ceil(end / ROW_SECONDS - 1e-9), MOST_ROWS)
    length = end / max(rows, 1)
    if bar_seconds:
        length = math.ceil(length / bar_seconds - 1e-9) * bar_seconds
    return max(math.ceil(end / length - 1e-9), 1), length


def _row_height(notes: Sequence[Note]) -> float:
    """Inches: two millimetres for a key, within reason."""
    pitches = [note.pitch for note in notes]
    return min(max(0.08 * (max(pitches) - min(pitches) + 6), 2.0), 3.8)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _window(notes: Sequence[Note], arcs: Sequence[Arc], bar_seconds: float | None) -> tuple[float, float]:
    """The time that the arcs span, to whole bars, a bar or two seconds more on both sides, within the piece."""
    end = max(note.end for note in notes)
    touched = [notes[index] for a, b, *_ in arcs for index in (a, b)]
    if not touched:
        return 0.0, end
    unit = bar_seconds or 2.0
    first = math.floor(min(note.start for note in touched) / unit + 1e-9) * unit
    last = math.ceil(max(note.end for note in touched) / unit - 1e-9) * unit
    return max(first - unit, 0.0), min(last + unit, end)


def _unisons(tracks: Sequence[Track]) -> list[list[bool]]:
    """For each track's notes, whether an earlier track's note of the same pitch sounds with them."""
    spans: dict[int, list[tuple[float, float]]] = {}
    found = []
    for track in tracks:
        found.append([any(a < n.end and n.start < b for a, b in spans.get(n.pitch, [])) for n in track.notes])
        for note in track.notes:
            spans.setdefault(note.pitch, []).append((note.start, note.end))
    return found


def _keyboard(
    ax: "Axes",
    notes: Sequence[Note],
    start: float,
    end: float,
    bar_seconds: float | None,
    headroom: int = 0,
    columns: int = 1,
) -> None:
    """The ground of a roll: rows of keys, a small keyboard with its Cs named, bar lines and numbers or seconds."""
    from matplotlib.patches import Rectangle

    low = min(note.pitch for note in notes) - 3
    high = max(note.pitch for note in notes) + 3 + headroom
    ax.set_xlim(start, end)
    ax.set_ylim(low - 0.5, high + 0.5)
    ax.grid(visible=False)
    edge = ax.get_yaxis_transform()  # across in parts of the axes, so that the keyboard stands left of them
    wide, deep = 0.17 / (WIDTH / columns), 0.105 / (WIDTH / columns)
    outside: Any = {"transform": edge, "clip_on": False}
    ax.add_patch(Rectangle((-wide, low - 0.5), wide, high - low + 1, fc="white", ec="#555", lw=0.6, **outside))
    for pitch in range(low, high + 1):
        if pitch % 12 in BLACK_KEYS:
            ax.axhspan(pitch - 0.5, pitch + 0.5, color="#f1f3f5", lw=0, zorder=0)
            ax.add_patch(Rectangle((-wide, pitch - 0.45), deep, 0.9, fc="#333", lw=0, **outside))
            ax.plot([deep - wide, 0], [pitch] * 2, color="#555", lw=0.4, **outside)
        elif pitch % 12 in (0, 5) and pitch > low:  # between B and C, E and F two white keys meet
            ax.plot([-wide, 0], [pitch - 0.5] * 2, color="#555", lw=0.4, **outside)
        if pitch % 12 == 0:
            ax.axhline(pitch - 0.5, color="#cfd4da", lw=0.6, zorder=0.5)
    cs = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    ax.set_yticks(cs, [f"C{pitch // 12 - 1}" for pitch in cs])
    ax.tick_params(axis="y", length=0, pad=14)
    ax.spines["left"].set_visible(False)
    if not bar_seconds:
        ax.grid(visible=True, axis="x")
        return
    bars = range(math.ceil(start / bar_seconds - 1e-9), math.ceil(end / bar_seconds - 1e-9))
    for bar in bars:
        ax.axvline(bar * bar_seconds, color="#9aa3ad", lw=0.7, zorder=0.6)
    every = max(1, math.ceil(len(bars) / 24))
    numbered = [bar for bar in bars if bar % every == 0]
    ax.set_xticks([bar * bar_seconds for bar in numbered], [str(bar + 1) for bar in numbered])


def _bars(ax: "Axes", notes: Sequence[Note], colour: str, halved: Sequence[bool] | None = None) -> None:
    """Notes as boxes, paler when soft; of a unison the later track takes the lower half."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb

    boxes, faces = [], []
    for index, note in enumerate(notes):
        low, high = note.pitch - 0.42, note.pitch + (0.0 if halved and halved[index] else 0.42)
        boxes.append([(note.start, low), (note.end, low), (note.end, high), (note.start, high)])
        strength = 0.4 + 0.6 * note.velocity / 127
        faces.append([1 - strength * (1 - part) for part in to_rgb(colour)])
    keys = np.diff(ax.get_ylim())[0]
    ax.add_collection(
        PolyCollection(boxes, facecolors=faces, edgecolors="white", linewidths=0.5 if keys < 45 else 0.2, zorder=2)
    )


def _legend(ax: "Axes", names: list[str], colours: list[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in zip(names, colours, strict=True)]
    above: Any = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2, "frameon": False}
    ax.legend(handles=handles, ncols=max(min(len(handles), 8), 1), handlelength=1.2, columnspacing=1.2, **above)


def _strongest(arcs: Sequence[Arc], count: int) -> list[Arc]:
    """The arcs worth drawing, the weightiest last, so that it lies on top."""
    kept = sorted((arc for arc in arcs if arc[0] != arc[1] and arc[2] > 0), key=lambda arc: -arc[2])[:count]
    return [arc for arc in kept if arc[2] >= kept[0][2] / 20][::-1]


def _arcs(ax: "Axes", notes: Sequence[Note], arcs: Sequence[Arc], colour: str, greatest: float) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    low, high = ax.get_ylim()
    start, end = ax.get_xlim()
    t = np.linspace(0, 1, 40)
    bow = 4 * t * (1 - t)
    lines: list[Any] = []
    for a, b, _, _ in arcs:
        (x0, y0), (x1, y1) = _middle(notes[a]), _middle(notes[b])
        far = abs(x1 - x0) / (end - start)
        # The farther apart, the higher the arc, so that long and short ones do not lie on each other.
        lift = min((high - low) * (0.06 + 0.5 * far), high - 0.5 - max(y0, y1))
        x, y = x0 + (x1 - x0) * t, y0 + (y1 - y0) * t
        if far < 0.01:  # notes of one chord: the arc goes round on the left
            x, lift = x - 0.012 * (end - start) * bow, 0.0
        lines.append(np.column_stack([x, y + lift * bow]))
    share = [weight / greatest for _, _, weight, _ in arcs]
    shades = [(*to_rgb(colour), 0.3 + 0.6 * value) for value in share]
    ax.add_collection(LineCollection(lines, colors=shades, linewidths=[0.6 + 2.2 * value for value in share], zorder=3))
    ends = np.array([_middle(notes[b]) for _, b, _, _ in arcs])
    ax.scatter(ends[:, 0], ends[:, 1], s=[6 + 24 * value for value in share], c=shades, linewidths=0, zorder=4)
    for note in {notes[a] for a, *_ in arcs}:
        box = (note.start, note.pitch - 0.42), note.end - note.start, 0.84
        ax.add_patch(Rectangle(*box, fill=False, ec="#20262d", lw=1.1, zorder=5))


def _middle(note: Note) -> tuple[float, float]:
    return (note.start + note.end) / 2, float(note.pitch)
