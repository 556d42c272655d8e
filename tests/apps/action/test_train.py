"""Windows, splits and runs: what is cut where, what is selected, and that a killed run goes on to the same result."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from apps.action.config import ActionConfig, DataConfig
from apps.action.corpora import load_corpus
from apps.action.data import Windows, truth
from apps.action.detector import detections_of, load, maps_of
from apps.action.model import BoundaryMatchingNetwork
from apps.action.recordings import Recording, Segment
from apps.action.train import train
from apps.action.windows import cut, fit_scaling, squeezed, window_starts
from shared.config import load_config
from shared.errors import InputError
from shared.training.trainer import Hardware

CPU = Hardware(device="cpu")


@given(length=st.integers(1, 300), window=st.integers(4, 64), shift=st.integers(0, 31))
def test_windows_cover_every_snippet(length: int, window: int, shift: int) -> None:
    stride = max(1, window // 2)
    starts = window_starts(length, window, stride, shift % stride)
    covered = np.zeros(length, bool)
    for start in starts:
        assert 0 <= start <= max(0, length - window)
        covered[start : start + window] = True
    assert covered.all()


def test_a_short_recording_is_padded_and_a_cut_segment_is_no_target() -> None:
    segments = (Segment(1, 5, "a"), Segment(5, 7, "b"))
    recording = Recording("r", np.ones((10, 3), np.float32), 1.0, segments)
    item = cut(recording, 0, 16, False)
    assert item["keep"].sum() == 10
    assert item["x"][10:].sum() == 0
    targets = truth(recording, 0, DataConfig(window=8), 8, ["a", "b"])
    assert targets["overlap"][3, 1] == 1
    assert targets["overlap"][1, 5] == 1
    half = truth(recording, 3, DataConfig(window=8), 8, ["a", "b"])  # begins in the middle of the first segment
    assert half["overlap"][1, 0] < 0.5
    assert half["overlap"][1, 2] == 1
    assert half["classes"][0].tolist() == [1, 0, 0]  # but its snippets are what they are


def test_squeezing_keeps_a_line_a_line() -> None:
    line = np.arange(20, dtype=np.float32)[:, None]
    np.testing.assert_allclose(squeezed(line, 10)[:, 0], np.arange(10) * 2 + 0.5)
    np.testing.assert_allclose(squeezed(line, 40)[2:38, 0], (np.arange(40) / 2 - 0.25)[2:38])


def test_a_channel_that_never_changes_is_left_alone() -> None:
    scaling = fit_scaling([np.array([[1.0, 5], [3, 5]])])
    np.testing.assert_allclose(scaling(np.array([[1.0, 5], [3, 6]])), [[-1, 0], [1, 1]])


@pytest.mark.parametrize("attention", ["none", "se", "csa", "se+csa"])
def test_the_network_serves_any_length_and_padding_changes_nothing(attention: str) -> None:
    torch.manual_seed(0)
    sizes = {"dim": 8, "layers": 2, "longest": 6, "bins": 4, "matching": 4, "proposal": 4, "semantics": 4}
    model = BoundaryMatchingNetwork(5, 2, attention=attention, **sizes).eval()  # pyright: ignore
    for snippets in (1, 3, 6, 40):
        out = model(torch.randn(2, snippets, 5))
        assert out["classification"].shape == (2, min(6, snippets), snippets)
        assert out["classes"].shape == (2, snippets, 3)
    x = torch.randn(1, 20, 5)
    x[:, 12:] = 0
    keep = torch.arange(20)[None] < 12
    padded = model(x, keep=keep)
    x[:, 12:] = 9
    again = model(x, keep=keep)
    for name in ("start", "end", "classes"):
        torch.testing.assert_close(padded[name][:, :12], again[name][:, :12])
    bare = BoundaryMatchingNetwork(5, 2, proposals=False, **sizes)
    assert set(bare(x)) == {"classes"}


def test_a_killed_run_goes_on_to_the_same_weights(clips: Path, tiny: list[str], tmp_path: Path) -> None:
    short, whole = (
        load_config(ActionConfig, None, [*tiny, f"train.{limit}"]) for limit in ("minutes=1e-9", "epochs=2")
    )
    short = whole.model_copy(update={"train": whole.train.model_copy(update={"minutes": 1e-9})})
    first = train(short, clips, tmp_path / "a", seed=3, resume=False, hardware=CPU)
    assert not first["finished"]
    second = train(whole, clips, tmp_path / "a", seed=3, resume=True, hardware=CPU)
    assert second["epochs"] == 2
    train(whole, clips, tmp_path / "b", seed=3, resume=False, hardware=CPU)
    a, b = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(InputError, match="--resume"):
        train(whole, clips, tmp_path / "a", seed=3, resume=False, hardware=CPU)


def test_the_last_epoch_can_be_taken_and_classes_absent_in_training_are_survived(
    clips: Path, tiny: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    (folder / "features").mkdir(parents=True)
    database = json.loads((clips / "annotations.json").read_text())["database"]
    for name in database:
        (folder / "features" / f"{name}.npy").write_bytes((clips / "features" / f"{name}.npy").read_bytes())
        # Folds go by name: the first is tested, the second would be validated.
        database[name]["annotations"] = (
            [{"segment": [1, 4], "label": "rare"}] if name == "clip-00" else database[name]["annotations"]
        )
    database["clip-03"]["annotations"] = []
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    config = load_config(ActionConfig, None, [*tiny, "train.epochs=1", "train.select=last", "data.whole=true"])
    result = train(config, folder, tmp_path / "run", seed=0, resume=False, hardware=CPU)
    assert "valid_loss" not in result
    detector = load(tmp_path / "run", "cpu")
    assert "rare" in detector.labels
    recording = load_corpus(folder, DataConfig()).recordings[0]
    maps = maps_of(detector, recording)
    assert len(maps.classes) == len(recording.features)
    assert all(0 <= d.start < d.end <= recording.duration + 1e-6 for d in detections_of(detector, recording, maps))


def test_windows_of_an_epoch_move_and_repeat(clips: Path) -> None:
    recordings = load_corpus(clips, DataConfig()).recordings
    config = DataConfig(window=32)
    first, again, moved = (Windows(recordings, config, 14, ["jump"], shift) for shift in (5, 5, 9))
    assert first.places == again.places != moved.places
