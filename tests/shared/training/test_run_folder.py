import os
import signal
from pathlib import Path

import pytest

from shared.config import Config
from shared.errors import InputError
from shared.training.run_folder import start_run


class Inner(Config):
    layers: int = 2
    window: int | None = None


class Train(Config):
    minutes: float | None = None


class Settings(Config):
    model: Inner = Inner()
    train: Train = Train()
    rate: float = 0.1


def test_a_new_folder_gets_its_configuration(tmp_path: Path) -> None:
    start_run(tmp_path / "run", Settings(), resume=False)
    assert "layers = 2" in (tmp_path / "run" / "config.toml").read_text()
    # Without results it is no run yet: another try may have other settings.
    start_run(tmp_path / "run", Settings(rate=0.2), resume=False)
    start_run(tmp_path / "run", Settings(rate=0.3), resume=True)
    assert "rate = 0.3" in (tmp_path / "run" / "config.toml").read_text()


def test_a_run_is_resumed_only_as_it_was(tmp_path: Path) -> None:
    start_run(tmp_path, Settings(), resume=False)
    (tmp_path / "last.ckpt").write_bytes(b"x")
    start_run(tmp_path, Settings(), resume=True)
    with pytest.raises(InputError, match="--resume"):
        start_run(tmp_path, Settings(), resume=False)
    with pytest.raises(InputError, match=r"config.toml: model.layers is 2 there, not 3"):
        start_run(tmp_path, Settings(model=Inner(layers=3)), resume=True)
    with pytest.raises(InputError, match=r"model.window is not set there, not 5"):
        start_run(tmp_path, Settings(model=Inner(window=5)), resume=True)


def test_a_run_is_gone_on_with_for_longer(tmp_path: Path) -> None:
    start_run(tmp_path, Settings(train=Train(minutes=5)), resume=False)
    (tmp_path / "last.ckpt").write_bytes(b"x")
    start_run(tmp_path, Settings(train=Train(minutes=50)), resume=True)
    start_run(tmp_path, Settings(), resume=True)


def test_a_run_is_resumed_only_with_its_data(tmp_path: Path) -> None:
    data = {"name": "songs", "sha256": "1", "valid": ("a", "b")}
    start_run(tmp_path, Settings(), False, data)
    start_run(tmp_path, Settings(), False, {**data, "sha256": "0"})  # there are no results yet
    start_run(tmp_path, Settings(), False, data)
    (tmp_path / "last.ckpt").write_bytes(b"x")
    start_run(tmp_path, Settings(), True, {**data, "name": "songs, moved"}, ("sha256", "valid"))
    with pytest.raises(InputError, match=r"data.json: the run began with other data \(songs, moved\)"):
        start_run(tmp_path, Settings(), True, {**data, "sha256": "2"})
    with pytest.raises(InputError, match=r"the run began with valid another than now"):
        start_run(tmp_path, Settings(), True, {**data, "valid": ["a"]}, ("sha256", "valid"))


def test_a_process_that_trains_beside_the_first_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    (tmp_path / "last.ckpt").write_bytes(b"x")
    start_run(tmp_path, Settings(), resume=False)
    assert not (tmp_path / "config.toml").exists()


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        start_run(tmp_path / "run", Settings(), resume=False)
        os.write(writing, b"started")
        signal.pause()
    assert os.read(reading, 7) == b"started"
    for resume in (False, True):
        with pytest.raises(InputError, match="run: another process trains in it now"):
            start_run(tmp_path / "run", Settings(), resume=resume)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    start_run(tmp_path / "run", Settings(), resume=True)
    start_run(tmp_path / "run", Settings(), resume=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.toml"]
