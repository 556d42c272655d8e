"""Spoiled input of every format that the apps read: one clear line, exit code 2, nothing lost, nothing executed."""

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.campaign.conftest import TINY
from tests.command_line import line_of_refusal, manyheads, sets, state_of

# What reads which sound file of the world: "{file}" is where the spoiled one goes, "{model}" the app's model.
READERS = {
    "music train": ("chorales", "music train --data {file}"),
    "music report": ("midi", "music report {file} --data {chorales}"),
    "music continue": ("midi", "music continue {file} --checkpoint {model} --length 2bars"),
    "music explain": ("midi", "music explain {file} --checkpoint {model}"),
    "music render": ("midi", "music render {file}"),
    "medical segment": ("scan", "medical segment {file} --checkpoint {model}"),
    "medical explain": ("scan", "medical explain {file} --checkpoint {model} --voxel 5,5,3"),
    "wsi tile": ("slide", "wsi tile {file}"),
    "wsi extract": ("slide", "wsi extract {file}"),
    "wsi practice": ("slide", "wsi practice {file}"),
    "wsi heatmap": ("slide", "wsi heatmap {file} --checkpoint {model} --features {bag}"),
    "wsi predict": ("bag", "wsi predict {file} --checkpoint {model}"),
    "wsi train": ("wsi-labels", "wsi train --data {wsi-data} --labels {file}"),
    "wsi cross-validate": ("wsi-labels", "wsi cross-validate --data {wsi-data} --labels {file}"),
    "video discover": ("video", "video discover {file} --method tokencut"),
    "video propagate": ("mask", "video propagate {video} --mask {file}"),
    "video propagate, the video": ("video", "video propagate {file} --mask {mask}"),
    "video explain": ("video", "video explain {file} --point 20,20"),
    "action detect npy": ("npy", "action detect {file} --checkpoint {model}"),
    "action detect npz": ("npz", "action detect {file} --checkpoint {model}"),
    "action detect csv": ("csv", "action detect {file} --checkpoint {model}"),
    "action detect video": ("video", "action detect {file} --checkpoint {model}"),
    "action extract": ("video", "action extract {file}"),
    "action explain": ("npy", "action explain {file} --checkpoint {model}"),
    "action stream": ("csv", "action stream {file} --checkpoint {model}"),
    "recommendation train csv": ("events", "recommendation train --data {file}"),
    "recommendation train inter": ("inter", "recommendation train --data {file}"),
    "recommendation recommend": ("events", "recommendation recommend --checkpoint {model} --data {file} --user u1"),
    **{f"{app} train, settings": ("config", f"{app} train --config {{file}}")
       for app in ("music", "medical", "wsi", "video", "action", "recommendation")},
}  # fmt: skip

# One file inside of a folder that is otherwise sound.
INSIDE = {
    "medical train": ("medical-data", "images/case3.nii.gz", "medical train --data {file}"),
    "medical train, labels": ("medical-data", "labels/case3.nii.gz", "medical train --data {file}"),
    "wsi train": ("wsi-data", "slide-03.h5", "wsi train --data {file} --labels {wsi-labels}"),
    "video train": ("video-data", "JPEGImages/*/00002.*", "video train --data {file}"),
    "video evaluate": ("video-data", "Annotations/*/00002.png", "video evaluate --data {file} --method tokencut"),
    "action train": ("action-data", "features/clip-3.npy", "action train --data {file}"),
    "action train, truth": ("action-data", "annotations.json", "action train --data {file}"),
}


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    """A third of the file; of a table, up to the middle of a row (at the end of one it would be a sound table)."""
    data = path.read_bytes()[: max(3, path.stat().st_size // 3)]
    if path.suffix in (".csv", ".inter"):
        data = data[: max(data.rfind(b","), data.rfind(b"\t")) + 1]
    path.write_bytes(data)


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(4096))


def zeros(path: Path) -> None:
    path.write_bytes(bytes(4096))


def prose(path: Path) -> None:
    path.write_text("It was a dark and stormy night; the rain fell in torrents.\n" * 20)


def an_archive(path: Path) -> None:
    """A zip with a member that would be written elsewhere."""
    path.unlink()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../evil", "evil")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


class Evil:
    """Unpickled, it makes a folder in the working folder."""

    def __reduce__(self) -> Any:
        return (Path.mkdir, (Path("executed"), 0o777, False, True))


def hostile(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil()))


SPOILS = [nothing, cut, noise, zeros, prose, an_archive, a_folder, hostile]


def words_of(line: str, app: str, world: dict[str, Path], models: dict[str, Path], file: Path) -> list[str]:
    names = {**world, "file": file, "model": models[app]}
    return [word.format_map(names) for word in line.split()]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("reader", READERS)
def test_a_spoiled_file(
    reader: str,
    spoil: Callable[[Path], None],
    world: dict[str, Path],
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, line = READERS[reader]
    file = tmp_path / "in" / world[kind].name
    file.parent.mkdir()
    shutil.copy(world[kind], file)
    spoil(file)
    before = state_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = manyheads(*words_of(line, reader.split()[0], world, models, file), "--json")
    line_of_refusal(done)
    assert file.name in done.err, done.err
    assert state_of(tmp_path) == before
    assert not Path("executed").exists()
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("reader", INSIDE)
def test_a_spoiled_file_among_sound_ones(
    reader: str,
    spoil: Callable[[Path], None],
    world: dict[str, Path],
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, inner, line = INSIDE[reader]
    folder = tmp_path / "in"
    shutil.copytree(world[kind], folder)
    (file, *_) = sorted(folder.glob(inner))
    spoil(file)
    before = state_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    app, verb = reader.split(",")[0].split()
    settings = sets(*TINY[app]) if verb == "train" else []
    done = manyheads(*words_of(line, app, world, models, folder), *settings, "--json")
    line_of_refusal(done)
    assert file.name in done.err or file.stem.split(".")[0] in done.err, done.err
    assert state_of(tmp_path) == before
    assert not Path("executed").exists()


# Every verb that takes a model, with what else it needs.
TAKERS = {
    "music evaluate": "music evaluate --data {chorales}",
    "music generate": "music generate --length 2bars",
    "music info": "music info",
    "music export": "music export",
    "medical evaluate": "medical evaluate --data {medical-data}",
    "medical segment": "medical segment {scan}",
    "medical explain": "medical explain {scan} --voxel 5,5,3",
    "medical info": "medical info",
    "medical export": "medical export",
    "wsi evaluate": "wsi evaluate --data {wsi-data} --labels {wsi-labels}",
    "wsi predict": "wsi predict {bag}",
    "wsi heatmap": "wsi heatmap {slide}",
    "wsi info": "wsi info",
    "wsi export": "wsi export",
    "video discover": "video discover {video} --method attention",
    "video info": "video info",
    "action evaluate": "action evaluate --data {action-data}",
    "action detect": "action detect {npy}",
    "action stream": "action stream {csv}",
    "action info": "action info",
    "recommendation evaluate": "recommendation evaluate --data {events}",
    "recommendation recommend": "recommendation recommend --data {events} --user u1",
    "recommendation similar": "recommendation similar i1",
    "recommendation info": "recommendation info",
    "recommendation export": "recommendation export",
}


def no_card(run: Path) -> None:
    (run / "model.json").unlink()


def card_of_another_app(run: Path) -> None:
    card = (run / "model.json").read_text()
    (run / "model.json").write_text(card.replace('"app": "', '"app": "other-', 1))


def card_without_architecture(run: Path) -> None:
    (run / "model.json").write_text('{"app": "x", "architecture": 3}')


def weights_of_another(run: Path) -> None:
    path = run / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def weights(spoil: Callable[[Path], None]) -> Callable[[Path], None]:
    def spoiled(run: Path) -> None:
        spoil(run / "model.safetensors")

    spoiled.__name__ = f"weights_{spoil.__name__}"
    return spoiled


MODEL_SPOILS = [
    *(no_card, card_of_another_app, card_without_architecture, weights_of_another),
    *(weights(spoil) for spoil in (nothing, cut, noise, hostile, an_archive)),
]


@pytest.mark.parametrize("spoil", MODEL_SPOILS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("taker", TAKERS)
def test_a_spoiled_model(
    taker: str,
    spoil: Callable[[Path], None],
    world: dict[str, Path],
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = taker.split()[0]
    run = tmp_path / "run"
    shutil.copytree(models[app], run)
    spoil(run)
    before = state_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    line = TAKERS[taker] + " --checkpoint {file}"
    done = manyheads(*words_of(line, app, world, models, run), "--json")
    line_of_refusal(done)
    assert state_of(tmp_path) == before
    assert not Path("executed").exists()


# Those that are quick when what is damaged can still be read.
QUICK = [
    *("music continue", "music explain", "medical segment", "wsi tile", "wsi predict", "action detect npy"),
    *("action detect npz", "action detect csv", "recommendation recommend"),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reader", QUICK)
def test_flipped_bytes(
    reader: str,
    seed: int,
    world: dict[str, Path],
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read as something else, or refused in one line: never a traceback, never a crash."""
    kind, line = READERS[reader]
    rng = np.random.default_rng(seed)
    data = bytearray(world[kind].read_bytes())
    for _ in range(int(rng.integers(1, 30))):
        data[int(rng.integers(min(len(data), 4000)))] = int(rng.integers(256))
    file = tmp_path / "in" / world[kind].name
    file.parent.mkdir()
    file.write_bytes(bytes(data))
    before = state_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = manyheads(*words_of(line, reader.split()[0], world, models, file), "--json")
    if done.code != 0:
        line_of_refusal(done)
        assert state_of(tmp_path) == before
