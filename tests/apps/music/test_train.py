"""Training for real, on music small enough to learn in seconds."""

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from apps.music.codecs import chorale
from apps.music.config import DataConfig, MusicConfig
from apps.music.corpora import load_corpus
from apps.music.data import Crops, MusicData, Windows, aligned_source, clock_of, collate, counted
from apps.music.predict import load
from apps.music.train import train
from shared.config import load_config
from shared.errors import InputError
from shared.training.trainer import Hardware
from tests.command_line import in_another_process, sets

ROOT = Path(__file__).resolve().parents[3]


def test_it_learns_more_than_the_frequencies_of_pitches(tiny_run: Path, chorales_json: Path) -> None:
    """The strongest guess without order is each voice's own pitch frequencies; training must beat it by far."""
    corpus = load_corpus(chorales_json, "chorale")
    counts = np.ones((4, 129))
    for piece in corpus.splits["train"]:
        np.add.at(counts, (np.arange(len(piece.variants[0])) % 4, piece.variants[0]), 1)
    frequency = counts / counts.sum(1, keepdims=True)
    held_out = np.concatenate([piece.variants[0].reshape(-1, 4) for piece in corpus.splits["valid"]])
    unigram = -np.log(frequency[np.arange(4), held_out]).mean()
    card = json.loads((tiny_run / "model.json").read_text())
    assert card["metrics"]["valid_nll"] < 0.8 * unigram
    assert card["data"]["pieces"] == {"train": 40, "valid": 10, "test": 10}
    assert load(tiny_run).window == 64
    assert (tiny_run / "learning_curve.png").stat().st_size > 5000


def command(tiny: list[str], data: Path, out: Path, *more: str) -> list[str]:
    settings = sets(*tiny, "train.epochs=4", "model.dropout=0.2")
    words = ("music", "train", "--data", data, "--out", out, "--device", "cpu", "--json", *settings, *more)
    return in_another_process(*words)


def test_a_killed_run_resumes_to_the_same_weights(tiny: list[str], chorales_json: Path, tmp_path: Path) -> None:
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    subprocess.run(command(tiny, chorales_json, unbroken), cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen(command(tiny, chorales_json, killed), cwd=ROOT, stdout=subprocess.DEVNULL)
    metrics = killed / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = subprocess.run(
        command(tiny, chorales_json, killed, "--resume"), cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert json.loads(again.stdout)["epochs"] == 4
    one = safetensors.torch.load_file(unbroken / "model.safetensors")
    other = safetensors.torch.load_file(killed / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (unbroken, killed)
    ]
    assert rows[0] == rows[1]


def test_other_settings_cannot_resume_and_nothing_is_overwritten(
    tiny: list[str], tiny_run: Path, chorales_json: Path
) -> None:
    before = (tiny_run / "model.safetensors").read_bytes()
    config = load_config(MusicConfig, None, [*tiny, "train.epochs=3", "model.layers=3"])
    for resume in (True, False):
        with pytest.raises(InputError, match=r"layers|--resume"):
            train(config, chorales_json, tiny_run, seed=0, resume=resume, hardware=Hardware(device="cpu"))
    assert (tiny_run / "model.safetensors").read_bytes() == before


def test_crops_are_a_function_of_seed_epoch_and_index(chorales_json: Path) -> None:
    pieces = load_corpus(chorales_json, "chorale").splits["train"]
    config = DataConfig(length=32)
    first, again = (Crops(pieces, config, 50, seed=1, epoch=2) for _ in range(2))
    other = Crops(pieces, config, 50, seed=1, epoch=3)
    assert all(torch.equal(first[i]["tokens"], again[i]["tokens"]) for i in range(50))
    assert not all(torch.equal(first[i]["tokens"], other[i]["tokens"]) for i in range(50))
    starts = np.array([int(first[i]["start"]) for i in range(50)])
    assert (starts % 4 == 0).all()  # a crop begins with a soprano
    assert (starts == 0).any()
    assert (starts > 0).any()


def test_windows_count_every_token_once(chorales_json: Path) -> None:
    pieces = load_corpus(chorales_json, "chorale").splits["valid"]
    windows = Windows(pieces, DataConfig(length=50))
    for number, piece in enumerate(pieces):
        mine = [w for w in map(windows.__getitem__, range(len(windows))) if int(w["piece"]) == number]
        mine.sort(key=lambda w: int(w["start"]))
        joined = np.concatenate([w["tokens"][1:][int(w["skip"]) :] for w in mine])
        assert np.array_equal(joined[:-1], piece.variants[0])  # and the last is EOS
        batch = collate(mine, pad=chorale.PAD)
        assert int(counted(batch, chorale).sum()) == len(piece.variants[0])
        assert all(int(w["skip"]) >= 25 or int(w["start"]) == 0 for w in mine)


def test_the_melody_beside_a_crop_is_the_one_that_sounds_then() -> None:
    beat = [256 + 49]  # half a second
    whole = np.array([389, *[60, *beat, 188] * 20, 390])  # BOS, twenty notes of half a second, EOS
    source = np.array([72, *beat, 200] * 20)
    start = int(np.flatnonzero(clock_of(whole) >= 500)[0])
    crop = aligned_source(whole, start, 12, source)
    assert crop["clock"][0] in (0, 50)
    assert crop["source_clock"].min() >= -250
    assert crop["source_clock"].max() <= crop["clock"].max() + 250
    # The same absolute time has the same clock on both sides.
    absolute = clock_of(whole)[start] - crop["clock"][0]
    assert set((crop["source_clock"] + absolute) % 50) == {0}


def test_batches_pad_and_say_so() -> None:
    items = [{"tokens": torch.arange(n), "source": torch.arange(n), "start": torch.tensor(n)} for n in (3, 5)]
    batch = collate(items, pad=9)
    assert batch["tokens"].tolist() == [[0, 1, 2, 9, 9], [0, 1, 2, 3, 4]]
    assert batch["source_keep"].tolist() == [[True, True, True, False, False], [True] * 5]
    assert batch["start"].tolist() == [3, 5]


def test_too_few_pieces_and_no_melodies_are_named(chorales_json: Path) -> None:
    corpus = load_corpus(chorales_json, "chorale")
    corpus.splits["valid"] = []
    with pytest.raises(InputError, match="valid split is empty"):
        MusicData(corpus, DataConfig(), batch=2, steps=1, seed=0)
