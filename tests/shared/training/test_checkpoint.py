import io
import pickle
from pathlib import Path

import pytest
import torch

from shared.errors import InputError
from shared.training.checkpoint import build_within, load_model, load_weights, save_model

CARD = {"app": "music", "architecture": {"dim": 3}, "data": {"name": "x"}, "metrics": {"nll": 0.5}}


def saved(folder: Path) -> Path:
    return save_model(folder, torch.nn.Linear(3, 2).state_dict(), CARD)


def test_round_trip_from_the_folder_and_from_the_file(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    weights = save_model(tmp_path, model.state_dict(), CARD)
    for path in (tmp_path, weights):
        state, card = load_model(path, "music")
        assert card["architecture"] == {"dim": 3}
        assert card["versions"]["torch"] == torch.__version__
        for name, value in model.state_dict().items():
            assert torch.equal(state[name], value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_another_name_and_tied_weights(tmp_path: Path) -> None:
    weight = torch.randn(2, 4).T  # not contiguous, and shared
    save_model(tmp_path, {"a": weight, "b": weight}, CARD, name="chorale")
    state, _ = load_model(tmp_path / "chorale.safetensors", "music")
    assert torch.equal(state["a"], weight)
    assert torch.equal(state["b"], weight)


def fault(path: Path, app: str = "music") -> str:
    with pytest.raises(InputError) as caught:
        load_model(path, app)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_and_unfinished(tmp_path: Path) -> None:
    assert "no such file" in fault(tmp_path / "none.safetensors")
    assert "no model.safetensors" in fault(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(b"x")
    assert "--resume" in fault(tmp_path)
    weights = saved(tmp_path)
    weights.with_suffix(".json").unlink()
    assert "card" in fault(weights)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_pickle_is_never_loaded(tmp_path: Path, name: str) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    saved(tmp_path)
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    for data in (pickle.dumps(Evil()), buffer.getvalue()):
        (tmp_path / name).write_bytes(data)
        assert "pickle" in fault(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_truncated_damaged_and_other(tmp_path: Path) -> None:
    weights = saved(tmp_path)
    data = weights.read_bytes()
    assert "wsi" in fault(weights, "wsi")
    for cut in (len(data) - 1, 40, 9):
        weights.write_bytes(data[:cut])
        assert "damaged" in fault(weights)
    weights.write_bytes(b"")
    assert "empty" in fault(weights)
    weights.write_bytes(b"MThd and no model at all")
    assert "no safetensors" in fault(weights)
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "sha256" in fault(weights)
    weights.with_suffix(".json").write_text("[]")
    assert "no model card" in fault(weights)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state, _ = load_model(saved(tmp_path), "music")
    load_weights(torch.nn.Linear(3, 2), state, tmp_path)
    with pytest.raises(InputError, match="do not fit"):
        load_weights(torch.nn.Linear(4, 2), state, tmp_path)


def test_a_model_larger_than_its_weights_is_not_built() -> None:
    state = torch.nn.Linear(300, 200).state_dict()
    assert build_within(lambda: torch.nn.Linear(300, 200), state).weight.shape == (200, 300)
    for vast in (
        lambda: torch.nn.Linear(10**6, 10**6),
        lambda: torch.nn.Embedding(10**12, 8),
        lambda: torch.nn.Parameter(torch.randn(10**6, 10**6)),
        lambda: torch.nn.Sequential(*(torch.nn.Linear(300, 200) for _ in range(10**9))),
    ):
        with pytest.raises(ValueError, match="larger model"):
            build_within(vast, state)
