"""From slide files to features, a model, predictions and a heat map, through the command line."""

import csv
import json
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from apps.wsi.overlay import paint
from apps.wsi.practice import ink, write_slide
from apps.wsi.slide import open_slide
from tests.apps.wsi.conftest import SVS, write_features
from tests.command_line import Manyheads, in_another_process, sets

TILING = ("--tile", 128, "--tissue", 0.3)
BRANCHES = 3


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    """Ten pieces of the real slide of 400 x 272 pixels, every second with ink on it; labels.csv beside them."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "slides").mkdir()
    whole = open_slide(SVS)
    rng = np.random.default_rng(0)
    lines = ["slide,label,split"]
    for index in range(10):
        at = (900 + 20 * (index // 2), 2050 + 60 * (index // 2))  # all tissue
        piece = np.asarray(whole.handle.read_region(at, 0, (400, 272)).convert("RGB"))
        if index % 2:
            piece, _ = ink(piece, rng, (200, 136))
        write_slide(folder / "slides" / f"s{index}.tif", piece, whole.mpp)
        lines.append(f"s{index},{'inked' if index % 2 else 'clean'},{'valid' if index >= 6 else 'train'}")
    whole.close()
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def run(manyheads: Manyheads, slides: Path) -> Path:
    """A run folder, from `extract` and `train` as a user calls them."""
    features = ("--data", slides / "features", "--labels", slides / "labels.csv")
    model = sets(f"model.branches={BRANCHES}", "model.width=16", "model.hidden=8", "model.fraction=0.3")
    settings = [*model, *sets("train.epochs=15", "train.batch=4", "train.learning_rate=0.01")]
    for words in (
        ("extract", slides / "slides", "--out", slides / "features", *TILING, "--batch", 8, "--device", "cpu"),
        ("train", *features, "--out", slides / "run", "--device", "cpu", *settings),
    ):
        assert manyheads("wsi", *words).code == 0
    return slides / "run"


def test_slides_that_were_not_trained_on_are_told_apart(wsi, slides: Path, run: Path, tmp_path: Path) -> None:
    code, found = wsi("predict", slides / "slides", "--checkpoint", run, "--out", tmp_path, "--json")
    assert code == 0
    rows = {row["slide"]: row for row in found["predictions"]}
    assert [rows[f"s{index}"]["prediction"] for index in range(6, 10)] == ["clean", "inked"] * 2
    for row in rows.values():
        assert row["p clean"] + row["p inked"] == pytest.approx(1, abs=1e-4)
    with (tmp_path / "predictions.csv").open() as file:
        assert {row["slide"]: row["prediction"] for row in csv.DictReader(file)} == {
            name: row["prediction"] for name, row in rows.items()
        }
    # A slide is encoded as the training slides were: its features give the same.
    code, again = wsi("predict", slides / "features" / "features_efficientnet-lite0", "--checkpoint", run, "--json")
    for row in again["predictions"]:
        assert row["p inked"] == pytest.approx(rows[row["slide"]]["p inked"], abs=1e-4)


class Colours(torch.nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1) * self.scale


def test_slides_are_predicted_by_an_encoder_of_ones_own(wsi, slides: Path, tmp_path: Path) -> None:
    own, other = tmp_path / "own.pt", tmp_path / "other" / "own.pt"
    other.parent.mkdir()
    torch.jit.script(Colours(1.0)).save(str(own))
    torch.jit.script(Colours(2.0)).save(str(other))
    extract = ("extract", slides / "slides", "--out", tmp_path / "features", *TILING, "--device", "cpu")
    assert wsi(*extract, "--encoder", own, "--json")[0] == 0
    code, line = wsi(*extract, "--encoder", other, "--resume")
    assert code == 2
    assert "the file of the encoder was another there" in line
    data = ("--data", tmp_path / "features", "--labels", slides / "labels.csv", "--device", "cpu")
    sets = ("--set", "model.width=8", "--set", "model.hidden=4", "--set", "train.epochs=2")
    assert wsi("train", *data, "--out", tmp_path / "run", *sets, "--json")[0] == 0
    predict = ("predict", slides / "slides" / "s7.tif", "--checkpoint", tmp_path / "run", "--out", tmp_path / "p")
    code, line = wsi(*predict)
    assert code == 2
    assert "was trained on features of own; give that encoder as --encoder" in line
    code, line = wsi(*predict, "--encoder", other)
    assert code == 2
    assert "is not own, of which the features were" in line
    code, found = wsi(*predict, "--encoder", own, "--json")
    assert code == 0
    kept = ("predict", tmp_path / "features" / "features_own" / "s7.h5", *predict[2:])
    assert wsi(*kept, "--json")[1]["predictions"][0]["p inked"] == pytest.approx(
        found["predictions"][0]["p inked"], abs=1e-4
    )
    heatmap = ("heatmap", slides / "slides" / "s7.tif", "--checkpoint", tmp_path / "run", "--out", tmp_path / "h")
    assert wsi(*heatmap, "--encoder", own, "--json")[0] == 0


def test_the_files_of_a_heat_map(wsi, slides: Path, run: Path, tmp_path: Path) -> None:
    path = slides / "slides" / "s7.tif"
    code, found = wsi("heatmap", path, "--checkpoint", run, "--out", tmp_path, "--top", 4, "--json")
    assert code == 0
    folder = tmp_path / "s7"
    assert sorted(file.name for file in folder.iterdir()) == [
        *("attention.geojson", "branches.png", "heatmap.json", "heatmap.png", "top_tiles.png", "viewer.html"),
    ]
    for file in folder.glob("*.png"):
        with Image.open(file) as image:
            assert min(image.size) > 150
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    figures = json.loads((folder / "heatmap.json").read_text())
    attention, coords = np.array(figures["attention"]), np.array(figures["coords"])
    assert attention.shape == (BRANCHES, found["tiles"])
    np.testing.assert_allclose(attention.sum(1), 1, atol=1e-5)
    with h5py.File(slides / "features" / "features_efficientnet-lite0" / "s7.h5") as file:
        np.testing.assert_array_equal(coords, file["coords"][()])
    page = (folder / "viewer.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "src=" not in page.replace("cell.image.src = cell.d", "")  # nothing is fetched
    assert "http" not in page


def test_the_geojson_has_qupaths_fields(wsi, slides: Path, run: Path, tmp_path: Path) -> None:
    """QuPath 0.4 to 0.6: objectType, classification {name, color}, measurements by name; closed rings at level 0."""
    wsi("heatmap", slides / "slides" / "s7.tif", "--checkpoint", run, "--out", tmp_path, "--json")
    collection = json.loads((tmp_path / "s7" / "attention.geojson").read_text())
    figures = json.loads((tmp_path / "s7" / "heatmap.json").read_text())
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == figures["tiles"]
    assert len({feature["id"] for feature in collection["features"]}) == figures["tiles"]
    names = {"attention", "attention x mean", *(f"attention branch {m + 1}" for m in range(BRANCHES))}
    for index, feature in enumerate(collection["features"]):
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert len(ring) == 5
        xs, ys = zip(*ring, strict=True)
        area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring)) / 2
        assert area == pytest.approx(figures["side"] ** 2, rel=1e-6)  # a square, its ring in one turn
        assert [min(xs), min(ys)] == figures["coords"][index]
        assert max(xs) <= 400
        assert max(ys) <= 272
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        assert properties["classification"]["name"]
        assert len(properties["classification"]["color"]) == 3
        assert all(0 <= part <= 255 for part in properties["classification"]["color"])
        assert properties["measurements"].keys() == names
        assert all(isinstance(value, float) for value in properties["measurements"].values())
        column = [one[index] for one in figures["attention"]]
        assert properties["measurements"]["attention"] == pytest.approx(np.mean(column), abs=1e-7)


def test_tiles_are_painted_where_they_lie() -> None:
    values = np.zeros(12)
    values[7] = 1  # at 300, 100
    coords = np.array([[x * 100, y * 100] for y in range(3) for x in range(4)], float)
    painted = paint(np.full((150, 200, 3), 128, np.uint8), coords, 100.0, values, scale=0.5)
    ys, xs = np.nonzero((painted != painted[0, 0]).any(-1))
    assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (150, 200, 50, 100)


def test_the_strongest_tile_is_the_one_that_lies_there(wsi, tmp_path: Path, trained: Path) -> None:
    """A slide with one green tile, and features of which those of that tile stand out as the model has learned."""
    image = np.full((700, 800, 3), (200, 120, 170), np.uint8)
    image[256:384, 384:512] = (0, 160, 0)
    write_slide(tmp_path / "s.tif", image, 0.5)
    features = np.zeros((20, 12), np.float32)
    features[11, :3] = 6
    write_features(tmp_path / "s.h5", features)  # a grid of four columns and five rows of 128 pixels
    words = ("heatmap", tmp_path / "s.tif", "--features", tmp_path / "s.h5", "--checkpoint", trained)
    ring = [[390, 260], [505, 260], [505, 380], [390, 380], [390, 260]]
    annotation = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    (tmp_path / "drawn.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [annotation]}))
    drawn = ("--annotations", tmp_path / "drawn.geojson")
    code, found = wsi(*words, *drawn, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert (found["annotated_tiles"], found["instance_auroc"], found["coverage"]) == (1, 1, 1)
    assert found["prediction"] == "tumour"
    objects = json.loads((tmp_path / "out" / "s" / "attention.geojson").read_text())["features"]
    strongest = max(objects, key=lambda one: one["properties"]["measurements"]["attention"])
    assert strongest["geometry"]["coordinates"][0][0] == [384, 256]
    with Image.open(tmp_path / "out" / "s" / "top_tiles.png") as sheet:
        first, second = (np.asarray(sheet.convert("RGB"))[20:150, left : left + 130] for left in (20, 190))
    np.testing.assert_array_equal(first, np.broadcast_to((0, 160, 0), first.shape))
    assert (second[..., 0] > 150).all()
    for text in (
        "[]",
        "[1]",
        '{"type": "FeatureCollection"}',
        json.dumps({**annotation, "geometry": {"type": "Point"}}),
    ):
        (tmp_path / "drawn.geojson").write_text(text)
        code, line = wsi(*words, *drawn, "--out", tmp_path / "other")
        assert code == 2
        assert "export" in line
        assert "from QuPath as GeoJSON" in line
    assert not (tmp_path / "other").exists()


def test_coords_of_another_slide_and_none_at_all(wsi, tmp_path: Path, trained: Path, small_slide: Path) -> None:
    def refused(path: Path) -> str:
        words = ("heatmap", small_slide, "--features", path, "--checkpoint", trained, "--out", tmp_path / "out")
        code, line = wsi(*words)
        assert code == 2
        assert not (tmp_path / "out").exists()
        return line

    write_features(tmp_path / "far.h5", np.zeros((100, 12), np.float32), side=256)
    assert "they belong to another slide, or are not of level 0" in refused(tmp_path / "far.h5")
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["features"] = np.zeros((5, 12), np.float32)
    assert "has no coords; a heat map needs them" in refused(tmp_path / "none.h5")


def test_one_slide_that_fails_does_not_keep_the_others_from_being_predicted(
    wsi, slides: Path, run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "s1.tif").write_bytes((slides / "slides" / "s1.tif").read_bytes())
    (folder / "s2.tif").write_bytes(b"no slide")
    code, found = wsi("predict", folder, "--checkpoint", run, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert [row["slide"] for row in found["predictions"]] == ["s1"]
    assert "s2.tif: is no slide that can be read" in found["failed"][0]
    (folder / "s1.tif").unlink()
    code, line = wsi("predict", folder, "--checkpoint", run, "--out", tmp_path / "nothing")
    assert code == 1
    assert "no slide could be read; the first:" in line
    assert not (tmp_path / "nothing").exists()


def test_explain_says_how_attention_lies(wsi, slides: Path, run: Path, tmp_path: Path) -> None:
    store = slides / "features" / "features_efficientnet-lite0"
    code, found = wsi("explain", store, "--checkpoint", run, "--out", tmp_path, "--json")
    assert code == 0
    assert len(found["slides"]) == 10
    for row in found["slides"]:
        assert 1 <= row["effective_tiles"] <= row["tiles"] + 1e-6
        assert 0 <= row["overlap"] <= 1 + 1e-6
        assert 0 < row["top10_mass"] <= 1 + 1e-6
    assert (tmp_path / "explanation.png").stat().st_size > 5000


def test_evaluate_and_compare(wsi, bags_folder: Path, trained: Path, tmp_path: Path) -> None:
    data = ("--data", bags_folder / "features", "--labels", bags_folder / "labels.csv", "--split", "test")
    code, found = wsi("evaluate", "--checkpoint", trained, *data, "--out", tmp_path / "evaluation", "--json")
    assert code == 0
    assert found["data"]["bags"] == 10
    assert found["auroc"] > 0.9  # of a class that stands out by three deviations; chance is 0.5
    low, high = found["accuracy_95"]
    assert low <= found["accuracy"] <= high
    code, both = wsi("compare", trained, trained, *data, "--out", tmp_path / "comparison", "--json")
    assert code == 0
    assert both["models"][1]["accuracy_difference"] == 0
    assert both["models"][1]["accuracy_p"] == 1


def test_a_killed_extraction_goes_on_where_it_was(slides: Path, run: Path, tmp_path: Path, wsi) -> None:
    words = ["extract", slides / "slides", "--out", tmp_path, *TILING, "--batch", 1, "--device", "cpu"]
    process = subprocess.Popen(in_another_process("wsi", *words), stdout=subprocess.DEVNULL)
    store, limit = tmp_path / "features_efficientnet-lite0", time.monotonic() + 120
    while len(list(store.glob("s*.h5"))) < 2 and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in store.glob("s*.h5")}
    assert 2 <= len(done) < 10
    code, line = wsi(*words)
    assert code == 2
    assert "go on with it by --resume" in line
    code, line = wsi(*words, "--overlap", 8, "--resume")
    assert code == 2
    assert "tiling was another there" in line
    code, found = wsi(*words, "--resume", "--json")
    assert code == 0
    assert [row["slide"] for row in found["slides"] if row.get("done_before")] == sorted(name[:2] for name in done)
    assert {path.name: path.stat().st_mtime_ns for path in store.glob("*.h5") if path.name in done} == done
    assert sorted(path.name for path in store.iterdir()) == [f"s{index}.h5" for index in range(10)]
    for path in store.iterdir():
        with h5py.File(path) as mine, h5py.File(slides / "features" / store.name / path.name) as whole:
            np.testing.assert_allclose(mine["features"][()], whole["features"][()], atol=1e-4, rtol=1e-4)
