"""`evaluate`: how well a model predicts held-out music, and whether what it makes is shaped like it."""

from pathlib import Path

import numpy as np
import torch

from apps.music.config import DataConfig
from apps.music.corpora import Piece, read_corpus
from apps.music.data import counted, window_batches
from apps.music.decode import Sampling
from apps.music.histograms import distance, duration_histogram, pitch_class_histogram
from apps.music.notes import PITCH_CLASSES
from apps.music.outputs import Length
from apps.music.player import Player
from apps.music.predict import play, start_grammar
from apps.music.task import predict_batch, token_nll
from shared.command import progress
from shared.errors import InputError
from shared.evaluation.bootstrap import bootstrap_interval
from shared.io.files import output_folder, write_json


def evaluate(
    player: Player, data: Path | None, split: str, out: Path, *, samples: int, tempo: float, seed: int
) -> dict:
    """NLL a token of music (EOS not counted) on a split, with an interval over pieces; accuracy; histograms.

    `samples` pieces of 16 bars are generated for the histograms. Chorales: figures by voice too, beside the baseline
    that holds each voice's note. Other data than the model was trained on gets a note, since its splits may hold
    training pieces. Raises InputError for an empty split, and for data without melodies for a model that accompanies.
    """
    corpus = read_corpus(data, player.codec.NAME)
    pieces = corpus.splits[split]
    if not pieces:
        raise InputError(f"{corpus.name}: its {split} split is empty; choose another by --split")
    if player.accompanies and pieces[0].source is None:
        raise InputError(f"{corpus.name}: has no melodies to accompany; give data in the POP909 layout")
    output_folder(out)
    rows = score(player, pieces)
    nll = np.array([row["nll"].sum() for row in rows])
    tokens = np.array([len(row["nll"]) for row in rows])
    low, high = bootstrap_interval(nll / tokens, tokens, seed=seed)
    result = {
        "model": str(player.path),
        "data": {"name": corpus.name, "sha256": corpus.sha256, "split": split, "rule": corpus.split_rule},
        "pieces": len(pieces),
        "tokens": int(tokens.sum()),
        "nll_per_token": float(nll.sum() / tokens.sum()),
        "interval_95": [low, high],
        "accuracy": float(np.concatenate([row["correct"] for row in rows]).mean()),
        "skipped": [f"{name}: {reason}" for name, reason in corpus.skipped],
    }
    trained_on = player.card.get("data") or {}
    if trained_on.get("sha256") != corpus.sha256:
        result["note"] = (
            f"the model was trained on other data ({trained_on.get('name', 'not named in its card')}): "
            "pieces of this split may be among what it has learned"
        )
    if player.codec.NAME == "chorale":
        result["voices"] = by_voice(player, rows, pieces)
    if samples:
        result["histograms"] = compare_histograms(player, pieces, samples, tempo, seed, out)
    write_json(out / "evaluation.json", result)
    return {**result, "written": str(out / "evaluation.json")}


@torch.inference_mode()
def score(player: Player, pieces: list[Piece]) -> list[dict[str, np.ndarray]]:
    """For each piece the NLL (N,) of every token in nats and whether the likeliest token was right (N,), in order."""
    config = DataConfig(codec=player.codec.NAME, length=player.window, accompany=player.accompanies)
    device = next(player.model.parameters()).device
    parts: list[list[tuple[int, np.ndarray, np.ndarray]]] = [[] for _ in pieces]
    with progress() as bar:
        for batch in bar.track(window_batches(pieces, config), description="pieces"):
            batch = {name: value.to(device) for name, value in batch.items()}
            logits = predict_batch(player.model, batch)
            nll = token_nll(logits, batch).cpu().numpy()
            targets = batch["tokens"][:, 1:]
            correct = (logits.argmax(-1) == targets).cpu().numpy()
            music = counted(batch, player.codec).cpu().numpy()
            for i, piece in enumerate(batch["piece"].tolist()):
                parts[piece].append((int(batch["start"][i]), nll[i][music[i]], correct[i][music[i]]))
    rows = []
    for windows_of_piece in parts:
        ordered = sorted(windows_of_piece, key=lambda part: part[0])
        rows.append({name: np.concatenate([part[k] for part in ordered]) for k, name in ((1, "nll"), (2, "correct"))})
    return rows


def by_voice(player: Player, rows: list[dict[str, np.ndarray]], pieces: list[Piece]) -> list[dict]:
    """NLL and accuracy of each voice, and the accuracy of holding its note."""
    table = []
    for voice, name in enumerate(player.codec.VOICES):
        held = np.concatenate([hold(piece.variants[0][voice::4]) for piece in pieces])
        table.append(
            {
                "voice": name,
                "nll_per_token": float(np.concatenate([row["nll"][voice::4] for row in rows]).mean()),
                "accuracy": float(np.concatenate([row["correct"][voice::4] for row in rows]).mean()),
                "accuracy_holding": float(held.mean()),
            }
        )
    return table


def hold(line: np.ndarray) -> np.ndarray:
    """(T,) whether each step repeats the one before; the first counts as wrong."""
    return np.concatenate([[False], line[1:] == line[:-1]])


def compare_histograms(player: Player, pieces: list[Piece], samples: int, tempo: float, seed: int, out: Path) -> dict:
    """Pitch classes and durations of generated music beside the data's, whose own halves give the distance to expect.

    A distance is None where nothing was generated but silence. {} for a model that accompanies.
    """
    from apps.music.figures import histogram_pair

    if player.accompanies:
        return {}
    grammar, _ = start_grammar(player, Length(16, "bars"), tempo, samples)
    drawn, _ = play(player, grammar, np.array([player.codec.BOS]), Sampling(seed=seed))
    made = [player.codec.decode(tokens) for tokens in drawn]
    real = [player.codec.decode(piece.variants[0]) for piece in pieces]
    halves = real[::2], real[1::2] or real
    result = {}
    for name, histogram in (
        ("pitch_class", lambda music: (PITCH_CLASSES, pitch_class_histogram(music))),
        ("duration", duration_histogram),
    ):
        labels, of_data = histogram(real)
        of_made = histogram(made)[1]
        path = out / f"{name}_histogram.png"
        histogram_pair(
            path, of_data, of_made, labels, f"{name.replace('_', ' ')}: {samples} generated against the data"
        )
        result[name] = {
            "distance": _distance(of_data, of_made),
            "distance_between_halves_of_the_data": _distance(*(histogram(half)[1] for half in halves)),
            "figure": str(path),
        }
    return result


def _distance(p: np.ndarray, q: np.ndarray) -> float | None:
    return distance(p, q) if p.any() and q.any() else None
