"""Making music with a trained model: generate, continue, harmonise, accompany."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from apps.music.codecs import get_codec
from apps.music.decode import Sampling, sample
from apps.music.midi import read_grid, read_notes
from apps.music.model import MusicTransformer
from apps.music.outputs import Length, tracks_of, write_outputs
from shared.command import progress
from shared.errors import InputError
from shared.training.checkpoint import load_model, load_weights, save_model

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "weights" / "chorale.safetensors"


@dataclass(frozen=True)
class Player:
    """A model with what its card says of it."""

    model: MusicTransformer
    card: dict[str, Any]
    codec: ModuleType
    path: Path

    @property
    def window(self) -> int:
        """How many tokens of the past the model was trained to see; decoding keeps as many."""
        return int(self.card["length"])


def load(checkpoint: Path | None, device: str = "auto") -> Player:
    """Load a model of `music train`, or the shipped chorale model. InputError as `load_model`."""
    path = checkpoint or SHIPPED
    state, card = load_model(path, "music")
    try:
        model, codec = MusicTransformer(**card["architecture"]), get_codec(card["codec"])
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: its card does not describe a music model ({error}); use the one made by train"
        ) from None
    load_weights(model, state, path)
    return Player(model.eval().to(pick_device(device)), card, codec, path)


def export(checkpoint: Path | None, out: Path, name: str) -> dict[str, Any]:
    """Write the weights as float16 with their card; loading turns them back into float32. Raises InputError as `load`."""
    player = load(checkpoint, "cpu")
    state = {key: value.half() for key, value in player.model.state_dict().items()}
    card = {key: value for key, value in player.card.items() if key not in ("sha256", "versions")}
    if (out / f"{name}.safetensors").exists():
        raise InputError(f"{out / name}.safetensors: exists already; name another by --name or --out")
    weights = save_model(out, state, {**card, "precision": "float16"}, name)
    return {"model": str(weights), "megabytes": round(weights.stat().st_size / 1e6, 2)}


def pick_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise InputError(f"--device {name}: is not available on this machine; use --device cpu") from None


def generate(player: Player, out: Path, *, length: Length, count: int, tempo: float, sampling: Sampling) -> dict:
    """Music out of nothing: `count` pieces in one batch."""
    _no_melody(player)
    grammar = _grammar(player, length, tempo, count)
    pieces, likelihood = _sample(player, grammar, np.array([player.codec.BOS]), sampling)
    return _write(
        player, out, "piece", pieces, likelihood, tempo, sampling, {"verb": "generate", "length": asdict(length)}
    )


def continue_(
    player: Player,
    primer: Path,
    out: Path,
    *,
    length: Length,
    last: Length | None,
    count: int,
    tempo: float,
    sampling: Sampling,
) -> dict:
    """`count` continuations of a MIDI file that share one prefill; each file holds the primer and what follows it.

    `last` takes only the primer's last part. Raises InputError when the primer is longer than the model sees.
    """
    _no_melody(player)
    tokens = read_tokens(player, primer, tempo, last)
    limit = player.window * 8 if player.codec.NAME == "chorale" else player.window
    if len(tokens) + 1 > limit:
        raise InputError(
            f"{primer}: holds {len(tokens):,} tokens and the model sees {limit:,}; take its last part by --last 20s"
        )
    if player.codec.NAME == "chorale":
        grammar = player.codec.Grammar(count, len(tokens) // 4 + length.steps(tempo))
    else:
        seconds = max((note.end for note in player.codec.decode(tokens)), default=0.0)
        grammar = player.codec.Grammar(count, seconds + length.seconds(tempo))
    grammar.prime(tokens)
    prompt = np.concatenate([[player.codec.BOS], tokens])
    pieces, likelihood = _sample(player, grammar, prompt, sampling)
    pieces = [np.concatenate([tokens, piece]) for piece in pieces]
    facts = {"verb": "continue", "primer": str(primer), "primer_tokens": len(tokens), "length": asdict(length)}
    return _write(player, out, "continuation", pieces, likelihood, tempo, sampling, facts)


def harmonise(
    player: Player,
    melody: Path,
    out: Path,
    *,
    keep: list[str],
    count: int,
    particles: int,
    tempo: float,
    sampling: Sampling,
) -> dict:
    """Fill the voices that are not kept. `particles` sequences grow together and the best `count` are written.

    The kept voices are forced token by token, and the particles are weighted by how likely the model finds them.
    """
    if player.codec.NAME != "chorale":
        raise InputError(f"{player.path}: is no chorale model; harmonise needs one trained with data.codec = chorale")
    voices = [voice.lower() for voice in player.codec.VOICES]
    unknown = [voice for voice in keep if voice not in voices]
    if unknown or not keep or len(set(keep)) == len(voices):
        raise InputError(f"--keep {' '.join(keep)}: name one to three of {', '.join(voices)}")
    grid = read_grid(melody)
    kept = np.full(grid.shape, -2)
    for voice in keep:
        column = voices.index(voice)
        kept[:, column] = grid[:, column]
        if (grid[:, column] < 0).all():
            raise InputError(
                f"{melody}: has no notes for the {voice}; give a file with that voice, or name another by --keep"
            )
    warnings = _out_of_range(player, grid, [voices.index(voice) for voice in keep])
    grammar = player.codec.Grammar(max(particles, count), len(grid), fixed=kept)
    pieces, likelihood = _sample(player, grammar, np.array([player.codec.BOS]), sampling, particles=len(voices))
    best = [i for i in np.argsort(-likelihood, kind="stable")]
    distinct = list({pieces[i].tobytes(): i for i in reversed(best)}.values())[::-1]
    chosen = [i for i in best if i in set(distinct)][:count]
    facts = {"verb": "harmonise", "melody": str(melody), "keep": keep, "particles": particles, "warnings": warnings}
    return _write(player, out, "harmonisation", [pieces[i] for i in chosen], likelihood[chosen], tempo, sampling, facts)


def accompany(player: Player, melody: Path, out: Path, *, count: int, tempo: float, sampling: Sampling) -> dict:
    """An accompaniment for a melody, as long as the melody; the MIDI holds both, each on its own track."""
    if not player.card["architecture"].get("source_vocab"):
        raise InputError(
            f"{player.path}: was not trained to accompany; train one with `manyheads music train --config accompany --data POP909`"
        )
    notes = read_notes(melody)
    tokens = player.codec.encode(notes)
    if len(tokens) > 4 * player.window:
        raise InputError(
            f"{melody}: holds {len(tokens):,} tokens, more than {4 * player.window:,}; give a shorter melody"
        )
    grammar = player.codec.Grammar(count, max(note.end for note in notes))
    pieces, likelihood = _sample(player, grammar, np.array([player.codec.BOS]), sampling, melody=tokens)
    beside = [track._replace(name="Melody") for track in tracks_of("performance", tokens, tempo)]
    facts = {"verb": "accompany", "melody": str(melody)}
    return _write(player, out, "accompaniment", pieces, likelihood, tempo, sampling, facts, more=beside)


def read_tokens(player: Player, path: Path, tempo: float, last: Length | None = None) -> np.ndarray:
    """A MIDI file in the model's codec, or its last part. Raises InputError as the MIDI reader does."""
    if player.codec.NAME == "chorale":
        grid = read_grid(path)
        # Whole beats, so that what is left keeps its place in the bar as far as it can.
        return player.codec.encode(grid if last is None else grid[-max(4, last.steps(tempo) // 4 * 4) :])
    notes = read_notes(path)
    if last is not None:
        begin = max(note.end for note in notes) - last.seconds(tempo)
        notes = [note._replace(start=note.start - begin, end=note.end - begin) for note in notes if note.start >= begin]
    return player.codec.encode(notes)


def _grammar(player: Player, length: Length, tempo: float, count: int):
    if player.codec.NAME == "chorale":
        return player.codec.Grammar(count, length.steps(tempo))
    return player.codec.Grammar(count, length.seconds(tempo))


def _sample(
    player: Player, grammar, prompt: np.ndarray, sampling: Sampling, **more
) -> tuple[list[np.ndarray], np.ndarray]:
    with progress() as bar:
        task = bar.add_task("tokens", total=getattr(grammar, "length", None))
        return sample(
            player.model,
            grammar,
            prompt,
            sampling,
            window=player.window,
            on_step=lambda done: bar.update(task, completed=done),
            **more,
        )


def _write(
    player: Player,
    out: Path,
    stem: str,
    pieces: list[np.ndarray],
    likelihood: np.ndarray,
    tempo: float,
    sampling: Sampling,
    facts: dict,
    more: list | None = None,
) -> dict:
    order = np.argsort(-likelihood, kind="stable")
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
        }
        files = write_outputs(out, name, player.codec.NAME, pieces[i], tempo, kept, more=more)
        rows.append({"name": name, "log_likelihood_per_token": value, "midi": files[0]})
    return {
        "out": str(out),
        "seed": sampling.seed,
        "pieces": rows,
        **({"warnings": facts["warnings"]} if facts.get("warnings") else {}),
    }


def _no_melody(player: Player) -> None:
    if player.card["architecture"].get("source_vocab"):
        raise InputError(f"{player.path}: accompanies a melody; use `manyheads music accompany MELODY.mid`")


def _out_of_range(player: Player, grid: np.ndarray, columns: list[int]) -> list[str]:
    warnings = []
    for column in columns:
        pitches = grid[:, column][grid[:, column] >= 0]
        low, high = player.codec.VOICE_RANGES[column]
        if pitches.min() < low or pitches.max() > high:
            warnings.append(
                f"the {player.codec.VOICES[column].lower()} goes from {pitches.min()} to {pitches.max()}, the model knows "
                f"{low} to {high} (MIDI pitches); transpose it for a better result"
            )
            print(f"note: {warnings[-1]}", file=sys.stderr)
    return warnings
