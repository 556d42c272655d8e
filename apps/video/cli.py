"""`manyheads video ...`: objects in video without labels, and a mask carried through it. It parses; the rest works."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from shared import command

app = typer.Typer(no_args_is_help=True)


@app.callback()
def video() -> None:
    """Objects in video: discover them without labels, or carry a mask through the whole of it."""


VideoFile = Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file or a folder of frames.")]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="A DINO file or a run of pretrain; left out: EfficientNet-Lite0.",
        show_default=False,
    ),
]
Split = Annotated[
    str | None, typer.Option("--split", help="A list in ImageSets; left out: all sequences.", show_default=False)
]
Only = Annotated[
    list[str] | None, typer.Option("--sequence", help="One sequence by name; repeatable.", show_default=False)
]


def _settings(config: Path | None, sets: list[str] | None):
    from apps.video.config import CONFIGS, VideoConfig
    from shared.config import find_config, load_config

    return load_config(VideoConfig, find_config(config, CONFIGS), sets)


@app.command()
def pretrain(
    data: command.DataOption = None,
    out: command.OutOption = Path("runs/video-encoder"),
    split: Split = None,
    only: Only = None,
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
    """Train a small ViT on your own frames by self-distillation, as DINO does; give it as --weights."""
    settings = _settings(config, sets)
    from apps.video.pretrain import pretrain as work
    from shared.training.trainer import Hardware

    hardware = Hardware(device, devices, num_nodes, strategy, precision)
    command.emit(
        work(settings, data, out, split=split, names=only, seed=seed, resume=resume, hardware=hardware), as_json
    )


@app.command()
def train(
    data: command.DataOption = None,
    out: command.OutOption = Path("runs/video"),
    weights: Weights = None,
    split: Split = None,
    only: Only = None,
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
    """Train the spatio-temporal block or the slots on videos without labels."""
    settings = _settings(config, sets)
    from apps.video.train import train as work
    from shared.training.trainer import Hardware

    hardware = Hardware(device, devices, num_nodes, strategy, precision)
    result = work(
        settings, data, out, weights=weights, split=split, names=only, seed=seed, resume=resume, hardware=hardware
    )
    command.emit(result, as_json)


@app.command()
def evaluate(
    data: command.DataOption = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks", help="Masks in DAVIS's layout to score; left out: --method makes them.", show_default=False
        ),
    ] = None,
    method: Annotated[
        Literal["propagate", "salient", "tokencut", "attention", "slots"],
        typer.Option("--method", help="What makes the masks, or made them."),
    ] = "propagate",
    checkpoint: command.CheckpointOption = None,
    weights: Weights = None,
    split: Split = None,
    only: Only = None,
    out: command.OutOption = Path("runs/video-evaluation"),
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    seed: command.SeedOption = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """J, F and J&F on annotated sequences in DAVIS's layout."""
    settings = _settings(config, sets)
    from apps.video.evaluate import evaluate as work

    result = work(
        settings,
        data,
        out,
        masks=masks,
        method=method,
        checkpoint=checkpoint,
        weights=weights,
        split=split,
        names=only,
        seed=seed,
        device=device,
    )
    command.emit(result, as_json)


@app.command()
def discover(
    video: VideoFile,
    method: Annotated[
        Literal["salient", "tokencut", "attention", "slots"] | None,
        typer.Option("--method", help="Left out: that of the checkpoint, else salient.", show_default=False),
    ] = None,
    checkpoint: command.CheckpointOption = None,
    weights: Weights = None,
    out: command.OutOption = Path("runs/video-discovered"),
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    seed: command.SeedOption = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Find the objects of a video without being told any: masks, overlay, matte, run lengths, sheet."""
    settings = _settings(config, sets)
    from apps.video.discover import discover as work

    result = work(settings, video, out, method=method, checkpoint=checkpoint, weights=weights, seed=seed, device=device)
    command.emit(result, as_json)


@app.command()
def propagate(
    video: VideoFile,
    mask: Annotated[Path, typer.Option("--mask", help="The mask of one frame, a PNG with labels from 1 on.")],
    frame: Annotated[
        int | None,
        typer.Option(
            "--frame",
            min=0,
            help="Which frame the mask belongs to, from 0; left out: that of its name, else the first.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    out: command.OutOption = Path("runs/video-propagated"),
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Carry the objects of one frame's mask through the whole video, forwards and backwards."""
    settings = _settings(config, sets)
    from apps.video.propagate import propagate as work

    command.emit(work(settings, video, mask, out, frame=frame, weights=weights, device=device), as_json)


@app.command()
def explain(
    video: VideoFile,
    point: Annotated[str, typer.Option("--point", metavar="X,Y", help="The pixel that is asked about.")],
    frame: Annotated[int, typer.Option("--frame", min=0, help="In which frame it lies, from 0.")] = 0,
    checkpoint: command.CheckpointOption = None,
    weights: Weights = None,
    out: command.OutOption = Path("runs/video-explained"),
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Show where a point's attention goes through time: a heat map over the frames."""
    settings = _settings(config, sets)
    from apps.video.explain import explain as work

    result = work(settings, video, out, point=point, frame=frame, checkpoint=checkpoint, weights=weights, device=device)
    command.emit(result, as_json)


@app.command()
def synthesise(
    out: command.OutOption = Path("runs/video-clips"),
    clips: Annotated[int, typer.Option("--clips", min=1, help="How many.")] = 12,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames of a clip.")] = 24,
    objects: Annotated[int, typer.Option("--objects", min=0, max=8, help="Moving objects in a clip.")] = 3,
    size: Annotated[int, typer.Option("--size", min=64, max=1080, help="Pixels of the short side.")] = 144,
    seed: command.SeedOption = 0,
    as_json: command.JsonOption = False,
) -> None:
    """Write clips of moving objects with their true masks, in DAVIS's layout."""
    from apps.video.synthetic import synthesise as work

    command.emit(work(out, clips=clips, frames=frames, objects=objects, size=size, seed=seed), as_json)


@app.command()
def info(checkpoint: command.CheckpointOption = None, as_json: command.JsonOption = False) -> None:
    """What a model is: method, size, data, figures; and which configurations come with the app."""
    from apps.video.config import CONFIGS
    from shared.config import shipped_configs
    from shared.training.checkpoint import load_model

    if checkpoint is None:
        facts: dict = {
            "methods": ["propagate", "salient", "tokencut", "attention", "slots"],
            "encoder": "efficientnet-lite0, or a DINO file or a run of pretrain given by --weights",
            "note": "no trained model is shipped; train one, or use propagate, salient and tokencut, which need none",
        }
    else:
        state, card = load_model(checkpoint, "video")
        facts = {"model": str(checkpoint), "parameters": sum(value.numel() for value in state.values()), **card}
    command.emit({**facts, "shipped_configs": shipped_configs(CONFIGS)}, as_json)
