import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InputError
from shared.io import files


def test_replacing_keeps_the_old_file_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def half() -> None:
        with files.replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_replacing_yields_the_same_suffix_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "figure.svg"
    with files.replacing(path) as partial:
        assert partial.suffix == ".svg"
        assert partial.parent == path.parent
        partial.write_text("<svg/>")
    assert path.read_text() == "<svg/>"


def test_replacing_refuses_a_folder_and_a_device(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(InputError, match="ordinary file"), files.replacing(path):
            pass
    assert Path("/dev/null").is_char_device()


def test_a_killed_write_leaves_the_old_file_and_the_rest_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")
    code = (
        "import os, sys; from pathlib import Path; from shared.io.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as partial:\n"
        "    partial.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=root).returncode == -9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    with files.replacing(tmp_path / "other.bin") as being_written:
        being_written.write_bytes(b"x")
        files._looked_into.clear()
        files.write_bytes(tmp_path / "b.bin", b"new")
        assert {p.name for p in tmp_path.iterdir()} == {"a.bin", "b.bin", being_written.name}


def test_to_json_is_strict(tmp_path: Path) -> None:
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": float("nan"), "d": Path("x"), 1: (True, None)}
    assert json.loads(files.to_json(value)) == {"a": 0.5, "b": [0, 1], "c": None, "d": "x", "1": [True, None]}
    with pytest.raises(TypeError, match="object"):
        files.to_json(object())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "v.json"
    files.write_json(path, value)
    assert files.read_json(path) == value


@pytest.mark.parametrize(
    ("content", "match"), [(b"", "empty"), (b"{", "line 1"), (b"\xff\xfe\x00", "not text"), (None, "no such file")]
)
def test_read_json_names_the_fault(tmp_path: Path, content: bytes | None, match: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=match) as caught:
        files.read_json(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_folders_and_files_in_the_wrong_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="folder to write to"):
            files.output_folder(path)
    with pytest.raises(InputError, match="is a folder"):
        files.input_file(tmp_path)
    assert files.output_folder(tmp_path / "new" / "er").is_dir()


@pytest.mark.parametrize("error", [InputError("wrong"), OSError(28, "No space"), KeyboardInterrupt()])
def test_work_that_fails_leaves_no_empty_folder(error: BaseException, tmp_path: Path) -> None:
    """Those that were there stay, and so do those with something in them."""
    (tmp_path / "mine").mkdir()

    def work() -> None:
        for name in ("mine", "a/b/c", "kept/empty", "kept/full"):
            files.output_folder(tmp_path / name)
        files.write_text(tmp_path / "kept" / "full" / "file", "x")
        raise error

    with pytest.raises(type(error)), files.leaving_no_empty_folder():
        work()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        *("kept", "kept/full", "kept/full/file", "mine"),
    ]


def test_work_that_is_done_keeps_its_folders(tmp_path: Path) -> None:
    with files.leaving_no_empty_folder():
        files.output_folder(tmp_path / "a")
    with pytest.raises(InputError), files.leaving_no_empty_folder():
        raise InputError("of the next command")
    assert (tmp_path / "a").is_dir()
