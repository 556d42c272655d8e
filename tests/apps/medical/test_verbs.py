"""The verbs from end to end on small scans: what is written, and that it can be used."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from apps.medical.cases import find_cases
from apps.medical.config import DataConfig
from apps.medical.data import input_channels, moved, read_case
from apps.medical.evaluate import compared
from apps.medical.segmenter import check_tta, load, probabilities, segment_slices
from shared.errors import InputError
from tests.apps.medical.conftest import scan, write


def test_a_tiny_training_beats_chance(manyheads, balls: Path, tiny_run: Path, tmp_path: Path) -> None:
    result = manyheads(
        "medical", "evaluate", "--checkpoint", tiny_run, "--data", balls, "--out", tmp_path, "--json"
    ).json()
    assert result["mean_dice"] > 0.5
    assert result["data"]["cases"] == 2
    assert "note" not in result
    assert {"hd95_mm", "msd_voxels", "volumetric_similarity"} <= result["organs"][0].keys()
    assert (tmp_path / "evaluation.csv").read_text().count("\n") == 1 + 2 * 2
    split = json.loads((tiny_run / "data.json").read_text())["cases"]
    assert not set(split["train"]) & set(split["test"])


@pytest.mark.parametrize("turned", [False, True])
def test_segment_writes_the_input_s_own_grid(turned: bool, manyheads, tiny_run: Path, tmp_path: Path) -> None:
    image, truth = scan(50)
    affine = np.eye(4)
    if turned:  # the same scan, its axes permuted and flipped
        image, truth = (array.transpose(2, 0, 1)[::-1].copy() for array in (image, truth))
        affine = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 11], [0, 0, 0, 1]], dtype=float)
    path = write(tmp_path / "scan.nii.gz", image, affine)
    out = tmp_path / "out"
    result = manyheads("medical", "segment", path, "--checkpoint", tiny_run, "--out", out, "--tta", "--json").json()
    back = nibabel.load(out / "scan_seg.nii.gz")
    assert back.shape == image.shape
    assert np.allclose(back.affine, affine)
    assert back.get_data_dtype() == np.uint8
    found = np.asarray(back.dataobj)
    assert 2 * ((found > 0) & (truth > 0)).sum() / ((found > 0).sum() + (truth > 0).sum()) > 0.5
    assert result["organs"][0]["volume_ml"] == pytest.approx(float((found == 1).sum()) / 1000)
    assert all((out / name).exists() for name in ("scan.png", "volumes.csv", "segmentation.json", "report.html"))


def test_explain_tells_where_a_voxel_looks(manyheads, balls: Path, tiny_run: Path, tmp_path: Path) -> None:
    image = balls / "images" / "case00.nii.gz"
    arguments = ("explain", image, "--checkpoint", tiny_run, "--voxel", "6,12,6", "--out", tmp_path, "--json")
    result = manyheads("medical", *arguments).json()
    assert len(result["attention"]) == 4
    assert len(result["gammas"]) == 16
    assert (tmp_path / "explanation.png").exists()


def test_folds_are_an_ensemble_and_half_precision_serves(
    manyheads, balls: Path, tiny_run: Path, tmp_path: Path
) -> None:
    folds = tmp_path / "folds"
    for fold in range(2):
        manyheads("medical", "export", "--checkpoint", tiny_run, "--out", folds / f"fold-{fold}", "--json").json()
    assert len(load(folds, "cpu").models) == 2
    done = manyheads(
        "medical", "segment", balls / "images" / "case00.nii.gz", "--checkpoint", folds, "--out", tmp_path / "out"
    )
    assert done.code == 0, done.err


def test_a_stopped_run_goes_on_to_the_same_result(
    manyheads, balls: Path, tiny: list[str], tiny_run: Path, tmp_path: Path
):
    arguments = ("train", "--data", balls, "--out", tmp_path / "run", "--device", "cpu", *tiny)
    assert manyheads("medical", *arguments, "--set", "train.minutes=0.0001").code == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    assert manyheads("medical", *arguments, "--resume").code == 0
    whole, resumed = (json.loads((run / "model.json").read_text()) for run in (tiny_run, tmp_path / "run"))
    assert whole["sha256"] == resumed["sha256"]


def test_medusa_learns_what_a_slice_shows(manyheads, balls: Path, medusa_run: Path, tmp_path: Path) -> None:
    metrics = json.loads((medusa_run / "model.json").read_text())["metrics"]
    assert metrics["test_balanced_accuracy"] > 0.5
    image = balls / "images" / "case00.nii.gz"
    said = manyheads(
        "medical", "classify", image, "--checkpoint", medusa_run, "--out", tmp_path / "out", "--json"
    ).json()
    assert said["scans"][0]["class"] in ("1", "2")
    assert (tmp_path / "out" / "case00_medusa.png").exists()


def two_channels(balls: Path, folder: Path) -> Path:
    """The scans of `balls` with a second channel, the first one's negative, in nnU-Net's layout."""
    for image in sorted((balls / "images").iterdir()):
        name, volume = image.name.removesuffix(".nii.gz"), nibabel.load(image)
        voxels = np.asarray(volume.dataobj)
        write(folder / "imagesTr" / f"{name}_0000.nii.gz", voxels, volume.affine)
        write(folder / "imagesTr" / f"{name}_0001.nii.gz", -voxels, volume.affine)
        (folder / "labelsTr").mkdir(exist_ok=True)
        (folder / "labelsTr" / image.name).write_bytes((balls / "labels" / image.name).read_bytes())
    return folder


def test_a_model_of_two_channels_serves_every_verb(manyheads, balls: Path, tiny: list[str], tmp_path: Path) -> None:
    data, run = two_channels(balls, tmp_path / "data"), tmp_path / "run"
    short = ("--set", "train.steps=20", "--set", "train.epochs=1", "--device", "cpu")
    assert manyheads("medical", "train", "--data", data, "--out", run, *tiny, *short).code == 0
    second = data / "imagesTr" / "case00_0001.nii.gz"
    common = ("--checkpoint", run, "--out", tmp_path / "out")
    said = manyheads("medical", "segment", second, *common, "--json").json()
    assert {row["case"] for row in said["organs"]} == {"case00"}
    assert manyheads("medical", "evaluate", "--data", data, *common).code == 0
    assert manyheads("medical", "explain", second, *common).code == 0
    refused = ("--checkpoint", run, "--out", tmp_path / "none")
    assert "name their files" in manyheads("medical", "segment", balls / "images" / "case00.nii.gz", *refused).err
    assert "holds 10 scans" in manyheads("medical", "explain", data / "imagesTr", *refused).err
    second.unlink()
    assert "case00_0001.nii.gz: is missing" in manyheads("medical", "segment", data / "imagesTr", *refused).err
    assert not (tmp_path / "none").exists()


def test_compare_trains_alike_and_keeps_what_is_trained(
    manyheads, balls: Path, tiny: list[str], tmp_path: Path
) -> None:
    arguments = ("compare", "--data", balls, "--out", tmp_path, "--entry", "no-attention", "--entry", "unet", *tiny)
    short = ("--set", "train.steps=3", "--set", "train.epochs=1", "--device", "cpu", "--json")
    first = manyheads("medical", *arguments, *short).json()
    assert [row["entry"] for row in first["entries"]] == ["no-attention", "unet"]
    weights = tmp_path / "unet-seed0" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert manyheads("medical", *arguments, *short).json()["entries"] == first["entries"]
    assert weights.stat().st_mtime_ns == before


def test_a_tar_and_nnunet_s_layout_are_read(manyheads, balls: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for image in (balls / "images").iterdir():
        name = image.name.removesuffix(".nii.gz")
        (folder / "imagesTr" / f"{name}_0000.nii.gz").write_bytes(image.read_bytes())
        (folder / "labelsTr" / image.name).write_bytes((balls / "labels" / image.name).read_bytes())
    described = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "left": 1, "right": 2}}
    (folder / "dataset.json").write_text(json.dumps(described))
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        archive.add(folder, "Dataset001")
    result = manyheads(
        "medical", "inspect", "--data", tmp_path / "data.tar", "--out", tmp_path / "out", "--json"
    ).json()
    assert [row["name"] for row in result["labels"]] == ["background", "left", "right"]


def test_absent_organs_follow_the_rule(balls: Path) -> None:
    config = DataConfig(patch=(16, 16))
    one = read_case(find_cases(balls, config)[0][0], config)
    nothing = np.zeros_like(one.truth)
    missed = compared(one, nothing, one.truth, ["a", "b"])[0]
    assert missed["present"] == "truth only"
    assert missed["dice"] == 0
    assert missed["hd95_mm"] == pytest.approx(np.linalg.norm(one.grid.shape))
    assert compared(one, nothing, nothing, ["a"])[0]["dice"] is None
    perfect = compared(one, one.truth, one.truth, ["a", "b"])[1]
    assert (perfect["dice"], perfect["hd95_mm"], perfect["msd_mm"]) == (1, 0, 0)


def test_tta_mirrors_as_training_did(balls: Path, tiny_run: Path) -> None:
    segmenter = load(tiny_run, "cpu")
    x = torch.randn(1, input_channels(1, segmenter.config), 16, 24)
    with torch.inference_mode():
        turned = x.flip(3)
        turned[:, -1] *= -1  # the place of a voxel in the mirrored volume
        plain, mirrored = (probabilities(segmenter, part, False) for part in (x, turned))
        torch.testing.assert_close(probabilities(segmenter, x, True), (plain + mirrored.flip(4)) / 2)
    never = replace(segmenter, config=segmenter.config.model_copy(update={"flip": ()}))
    with pytest.raises(InputError, match="trained without mirrored slices"):
        check_tta(never, True)


def test_a_mirrored_crop_is_told_its_place_in_the_mirrored_volume(balls: Path) -> None:
    config = DataConfig(patch=(20, 24), place=True, rotate=0, scale=0, intensity=0, flip=("rows", "columns"))
    one = read_case(find_cases(balls, config)[0][0], config)
    x = torch.from_numpy(one.stack(np.array([5]), config))
    y = torch.from_numpy(one.labels[[5]]).long()
    draws = np.array([[0.5, 0.5, 0.5, 0.5, 0.0, 0.0]])  # the last two: mirrored along rows and columns
    turned, labels = moved(x.clone(), y, draws, config, 3)
    torch.testing.assert_close(turned[:, :-3], x[:, :-3].flip(2, 3), atol=1e-4, rtol=0)
    assert torch.equal(labels, y.flip(1, 2))
    torch.testing.assert_close(turned[:, -3:], x[:, -3:], atol=1e-4, rtol=0)


def test_what_is_segmented_is_what_was_validated(balls: Path, tiny_run: Path) -> None:
    """The model's own logits decide, not the mean of its heads' probabilities: without deep supervision only their sum
    was trained."""
    segmenter = load(tiny_run, "cpu")
    model = segmenter.models[0]
    with torch.no_grad():
        model.refined_heads[0].bias[:16] += 40.0  # one head is sure of the background, against three
    config = segmenter.config
    one = read_case(find_cases(balls, config)[0][0], config)
    with torch.inference_mode():
        logits = model(torch.from_numpy(one.stack(np.arange(len(one.images)), config)))
    found = one.grid.cut(segment_slices(segmenter, one).labels)
    rows, columns = one.grid.size
    assert np.array_equal(found, logits.argmax(1)[:, :rows, :columns].numpy())
