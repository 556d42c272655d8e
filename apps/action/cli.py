"""`manyheads action ...`: labelled segments of untrimmed recordings. It parses; the work lies in the other rooms."""

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from shared import command
from shared.errors import InputError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def action() -> None:
    """Labelled segments from untrimmed videos, features or sensor streams, by BMN and class-semantics attention."""


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):  # of a range, typer lets nan pass
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def _config(config: Path | None, sets: list[str] | None):
    from apps.action.config import CONFIGS, ActionConfig
    from shared.config import find_config, load_config

    return load_config(ActionConfig, find_config(config, CONFIGS), sets or [])


Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Videos, features or sensor files.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A video, features or a sensor file.")]
Threshold = Annotated[
    float, typer.Option("--threshold", min=0, max=1, callback=_finite, help="The lowest score that is shown.")
]
Annotations = Annotated[
    Path | None, typer.Option("--annotations", help="The truth, to draw beside what is found.", show_default=False)
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        min=0.01,
        callback=_finite,
        help="Samples of a sensor file, or snippets of features, a second; left out: what the file or the model says.",
        show_default=False,
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, callback=_finite, help="Seconds that a video may take for a frame.")
]
SnippetSeconds = Annotated[
    float, typer.Option("--snippet-seconds", min=0.01, callback=_finite, help="Seconds a snippet.")
]


@app.command()
def inspect(
    data: command.DataOption = None,
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    as_json: command.JsonOption = False,
) -> None:
    """What data hold: recordings, classes, splits; and everything that is wrong with them."""
    settings = _config(config, sets)
    from apps.action.inspect import inspect as work

    result = work(data, settings.data)
    command.emit(result, as_json)
    if not result["usable"]:
        more = len(result["problems"]) - 1 + result["more_problems"]
        raise InputError(f"{result['problems'][0]}{f' (and {more} more problems)' * (more > 0)}")


@app.command()
def extract(
    videos: Annotated[Path, typer.Argument(metavar="VIDEOS", help="A video or a folder of videos.")],
    out: command.OutOption = Path("runs/action-features"),
    snippet_seconds: SnippetSeconds = 0.5,
    checkpoint: command.CheckpointOption = None,
    timeout: Timeout = 60,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Videos to snippet features (EfficientNet-Lite0), and with a model to class scores."""
    from apps.action.extract import extract as work

    result = work(videos, out, snippet_seconds=snippet_seconds, checkpoint=checkpoint, device=device, timeout=timeout)
    command.emit(result, as_json)


@app.command()
def train(
    data: command.DataOption = None,
    out: command.OutOption = Path("runs/action"),
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
    """Train a detector on a folder of your own, 50 Salads, GeoTec, or the watch streams that come with the app."""
    settings = _config(config, sets)
    from apps.action.train import train as work
    from shared.training.trainer import Hardware

    hardware = Hardware(device, devices, num_nodes, strategy, precision)
    command.emit(work(settings, data, out, seed=seed, resume=resume, hardware=hardware), as_json)


@app.command()
def evaluate(
    checkpoint: command.CheckpointOption = None,
    data: command.DataOption = None,
    split: Annotated[
        Literal["train", "valid", "test", "all"], typer.Option("--split", help="Which recordings.")
    ] = "test",
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    out: command.OutOption = Path("runs/action-evaluation"),
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """mAP as ActivityNet counts it, AR@AN of proposals, by class, and what kinds of errors there are."""
    settings = _config(config, sets)
    from apps.action.detector import load
    from apps.action.evaluate import evaluate as work

    detector = load(checkpoint, device)
    command.emit(work(detector, data, split, out, config=settings.data), as_json)


@app.command()
def detect(
    files: Files,
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/action-detected"),
    threshold: Threshold = 0.1,
    annotations: Annotations = None,
    rate: Rate = None,
    no_video: Annotated[bool, typer.Option("--no-video", help="Write no annotated videos.")] = False,
    timeout: Timeout = 60,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Labelled segments of recordings, as JSON, CSV, subtitles, a timeline and an annotated video."""
    from apps.action.detector import load
    from apps.action.predict import detect as work

    result = work(
        load(checkpoint, device),
        files,
        out,
        threshold=threshold,
        annotations=annotations,
        rate=rate,
        video=not no_video,
        timeout=timeout,
    )
    command.emit(result, as_json)


@app.command()
def stream(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A recording, or - for samples by standard input.")],
    checkpoint: command.CheckpointOption = None,
    threshold: Threshold = 0.1,
    hop: Annotated[int, typer.Option("--hop", min=1, help="Snippets from one look to the next.")] = 4,
    margin: Annotated[int, typer.Option("--margin", min=0, help="Snippets to see after an end.")] = 8,
    rate: Rate = None,
    timeout: Timeout = 60,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Detections while a recording grows, a line each, within (hop + margin) snippets after their end."""
    from apps.action.detector import load
    from apps.action.stream import stream_file
    from shared.io.files import to_json

    count = 0
    detector = load(checkpoint, device)
    found = stream_file(detector, source, threshold=threshold, hop=hop, margin=margin, rate=rate, timeout=timeout)
    for d, now in found:
        count += 1
        row = {"at": now, "start": d.start, "end": d.end, "label": d.label, "score": d.score}
        line = to_json(row) if as_json else f"{now:8.1f} s: {d.label} from {d.start:.1f} to {d.end:.1f} ({d.score:.2f})"
        typer.echo(line)
    if not as_json:
        typer.echo(f"{count} detections")


@app.command()
def explain(
    file: File,
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/action-explained"),
    threshold: Threshold = 0.1,
    annotations: Annotations = None,
    rate: Rate = None,
    timeout: Timeout = 60,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Channel and temporal attention under the timeline of a recording."""
    from apps.action.detector import load
    from apps.action.predict import explain as work

    detector = load(checkpoint, device)
    result = work(detector, file, out, threshold=threshold, annotations=annotations, rate=rate, timeout=timeout)
    command.emit(result, as_json)


@app.command()
def compare(
    data: command.DataOption = None,
    out: command.OutOption = Path("runs/action-compared"),
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    models: Annotated[
        str, typer.Option("--models", help="Which, a comma between: frames, bmn, bmn+se, bmn+csa, bmn+se+csa.")
    ] = "frames,bmn,bmn+se,bmn+csa,bmn+se+csa",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds for each.")] = 3,
    folds: Annotated[int, typer.Option("--folds", min=0, help="How many folds; 0: all.")] = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """The network with and without each attention, at equal budget, over folds and seeds; goes on where it ended."""
    settings = _config(config, sets)
    from apps.action.compare import compare as work
    from shared.training.trainer import Hardware

    names = [name.strip() for name in models.split(",") if name.strip()]
    result = work(settings, data, out, models=names, seeds=seeds, folds=folds, hardware=Hardware(device))
    command.emit(result if as_json else {key: result[key] for key in ("models", "differences", "written")}, as_json)


@app.command()
def info(checkpoint: command.CheckpointOption = None, as_json: command.JsonOption = False) -> None:
    """What a model is: size, data, figures; and which configurations come with the app."""
    from apps.action.config import CONFIGS
    from apps.action.detector import load
    from shared.config import shipped_configs

    detector = load(checkpoint, "cpu")
    parameters = sum(p.numel() for p in detector.model.parameters())
    hidden = ("scaling", "semantics_scaling")
    card = {key: value for key, value in detector.card.items() if key not in hidden}
    facts = {"model": str(detector.path), "parameters": parameters, **card}
    command.emit({**facts, "shipped_configs": shipped_configs(CONFIGS)}, as_json)
