"""Small music that tests train on, all of our own making, and the command line as tests use it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.command_line import Done, Manyheads, sets

SCALE = np.array([0, 2, 4, 5, 7, 9, 11])


def chorale(seed: int, beats: int = 16) -> np.ndarray:
    """Triads that move by step in quarters, in one of three keys: (4 beats, 4) pitches. Easy enough to be learned
    in a minute."""
    rng = np.random.default_rng(seed)
    degree, key, rows = int(rng.integers(7)), int(rng.integers(3)), []
    for _ in range(beats):
        degree = (degree + int(rng.choice([-1, 1]))) % 7
        pitches = [60 + key + SCALE[(degree + step) % 7] for step in (4, 2, 0)]
        rows += [[pitches[0] + 5, pitches[1] - 3, pitches[2] - 10, pitches[2] - 20]] * 4
    return np.clip(np.array(rows), [60, 52, 46, 36], [81, 76, 72, 69])


@pytest.fixture(scope="session")
def chorales_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chorales") / "tiny.json"
    splits = {"train": range(40), "valid": range(100, 110), "test": range(200, 210)}
    path.write_text(json.dumps({name: [chorale(seed).tolist() for seed in seeds] for name, seeds in splits.items()}))
    return path


TINY = [
    "data.length=64",
    "model.dim=32",
    "model.attention_dim=32",
    "model.heads=2",
    "model.layers=2",
    "model.feed_forward=64",
    "model.max_distance=32",
    "train.steps=30",
    "train.batch=8",
    "train.warmup=5",
    "train.ema=0.9",
]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Settings of a model that trains in seconds."""
    return TINY


@pytest.fixture(scope="session")
def tiny_run(chorales_json: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a chorale model trained for some seconds."""
    from apps.music.config import MusicConfig
    from apps.music.train import train
    from shared.config import load_config
    from shared.training.trainer import Hardware

    out = tmp_path_factory.mktemp("runs") / "tiny"
    config = load_config(MusicConfig, None, [*TINY, "train.epochs=3", 'model.relations=["time", "pitch"]'])
    train(config, chorales_json, out, seed=0, resume=False, hardware=Hardware(device="cpu"))
    return out


@pytest.fixture(scope="session")
def make_chorale() -> Callable[..., np.ndarray]:
    """make_chorale(seed, beats=16): see `chorale`."""
    return chorale


@pytest.fixture(scope="session")
def make_tune() -> Callable[..., list[Any]]:
    """make_tune(seed, count=40): see `tune`."""
    return tune


def tune(seed: int, count: int = 40) -> list[Any]:
    """Notes that wander up and down a scale in quarters of a second, over a bass note each second."""
    from apps.music.notes import Note

    rng = np.random.default_rng(seed)
    degree, key, notes = int(rng.integers(7, 14)), int(rng.integers(3)), []
    for index in range(count):
        degree = int(np.clip(degree + rng.choice([-1, 1]), 0, 20))
        pitch = 60 + key + int(SCALE[degree % 7]) + 12 * (degree // 7 - 1)
        notes.append(Note(0.25 * index, 0.25 * index + 0.2, pitch, 62 + 4 * int(rng.integers(8))))
        if index % 4 == 0:
            notes.append(Note(0.25 * index, 0.25 * index + 0.9, 36 + key + int(SCALE[degree % 7]), 50))
    return notes


@pytest.fixture(scope="session")
def midi_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen piano tunes, some in a folder below, with two files that cannot be used among them."""
    from apps.music.midi import Track, write_midi

    folder = tmp_path_factory.mktemp("tunes")
    for seed in range(13):
        write_midi(folder / ("more" if seed % 3 else ".") / f"tune{seed}.mid", [Track("Piano", 0, False, tune(seed))])
    (folder / "cut.mid").write_bytes((folder / "tune0.mid").read_bytes()[:100])
    (folder / "letter.midi").write_text("Dear Sir or Madam")
    return folder


@pytest.fixture(scope="session")
def pop909(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve songs in the layout of POP909: the melody plays what the piano plays, an octave higher."""
    from apps.music.midi import Track, write_midi

    folder = tmp_path_factory.mktemp("songs")
    for number in range(1, 13):
        notes = tune(100 + number, 24)
        tracks = {
            "MELODY": [note._replace(pitch=note.pitch + 12) for note in notes if note.pitch >= 55],
            "BRIDGE": notes[:3],
            "PIANO": notes,
        }
        name = f"{number:03d}"
        song = [Track(track, 0, False, played) for track, played in tracks.items()]
        write_midi(folder / "POP909" / name / f"{name}.mid", song)
    return folder


PIANO = ("data.codec=performance", "data.length=256", "model.max_distance=64", "train.epochs=1", "train.steps=8")


@pytest.fixture(scope="session")
def piano_training(manyheads: Manyheads, midi_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """`train` on the folder of piano tunes; its result names the run folder's model."""
    out = tmp_path_factory.mktemp("runs") / "piano"
    settings = sets(*TINY, *PIANO)
    return manyheads("music", "train", "--data", midi_folder, "--out", out, *settings, "--device", "cpu", "--json")


@pytest.fixture(scope="session")
def piano_run(piano_training: Done) -> Path:
    """A run folder with a performance model that has hardly learned anything."""
    return Path(piano_training.json()["model"]).parent


@pytest.fixture(scope="session")
def accompany_run(manyheads: Manyheads, pop909: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a model that accompanies melodies, as badly."""
    out = tmp_path_factory.mktemp("runs") / "accompany"
    settings = sets(*TINY, *PIANO, "data.accompany=true", "model.source_layers=1")
    done = manyheads("music", "train", "--data", pop909, "--out", out, *settings, "--device", "cpu", "--json")
    return Path(done.json()["model"]).parent
