"""Making music with a trained model: generate, continue, harmonise, accompany."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apps.music.codecs.chorale_tokens import STEPS_PER_BAR
from apps.music.decode import Sampling, sample
from apps.music.midi import Track, read_grid_and_attacks, read_notes, read_tempo, read_tracks
from apps.music.notes import Note, pitch_name
from apps.music.outputs import Length, write_outputs
from apps.music.player import SHIPPED, Player, export, load
from shared.command import progress
from shared.errors import InputError, ManyheadsError
from shared.io.files import output_folder
from shared.versions import package_version

__all__ = ["SHIPPED", "Player", "accompany", "continue_", "export", "generate", "harmonise", "load", "read_tokens"]

MOST_BARS = 256  # to harmonise: some minutes of work


def generate(player: Player, out: Path, *, length: Length, count: int, tempo: float, sampling: Sampling) -> dict:
    """Music out of nothing: `count` pieces in one batch."""
    _no_melody(player)
    output_folder(out)
    grammar, seconds = start_grammar(player, length, tempo, count)
    pieces, likelihood = play(player, grammar, np.array([player.codec.BOS]), sampling)
    facts = {"verb": "generate", "length": asdict(length), "count": count}
    return _write(player, out, "piece", pieces, likelihood, tempo, seconds, sampling, facts)


def continue_(
    player: Player,
    primer: Path,
    out: Path,
    *,
    length: Length,
    last: Length | None,
    count: int,
    tempo: float | None,
    sampling: Sampling,
) -> dict:
    """`count` continuations of a MIDI file that share one prefill; each file holds the primer and what follows it.

    `last` takes only the primer's last part. `tempo` None is the file's. Raises InputError when the primer is longer
    than the model sees (of chorales, eight times that).
    """
    _no_melody(player)
    tempo = tempo or file_tempo(primer)
    tokens, attacks = read_tokens(player, primer, tempo, last)
    chorale = player.codec.NAME == "chorale"
    limit = player.window * 8 if chorale else player.window
    if len(tokens) + 1 > limit:
        raise InputError(
            f"{primer}: holds {len(tokens):,} tokens, more than {limit:,}; take its last part by --last 20s"
        )
    output_folder(out)
    if chorale:
        steps = len(tokens) // 4 + length.steps(tempo)
        seconds, grammar = steps * 15 / tempo, player.codec.Grammar(count, steps)
    else:
        seconds = max(note.end for note in player.codec.decode(tokens)) + length.seconds(tempo)
        grammar = player.codec.Grammar(count, seconds)
    grammar.prime(tokens)
    pieces, likelihood = play(player, grammar, np.concatenate([[player.codec.BOS], tokens]), sampling)
    pieces = [np.concatenate([tokens, piece]) for piece in pieces]
    facts = {
        "verb": "continue",
        "primer": str(primer),
        "primer_tokens": len(tokens),
        "last": last and asdict(last),
        "length": asdict(length),
        "count": count,
    }
    return _write(player, out, "continuation", pieces, likelihood, tempo, seconds, sampling, facts, attacks=attacks)


def harmonise(
    player: Player,
    melody: Path,
    out: Path,
    *,
    keep: list[str],
    count: int,
    particles: int,
    tempo: float | None,
    sampling: Sampling,
    transpose: int = 0,
) -> dict:
    """Fill the voices that are not kept. `particles` sequences grow together and the best `count` are written.

    The kept voices, moved by `transpose` semitones, are forced token by token, and the particles are weighted by how
    likely the model finds them. `tempo` None is the file's. Raises InputError for voices that are unknown or not in the
    file, a melody of more than `MOST_BARS`, and one that is moved beyond MIDI's pitches.
    """
    if player.codec.NAME != "chorale":
        raise InputError(f"{player.path}: is no chorale model; harmonise needs one trained with data.codec = chorale")
    voices = [voice.lower() for voice in player.codec.VOICES]
    keep = [voice.strip().lower() for voice in keep]
    if not set(keep) <= set(voices) or not 0 < len(set(keep)) < len(voices):
        raise InputError(f"--keep {' '.join(keep)}: name one to three of {', '.join(voices)}")
    tempo = tempo or file_tempo(melody)
    grid, attacks = read_grid_and_attacks(melody)
    if len(grid) > MOST_BARS * STEPS_PER_BAR:
        raise InputError(
            f"{melody}: is {len(grid) // STEPS_PER_BAR:,} bars long, more than {MOST_BARS}; give a shorter melody"
        )
    columns = [voices.index(voice) for voice in keep]
    for column in columns:
        if (grid[:, column] < 0).all():
            raise InputError(
                f"{melody}: has no notes for the {voices[column]}; give a file with that voice, or name another "
                "by --keep"
            )
    given = grid[:, columns]
    moved = np.where(given < 0, given, given + transpose)
    if moved.max() > 127 or moved[given >= 0].min() < 0:
        raise InputError(f"--transpose {transpose}: moves {melody} beyond the pitches of MIDI; choose less")
    output_folder(out)
    warnings = _out_of_range(player, dict(zip(columns, moved.T, strict=True)), transpose)
    kept, restruck = np.full(grid.shape, -2), np.zeros(grid.shape, dtype=bool)
    kept[:, columns], restruck[:, columns] = moved, attacks[:, columns]
    grammar = player.codec.Grammar(max(particles, count), len(grid), fixed=kept)
    pieces, likelihood = play(player, grammar, np.array([player.codec.BOS]), sampling, particles=len(voices))
    # Particles that grew out of one another may be the same: each is written once.
    best = {pieces[i].tobytes(): i for i in np.argsort(likelihood, kind="stable")}
    chosen = list(best.values())[::-1][:count]
    if len(chosen) < count:
        found = f"{len(chosen)} different harmonisations were found, not {count}; raise --particles or --temperature"
        warnings.append(_told(found))
    facts = {
        "verb": "harmonise",
        "melody": str(melody),
        "keep": keep,
        "transpose": transpose,
        "particles": particles,
        "count": count,
        "warnings": warnings,
    }
    return _write(
        player,
        out,
        "harmonisation",
        [pieces[i] for i in chosen],
        likelihood[chosen],
        tempo,
        len(grid) * 15 / tempo,
        sampling,
        facts,
        attacks=restruck,
    )


def accompany(player: Player, melody: Path, out: Path, *, count: int, tempo: float | None, sampling: Sampling) -> dict:
    """An accompaniment for a melody, as long as the melody; the MIDI holds both, the melody as it is given, each on its
    own track.

    Of a file with a track named Melody it is that track, else all notes. `tempo` None is the file's.
    """
    if not player.accompanies:
        raise InputError(
            f"{player.path}: was not trained to accompany; "
            "train one with `manyheads music train --config accompany --data POP909`"
        )
    tempo = tempo or file_tempo(melody)
    tune = _melody(melody)
    tokens = player.codec.encode(tune.notes)
    if len(tokens) > 4 * player.window:
        raise InputError(
            f"{melody}: holds {len(tokens):,} tokens, more than {4 * player.window:,}; give a shorter melody"
        )
    output_folder(out)
    seconds = max(note.end for note in tune.notes)
    grammar = player.codec.Grammar(count, seconds)
    pieces, likelihood = play(player, grammar, np.array([player.codec.BOS]), sampling, melody=tokens)
    facts = {"verb": "accompany", "melody": str(melody), "melody_track": tune.name, "count": count}
    beside = [tune._replace(name="Melody")]
    return _write(player, out, "accompaniment", pieces, likelihood, tempo, seconds, sampling, facts, beside=beside)


def file_tempo(path: Path) -> float:
    """The tempo of a MIDI file, within what makes music: 20 to 300 quarters a minute. InputError as the reader's."""
    return min(300.0, max(20.0, read_tempo(path)))


def read_tokens(
    player: Player, path: Path, tempo: float, last: Length | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """A MIDI file in the model's codec, (N,), or its last part: for chorales from the bar line before on.

    Beside it for chorales where notes begin, (N / 4, 4) bool, else None. Raises InputError as the MIDI reader does, and
    when no note begins in the last part.
    """
    if player.codec.NAME == "chorale":
        grid, attacks = read_grid_and_attacks(path)
        steps = len(grid) if last is None else min(len(grid), last.steps(tempo))
        first = (len(grid) - steps) // STEPS_PER_BAR * STEPS_PER_BAR
        return player.codec.encode(grid[first:]), attacks[first:]
    notes = read_notes(path)
    if last is not None:
        begin = max(0.0, max(note.end for note in notes) - last.seconds(tempo))
        notes = [note._replace(start=note.start - begin, end=note.end - begin) for note in notes if note.start >= begin]
        if not notes:
            raise InputError(f"{path}: no note begins in its last {last.seconds(tempo):g} seconds; take more by --last")
    return player.codec.encode(notes), None


def start_grammar(player: Player, length: Length, tempo: float, count: int) -> tuple[Any, float]:
    """The codec's grammar for `count` pieces of a length, and that length in seconds (of chorales: of whole 16ths)."""
    if player.codec.NAME == "chorale":
        steps = length.steps(tempo)
        return player.codec.Grammar(count, steps), steps * 15 / tempo
    return player.codec.Grammar(count, length.seconds(tempo)), length.seconds(tempo)


def play(
    player: Player, grammar: Any, prompt: np.ndarray, sampling: Sampling, **more: Any
) -> tuple[list[np.ndarray], np.ndarray]:
    """`decode.sample` with the player's model and window, under a progress bar."""
    with progress() as bar:
        task = bar.add_task("% written", total=100)
        return sample(
            player.model,
            grammar,
            prompt,
            sampling,
            window=player.window,
            on_step=lambda: bar.update(task, completed=int(100 * grammar.progress)),
            **more,
        )


def _write(
    player: Player,
    out: Path,
    stem: str,
    pieces: list[np.ndarray],
    likelihood: np.ndarray,
    tempo: float,
    seconds: float,
    sampling: Sampling,
    facts: dict,
    **more: Any,
) -> dict:
    """Write the pieces by rank of their likelihood. ManyheadsError, and nothing written, when none has a note."""
    order = [i for i in np.argsort(-likelihood, kind="stable") if _sounds(player, pieces[i])]
    if not order:
        raise ManyheadsError("the model wrote no notes; try another --seed, or a greater --length")
    warnings = facts.get("warnings", [])
    if len(order) < len(pieces):
        warnings = [*warnings, f"{len(pieces) - len(order)} of {len(pieces)} pieces had no notes and are left out"]
    rows = []
    for rank, i in enumerate(order, 1):
        name = f"{stem}-{rank}" if len(order) > 1 else stem
        value = round(float(likelihood[i]), 4)
        kept = {
            **facts,
            "rank": rank,
            "log_likelihood_per_token": value,
            "sampling": asdict(sampling),
            "model": {"path": player.path.name, "sha256": player.card["sha256"]},
            "versions": {"manyheads": package_version(), "torch": torch.__version__},
            "device": next(player.model.parameters()).device.type,
        }
        files = write_outputs(out, name, player.codec.NAME, pieces[i], tempo, seconds, kept, **more)
        rows.append({"name": name, "log_likelihood_per_token": value, "midi": files[0]})
    return {
        "out": str(out),
        "seed": sampling.seed,
        "pieces": rows,
        **({"warnings": warnings} if warnings else {}),
    }


def _sounds(player: Player, tokens: np.ndarray) -> bool:
    return bool((tokens < 128).any())  # in both codecs these are the pitches


def _no_melody(player: Player) -> None:
    if player.accompanies:
        raise InputError(f"{player.path}: accompanies a melody; use `manyheads music accompany MELODY.mid`")


def _melody(path: Path) -> Track:
    tracks = [track for track in read_tracks(path) if not track.is_drum]
    if not tracks:
        raise InputError(f"{path}: holds drums alone; give a file with a melody")
    chosen = [track for track in tracks if track.name.strip().lower() == "melody"] or tracks
    notes: list[Note] = sorted(note for track in chosen for note in track.notes)
    return chosen[0]._replace(notes=notes)


def _out_of_range(player: Player, given: dict[int, np.ndarray], moved: int) -> list[str]:
    """A line for each given voice (T,) that leaves the range that the model knows, with a shift that mends all.

    By octaves where they do, which keeps the key, else by as little as possible. `moved` is by how many semitones they
    have been moved already.
    """
    spans = {voice: (int(row[row >= 0].min()), int(row.max())) for voice, row in given.items()}
    ranges = {voice: player.codec.VOICE_RANGES[voice].tolist() for voice in given}
    up = max(ranges[voice][0] - low for voice, (low, _) in spans.items())
    down = min(ranges[voice][1] - high for voice, (_, high) in spans.items())
    octaves = [shift for shift in range(-120, 121, 12) if up <= shift <= down]
    shift = min([*octaves, up if up > 0 else down], key=lambda by: (by % 12 > 0, abs(by)))
    mend = f"--transpose {moved + shift} mends it" if up <= down else "no transposition mends it"
    return [
        _told(
            f"the {player.codec.VOICES[voice].lower()} goes from {pitch_name(low)} to {pitch_name(high)}, the model "
            f"knows {' to '.join(map(pitch_name, ranges[voice]))}; {mend}"
        )
        for voice, (low, high) in spans.items()
        if low < ranges[voice][0] or high > ranges[voice][1]
    ]


def _told(warning: str) -> str:
    print(f"note: {warning}", file=sys.stderr)
    return warning
