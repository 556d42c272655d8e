"""Names in archives, tables and JSON that lead out of the folder: nothing is read or written there."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaign.conftest import TINY
from tests.command_line import line_of_refusal, manyheads, sets, state_of

OUTSIDE = ("../../evil", "/tmp/manyheads-evil")


def archive(path: Path, member: str, content: bytes) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        entry = tarfile.TarInfo(member)
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    return path


def scans(folder: Path, world: dict[str, Path], outside: str) -> list[object]:
    return ["medical", "inspect", "--data", archive(folder / "scans.tar", f"{outside}.nii.gz", b"x" * 400)]


def songs(folder: Path, world: dict[str, Path], outside: str) -> list[object]:
    data = world["midi"].read_bytes()
    return ["music", "train", "--data", archive(folder / "songs.tar.gz", f"{outside}.mid", data)]


def recordings(folder: Path, world: dict[str, Path], outside: str) -> list[object]:
    shutil.copytree(world["action-data"], folder / "recordings")
    truth = folder / "recordings" / "annotations.json"
    found = json.loads(truth.read_text())
    found["database"][outside] = found["database"].pop("clip-0")
    truth.write_text(json.dumps(found))
    return ["action", "train", "--data", folder / "recordings"]


def labels(folder: Path, world: dict[str, Path], outside: str) -> list[object]:
    table = folder / "labels.csv"
    table.write_text(world["wsi-labels"].read_text().replace("slide-00", outside))
    (folder / "features").mkdir()
    for file in sorted(world["wsi-data"].glob("*.h5"))[1:]:
        shutil.copy(file, folder / "features")
    shutil.copy(world["bag"], folder / "evil.h5")
    return ["wsi", "train", "--data", folder / "features", "--labels", table]


def sequences(folder: Path, world: dict[str, Path], outside: str) -> list[object]:
    shutil.copytree(world["video-data"], folder / "moving")
    listed = folder / "moving" / "ImageSets" / "2017" / "train.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text(f"{outside}\nclip-001\n")
    return ["video", "train", "--data", folder / "moving", "--split", "train"]


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("make", [scans, songs, recordings, labels, sequences], ids=lambda make: make.__name__)
def test_a_name_that_leads_elsewhere(
    make: Callable,
    outside: str,
    world: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    words = make(here, world, outside)
    before = state_of(tmp_path)
    done = manyheads(*words, *(sets(*TINY[str(words[0])]) if "train" in words else []), "--json")
    if make is labels:  # a slide without features is left out, whatever it is called
        assert done.code == 0, done
    else:
        line_of_refusal(done)
    assert {name: what for name, what in state_of(tmp_path).items() if not name.startswith("a/b/runs")} == before
    assert not list(Path("/tmp").glob("manyheads-evil*"))
