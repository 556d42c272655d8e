"""`manyheads medical ...`: the command line of organ segmentation. It parses; the work lies in the other rooms."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from shared import command
from shared.errors import InputError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def medical() -> None:
    """Guided attention for scans: inspect, train, segment, evaluate, explain; MEDUSA to classify."""


def _settings(config: Path | None, sets: list[str] | None):
    from apps.medical.config import CONFIGS, MedicalConfig
    from shared.config import find_config, load_config

    return load_config(MedicalConfig, find_config(config, CONFIGS), sets or [])


Scans = Annotated[
    list[Path], typer.Argument(metavar="SCAN...", help="NIfTI files, folders of them, or folders of a DICOM series.")
]
Tta = Annotated[bool, typer.Option("--tta", help="Average over slices mirrored as in training.")]


@app.command()
def inspect(
    data: command.DataOption = None,
    out: command.OutOption = Path("runs/medical-inspection"),
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    as_json: command.JsonOption = False,
) -> None:
    """Find what is wrong with a folder of scans before anything trains on it."""
    settings = _settings(config, sets)
    from apps.medical.inspect import inspect as work

    result = work(settings, data, out)
    command.emit(result, as_json)
    if result["errors"]:
        first = next(one for one in result["findings"] if one["level"] == "error")
        more = f" (and {result['errors'] - 1} more errors)" if result["errors"] > 1 else ""
        raise InputError(f"{first['file']}: {first['what']}{more}")


@app.command()
def train(
    data: command.DataOption = None,
    out: command.OutOption = Path("runs/medical"),
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    seed: command.SeedOption = 0,
    resume: command.ResumeOption = False,
    device: command.DeviceOption = "auto",
    devices: command.DevicesOption = "auto",
    num_nodes: command.NumNodesOption = 1,
    strategy: command.StrategyOption = "auto",
    precision: command.PrecisionOption = "32-true",
    as_json: command.JsonOption = False,
) -> None:
    """Train on a folder of scans with label maps (or classes, for MEDUSA)."""
    settings = _settings(config, sets)
    from apps.medical.train import train as work
    from shared.training.trainer import Hardware

    hardware = Hardware(device, devices, num_nodes, strategy, precision)
    command.emit(work(settings, data, out, seed=seed, resume=resume, hardware=hardware), as_json)


@app.command()
def evaluate(
    checkpoint: command.CheckpointOption = None,
    data: command.DataOption = None,
    split: Annotated[Literal["train", "valid", "test"], typer.Option("--split", help="Which cases.")] = "test",
    tta: Tta = False,
    out: command.OutOption = Path("runs/medical-evaluation"),
    seed: command.SeedOption = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Dice, volumes and surface distances of each organ and case, with intervals."""
    from apps.medical.evaluate import evaluate as work

    command.emit(work(checkpoint, data, split, out, tta=tta, seed=seed, device=device), as_json)


@app.command()
def segment(
    scans: Scans,
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/medical-segmented"),
    tta: Tta = False,
    dicom_seg: Annotated[bool, typer.Option("--dicom-seg", help="Write DICOM-SEG beside the NIfTI files.")] = False,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Segment scans on their own grid, with overlays, volumes in ml and uncertainty."""
    from apps.medical.predict import segment as work

    command.emit(work(scans, checkpoint, out, tta=tta, dicom_seg=dicom_seg, device=device), as_json)


@app.command()
def classify(
    scans: Scans,
    checkpoint: command.CheckpointOption = Path("runs/medical"),
    out: command.OutOption = Path("runs/medical-classified"),
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Say what each scan and slice shows, by a MEDUSA that was trained with model.kind=medusa."""
    from apps.medical.classes import classify as work

    command.emit(work(scans, checkpoint or Path("runs/medical"), out, device=device), as_json)


@app.command()
def explain(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="A NIfTI file, or a folder of a DICOM series.")],
    checkpoint: command.CheckpointOption = None,
    voxel: Annotated[
        str | None,
        typer.Option("--voxel", help="Which voxel, as 12,30,20; left out: amid the largest organ.", show_default=False),
    ] = None,
    out: command.OutOption = Path("runs/medical-explained"),
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Show what a voxel looks at, how channels mix, and where the model is unsure."""
    from apps.medical.explain import explain as work

    command.emit(work(scan, checkpoint, out, voxel=voxel, device=device), as_json)


@app.command()
def compare(
    data: command.DataOption = None,
    out: command.OutOption = Path("runs/medical-comparison"),
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    entry: Annotated[
        list[str] | None,
        typer.Option("--entry", help="What to train; repeatable; left out: ours and MONAI's.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=20, help="How many seeds each is trained with.")] = 1,
    seed: command.SeedOption = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Train our model, its ablations and MONAI's networks alike, and evaluate all on the same cases."""
    settings = _settings(config, sets)
    from apps.medical.compare import compare as work
    from shared.training.trainer import Hardware

    entries = entry or ["guided", "unet", "attention-unet"]
    chosen = list(range(seed, seed + seeds))
    command.emit(work(settings, data, out, entries=entries, seeds=chosen, hardware=Hardware(device)), as_json)


@app.command()
def info(checkpoint: command.CheckpointOption = None, as_json: command.JsonOption = False) -> None:
    """What a model is: size, data, figures; and which configurations come with the app."""
    from apps.medical.config import CONFIGS
    from apps.medical.segmenter import load
    from shared.config import shipped_configs

    loaded = load(checkpoint, "cpu")
    parameters = sum(p.numel() for p in loaded.models[0].parameters())
    card = {key: value for key, value in loaded.card.items() if key != "split"}
    facts = {"model": str(loaded.path), "parameters": parameters, "models": len(loaded.models), **card}
    command.emit({**facts, "shipped_configs": shipped_configs(CONFIGS)}, as_json)


@app.command()
def export(
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/medical-export"),
    name: Annotated[str, typer.Option("--name", help="The name of the two files, without ending.")] = "model",
    as_json: command.JsonOption = False,
) -> None:
    """Write a model in half the size (float16), to hand on: NAME.safetensors and its card NAME.json."""
    from apps.medical.segmenter import export as work

    command.emit(work(checkpoint, out, name), as_json)
