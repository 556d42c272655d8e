"""`explain`: what a model looks back at when it writes a note, as arcs over a piano roll."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from apps.music.codecs.chorale_tokens import STEPS_PER_BAR
from apps.music.codecs.performance import clock_of
from apps.music.codecs.performance_tokens import BIN_WIDTH, NOTE_OFF, SHIFT, STEPS_PER_SECOND, VELOCITY
from apps.music.decode import as_batch
from apps.music.figures import attention_arcs
from apps.music.midi import held_notes
from apps.music.notes import Note, pitch_name
from apps.music.outputs import Length
from apps.music.player import Player
from apps.music.predict import file_tempo, read_tokens
from shared.attention.record import record_attention
from shared.errors import InputError
from shared.io.files import output_folder, write_json

MOST_TOKENS = 2048  # whose attention is drawn; a map has a number for each two tokens and head


@torch.inference_mode()
def explain(
    player: Player,
    music: Path,
    out: Path,
    *,
    layer: int,
    at: float | None,
    span: float,
    strongest: int,
    last: Length | None,
) -> dict:
    """Attention of one layer, from the notes that begin in [at, at + span) seconds to all notes before them.

    Seconds count from the beginning of the part that is taken (`last`), at the file's tempo. A note looks through the
    token whose prediction it is; it is looked at through all tokens that are part of it, whose weights are added. `at`
    None means the last notes. `layer` counts from 1, -1 is the last. Writes attention.png, .svg and .json.
    Raises InputError for another kind of model, when the layer or the place does not exist, and for music of more than
    `MOST_TOKENS` tokens.
    """
    if player.accompanies:
        raise InputError(f"{player.path}: accompanies a melody; explain is for models that continue music")
    if player.card["architecture"].get("attention") == "local":
        raise InputError(f"{player.path}: attends inside blocks; explain is for models with global attention")
    tempo = file_tempo(music)
    tokens, _ = read_tokens(player, music, tempo, last)
    if len(tokens) > MOST_TOKENS:
        raise InputError(
            f"{music}: holds {len(tokens):,} tokens, more than {MOST_TOKENS:,}; take its last part by --last 30s"
        )
    layers = len(player.model.blocks)
    if not (1 <= layer <= layers or layer == -1):
        raise InputError(f"--layer {layer}: the model has the layers 1 to {layers}; -1 is the last")
    index = layers - 1 if layer == -1 else layer - 1
    notes, of_token = notes_of_tokens(player, tokens, tempo)
    begin = max(note.start for note in notes) if at is None else at
    asking = [i for i, note in enumerate(notes) if begin <= note.start < begin + span]
    if not asking:
        raise InputError(f"--at {begin:g}: no note begins between {begin:g} and {begin + span:g} seconds")
    output_folder(out)
    prompt = np.concatenate([[player.codec.BOS], tokens])
    attention = player.model.get_submodule(f"blocks.{index}.attention")
    with record_attention(attention) as maps:
        # Through a cache, so that it looks no further back than when it writes.
        device = next(player.model.parameters()).device
        player.model(as_batch(prompt, device), cache=player.model.new_cache(player.window))
    # (H, L, S), row i writes token i of the music
    weights = maps[""][0][0].float().cpu().numpy()
    bar_seconds = STEPS_PER_BAR * 15 / tempo if player.codec.NAME == "chorale" else None
    arcs, table = [], []
    for note in asking:
        row = int(np.flatnonzero(of_token == note)[0])
        for head in range(len(weights)):
            # Column j + 1 is token j of the music; column 0 is the start.
            by_note = np.zeros(len(notes))
            seen = weights[head, row, 1 : row + 1]
            np.add.at(by_note, of_token[:row][of_token[:row] >= 0], seen[of_token[:row] >= 0])
            for other in np.argsort(-by_note)[:strongest]:
                if by_note[other] > 0 and other != note:
                    arcs.append((note, int(other), float(by_note[other]), head))
                    table.append(
                        {
                            "head": head + 1,
                            "from": _named(notes[note], bar_seconds),
                            "to": _named(notes[other], bar_seconds),
                            "weight": round(float(by_note[other]), 4),
                        }
                    )
    files = [out / "attention.png", out / "attention.svg"]
    for path in files:
        title = f"What layer {index + 1} looks at: {music.name}"
        attention_arcs(path, notes, arcs, title, strongest=24, bar_seconds=bar_seconds)
    table.sort(key=lambda line: -line["weight"])
    facts = {
        "music": str(music),
        "last": last and asdict(last),
        "layer": index + 1,
        "at": begin,
        "span": span,
        "model": {"path": player.path.name, "sha256": player.card["sha256"]},
    }
    write_json(out / "attention.json", {**facts, "arcs": table})
    return {
        "layer": index + 1,
        "notes_asked": len(asking),
        "files": [str(path) for path in files],
        "strongest": table[:10],
    }


def notes_of_tokens(player: Player, tokens: np.ndarray, tempo: float) -> tuple[list[Note], np.ndarray]:
    """The notes of the music and (N,) for each token the note that it is part of, -1 for none.

    A 16th of a chorale lasts 15 / `tempo` seconds.
    """
    of_token = np.full(len(tokens), -1)
    notes: list[Note] = []
    if player.codec.NAME == "chorale":
        grid, seconds = player.codec.decode(tokens), 15 / tempo
        for voice in range(4):
            for start, length, pitch in held_notes(grid[:, voice]):
                if pitch >= 0:
                    of_token[start * 4 + voice : (start + length) * 4 : 4] = len(notes)
                    notes.append(Note(start * seconds, (start + length) * seconds, pitch, 80))
        return notes, of_token
    clock = clock_of(tokens) / STEPS_PER_SECOND
    open_notes: dict[int, int] = {}
    velocity = 64
    for i, token in enumerate(tokens.tolist()):
        if token >= VELOCITY:
            velocity = (token - VELOCITY) * BIN_WIDTH + BIN_WIDTH // 2
        elif token < NOTE_OFF:
            of_token[i] = open_notes[token] = len(notes)
            notes.append(Note(clock[i], clock[-1], token, velocity))
        elif token < SHIFT and token - NOTE_OFF in open_notes:
            note = of_token[i] = open_notes.pop(token - NOTE_OFF)
            notes[note] = notes[note]._replace(end=max(clock[i], notes[note].start + 0.01))
    return notes, of_token


def _named(note: Note, bar_seconds: float | None) -> str:
    bar = f" in bar {math.floor(note.start / bar_seconds + 1e-6) + 1}" if bar_seconds else ""
    return f"{pitch_name(note.pitch)}{bar} at {note.start:.2f} s"
