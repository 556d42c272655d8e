"""The world of the fault campaign: for each app, sound inputs of every format that it reads, and a model."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import ROOT, manyheads, sets

DATA = ROOT / "data"


# Each app's settings of a model that trains in seconds, as arguments.
TINY = {
    "music": ["data.length=64", "model.dim=32", "model.attention_dim=32", "model.heads=2", "model.layers=1",
              "model.feed_forward=32", "model.max_distance=32", "train.steps=5", "train.epochs=2", "train.batch=4"],
    "medical": ["data.patch=[16,16]", "data.plane=axial", "model.base=4", "model.width=8", "train.steps=5",
                "train.epochs=2"],
    "wsi": ["model.width=8", "model.hidden=4", "model.branches=2", "model.fraction=0.3", "train.epochs=2",
            "train.batch=4"],
    "video": ["features.size=96", "train.steps=3", "train.epochs=2", "train.batch=1", "train.gap=1",
              "cluster.keys=3", "model.method=attention", "model.width=16"],
    "action": ["data.window=32", "model.dim=8", "model.layers=1", "model.longest=14", "model.bins=4",
               "model.matching=4", "model.proposal=4", "model.semantics=4", "train.epochs=2"],
    "recommendation": ["model.dim=8", "model.length=8", "train.batch=16", "train.epochs=2"],
}  # fmt: skip


def words_to_train(app: str, world: dict[str, Path], out: Path) -> list[object]:
    """The command of an app's short training on its data in the world."""
    labels = ["--labels", world["wsi-labels"]] if app == "wsi" else []
    return [app, "train", "--data", world[f"{app}-data"], *labels, "--out", out, *sets(*TINY[app]), "--device", "cpu"]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sound files by name; those whose name ends in `-data` are what `train --data` takes."""
    folder = tmp_path_factory.mktemp("world")
    made = {**_music(folder), **_scans(folder), **_slides(folder), **_videos(folder), **_recordings(folder)}
    made |= {**_shop(folder), "config": _config(folder)}
    return made


@pytest.fixture(scope="session")
def models(world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run folder of each app, trained on its data for two short epochs."""
    runs = {}
    for app in TINY:
        runs[app] = tmp_path_factory.mktemp("models") / app
        done = manyheads(*words_to_train(app, world, runs[app]), "--json")
        assert done.code == 0, done.err
    return runs


def _config(folder: Path) -> Path:
    path = folder / "settings.toml"
    path.write_text("[train]\nepochs = 1\n")
    return path


def _music(folder: Path) -> dict[str, Path]:
    import pretty_midi

    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(16):
        top = 72 + np.repeat(rng.integers(-5, 6, 16), 4)
        pieces.append(np.stack([top, top - 9, top - 16, top - 24], 1).tolist())
    chorales = folder / "chorales.json"
    chorales.write_text(json.dumps({"train": pieces[:10], "valid": pieces[10:13], "test": pieces[13:]}))
    midi = pretty_midi.PrettyMIDI(initial_tempo=100)
    for voice in range(4):
        part = pretty_midi.Instrument(0, name=("soprano", "alto", "tenor", "bass")[voice])
        for at, row in enumerate(pieces[0][::4]):
            part.notes.append(pretty_midi.Note(80, row[voice], 0.6 * at, 0.6 * at + 0.6))
        midi.instruments.append(part)
    midi.write(str(folder / "piece.mid"))
    return {"music-data": chorales, "chorales": chorales, "midi": folder / "piece.mid"}


def _scans(folder: Path) -> dict[str, Path]:
    import nibabel

    rng = np.random.default_rng(0)
    for index in range(8):
        labels = np.zeros((20, 20, 8), np.uint8)
        labels[4:10, 5:12, 2:6] = 1
        image = (rng.normal(0, 10, labels.shape) + 60 * labels).astype(np.float32)
        for kind, voxels in (("images", image), ("labels", labels)):
            path = folder / "scans" / kind / f"case{index}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    return {"medical-data": folder / "scans", "scan": folder / "scans" / "images" / "case0.nii.gz"}


def _slides(folder: Path) -> dict[str, Path]:
    import h5py

    rng = np.random.default_rng(0)
    features = folder / "features"
    features.mkdir()
    lines = ["slide,label,patient"]
    for index in range(20):
        size = int(rng.integers(4, 12))
        values = rng.normal(size=(size, 6)).astype(np.float32)
        values[: size // 2, :2] += 3 * (index % 2)
        with h5py.File(features / f"slide-{index:02d}.h5", "w") as file:
            file["features"] = values
            file["coords"] = np.stack([np.arange(size), np.zeros(size, int)], 1) * 128
            file["coords"].attrs.update({"patch_size_level0": 128, "mpp": 0.5})
        lines.append(f"slide-{index:02d},{'tumour' if index % 2 else 'normal'},patient-{index:02d}")
    labels = folder / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    return {
        "wsi-data": features,
        "wsi-labels": labels,
        "bag": features / "slide-00.h5",
        "slide": DATA / "CMU-1-Small-Region.svs",
    }


def _videos(folder: Path) -> dict[str, Path]:
    from PIL import Image

    done = manyheads("video", "synthesise", "--out", folder / "moving", "--clips", 3, "--frames", 6, "--objects", 2,
                     "--size", 96, "--seed", 1, "--json")  # fmt: skip
    assert done.code == 0, done.err
    mask = folder / "mask.png"
    with Image.open(sorted((folder / "moving").glob("Annotations/*/*.png"))[0]) as image:
        image.save(mask)
    return {"video-data": folder / "moving", "video": DATA / "bikes.mp4", "mask": mask}


def _recordings(folder: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    features = folder / "recordings" / "features"
    features.mkdir(parents=True)
    database = {}
    for index in range(10):
        values, annotations = rng.normal(0, 0.4, (60, 4)), []
        for at, label in ((5, 0), (20, 1), (40, 0)):
            values[at : at + 8, 2 * label : 2 * label + 2] += 2
            annotations.append({"segment": [at / 2, at / 2 + 4], "label": ("jump", "turn")[label]})
        np.save(features / f"clip-{index}.npy", values.astype(np.float32))
        database[f"clip-{index}"] = {"duration": 30, "annotations": annotations}
    truth = folder / "recordings" / "annotations.json"
    truth.write_text(json.dumps({"database": database}))
    values = np.load(features / "clip-0.npy")
    np.savez(folder / "features.npz", features=values)
    np.savetxt(folder / "features.csv", values, delimiter=",", header="a,b,c,d", comments="")
    return {
        "action-data": folder / "recordings",
        "npy": features / "clip-0.npy",
        "npz": folder / "features.npz",
        "csv": folder / "features.csv",
    }


def _shop(folder: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{(start + 2 * step) % 20}", 1000 * user + step)
            for user in range(60) for start in [int(rng.integers(20))] for step in range(7)]  # fmt: skip
    events = folder / "events.csv"
    events.write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    inter = folder / "events.inter"
    inter.write_text(
        "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in rows)
    )
    return {"recommendation-data": events, "events": events, "inter": inter}
