"""Everything that is shipped is listed with its licence and origin, and is what the list says."""

import json
from pathlib import Path

from shared.io.files import sha256
from shared.training.checkpoint import load_model

DATA = Path(__file__).resolve().parents[2] / "data"


def test_the_manifest_lists_every_file_as_it_is() -> None:
    listed = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))
    files = {
        path.relative_to(DATA).as_posix()
        for path in DATA.rglob("*")
        if path.is_file() and path.name not in ("manifest.json", "README.md", "datasets.toml")
    }
    assert files == set(listed)
    for name, entry in listed.items():
        assert sha256(DATA / name) == entry["sha256"], name
        assert entry["licence"]
        assert entry["origin"]


def test_the_shipped_weights_load_and_say_what_they_are() -> None:
    for weights in (DATA / "weights").glob("*.safetensors"):
        card = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        state, _ = load_model(weights, card["app"])
        assert sum(tensor.numel() for tensor in state.values()) > 100_000
        assert weights.stat().st_size < 12_000_000
        assert card["metrics"]
        assert card["data"]["sha256"]
