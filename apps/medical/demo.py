"""`manyheads demo medical`: the embedded CT through every verb, and the shipped model's card."""

from collections.abc import Callable
from pathlib import Path

from apps.medical.cases import EMBEDDED
from apps.medical.config import CONFIGS, MedicalConfig
from apps.medical.evaluate import evaluate
from apps.medical.explain import explain
from apps.medical.inspect import inspect
from apps.medical.predict import segment
from apps.medical.train import train
from apps.medical.volumes import read_labels
from shared.config import load_config
from shared.report.page import Section
from shared.training.trainer import Hardware


def run(out: Path, progress: Callable[[str], None]) -> Section:
    """Inspect, train, evaluate, segment and explain on one CT; some two minutes on two CPU cores."""
    config = load_config(MedicalConfig, CONFIGS / "demo.toml")
    progress("inspects the embedded CT")
    doctor = inspect(config, None, out / "inspection")
    progress("trains on slabs of it")
    trained = train(config, None, out / "run", seed=0, resume=False, hardware=Hardware(device="cpu"))
    progress("evaluates on slabs that it has not seen")
    measured = evaluate(out / "run", None, "test", out / "evaluation", tta=False, seed=0, device="cpu")
    progress("segments the whole CT and explains a voxel")
    ct = EMBEDDED / "images" / "abdomen.nii.gz"
    segmented = segment([ct], out / "run", out / "segmented", tta=False, dicom_seg=False, device="cpu")
    explain(ct, out / "run", out / "explained", voxel=None, device="cpu")
    steps = config.train.steps * config.train.epochs
    unseen = [row["dice"] for row in measured["organs"] if row.get("dice") is not None]
    labelled = read_labels(EMBEDDED / "labels" / "abdomen.nii.gz", config.data.remap)
    found = segmented["organs"]
    text = (
        f"The doctor found {doctor['errors']} errors and {doctor['warnings']} warnings. A small guided model was "
        f"trained for {steps} steps on slabs of one CT and then segmented the whole of it, on its own grid; on two "
        f"slabs that it had not seen its mean Dice is {sum(unseen) / max(1, len(unseen)):.2f}, as one scan is too "
        "little to learn from. Everything comes from one patient, and its labels are those of a model: this shows the "
        "pipeline and says nothing of accuracy. Accuracy, beside MONAI's networks, is in the results of the docs."
    )
    table = [
        {"organ": row["organ"], "labelled, ml": round(labelled.voxel_ml * int((labelled.voxels == number).sum())),
         "found, ml": round(row["volume_ml"])}
        for number, row in enumerate(found, 1)
    ]  # fmt: skip
    return Section(
        "Medical: organs by guided attention",
        text,
        figures=[out / "segmented" / "abdomen.png", out / "explained" / "explanation.png", Path(trained["figure"])],
        table=table,
        code="uv run manyheads medical inspect --data MY_SCANS\n"
        "uv run manyheads medical train --data MY_SCANS --out runs/mine\n"
        "uv run manyheads medical segment SCAN.nii.gz --checkpoint runs/mine",
        links=[out / "segmented" / "abdomen_seg.nii.gz", out / "evaluation" / "evaluation.html"],
    )
