"""`manyheads wsi ...`: whole slides, from the file to the heat map. It parses; the work lies in the other rooms."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from shared import command

app = typer.Typer(no_args_is_help=True)

LabelsOption = Annotated[
    Path | None,
    typer.Option("--labels", help="CSV with the columns slide and label, if known patient, split.", show_default=False),
]
MppOption = Annotated[
    float | None,
    typer.Option(
        "--mpp", min=0.01, max=50, help="Micrometres a pixel, for slides that do not say.", show_default=False
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", help="Only slides that the labels put in this split, such as test.", show_default=False),
]
TileOption = Annotated[int, typer.Option("--tile", min=32, max=4096, help="Side of a tile in pixels.")]
TileMppOption = Annotated[float, typer.Option("--tile-mpp", min=0.05, max=50, help="Micrometres a pixel of a tile.")]
TissueOption = Annotated[float, typer.Option("--tissue", min=0, max=1, help="Least share of a tile that is tissue.")]
OverlapOption = Annotated[int, typer.Option("--overlap", min=0, help="By how many pixels tiles overlap.")]
EncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", help="Of slide files, where extract was given your own.", show_default=False),
]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="State dict of a timm encoder.", show_default=False)
]
Slides = Annotated[Path, typer.Argument(metavar="SLIDES", help="A slide, or a folder of slides.")]


@app.callback()
def wsi() -> None:
    """Whole-slide diagnosis by attention-challenging MIL: tile, extract, train, evaluate, predict, heat maps."""


def _settings(config: Path | None, sets: list[str] | None):
    from apps.wsi.config import CONFIGS, WsiConfig
    from shared.config import find_config, load_config

    return load_config(WsiConfig, find_config(config, CONFIGS), sets or [])


@app.command()
def inspect(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Slides, features, tables, or folders.")],
    labels: LabelsOption = None,
    as_json: command.JsonOption = False,
) -> None:
    """What slides, features and splits hold, and what is wrong with them: faults, widths, patients in two parts."""
    from apps.wsi.inspect import inspect as work

    command.emit(work(paths, labels), as_json)


@app.command()
def tile(
    slides: Slides,
    out: command.OutOption = Path("runs/wsi-tiles"),
    tile: TileOption = 224,
    tile_mpp: TileMppOption = 0.5,
    tissue: TissueOption = 0.5,
    overlap: OverlapOption = 0,
    mpp: MppOption = None,
    as_json: command.JsonOption = False,
) -> None:
    """Find the tiles on tissue: coordinates as CLAM and TRIDENT read them, and a picture to check each slide by."""
    from apps.wsi.tiles import Tiling
    from apps.wsi.tiles import tile as work

    command.emit(work(slides, out, Tiling(tile, tile_mpp, tissue, overlap), mpp), as_json)


@app.command()
def extract(
    slides: Slides,
    out: command.OutOption = Path("runs/wsi-features"),
    encoder: Annotated[
        str, typer.Option("--encoder", help="efficientnet-lite0, a TorchScript file, or timm:NAME.")
    ] = "efficientnet-lite0",
    weights: WeightsOption = None,
    layout: Annotated[
        Literal["trident", "clam", "stamp", "acmil"], typer.Option("--layout", help="How the files are laid out.")
    ] = "trident",
    tile: TileOption = 224,
    tile_mpp: TileMppOption = 0.5,
    tissue: TissueOption = 0.5,
    overlap: OverlapOption = 0,
    mpp: MppOption = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Tiles that are encoded at once.")] = 32,
    resume: command.ResumeOption = False,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Features of every tile of every slide; slides that are done are not done again with --resume."""
    from apps.wsi.extract import extract as work
    from apps.wsi.tiles import Tiling

    result = work(
        slides,
        out,
        Tiling(tile, tile_mpp, tissue, overlap),
        encoder=encoder,
        weights=weights,
        layout=layout,
        mpp=mpp,
        batch=batch,
        device=device,
        resume=resume,
    )
    command.emit(result, as_json)


@app.command()
def convert(
    data: Annotated[Path, typer.Argument(metavar="FEATURES", help="A folder of features, or one file.")],
    layout: Annotated[
        Literal["trident", "clam", "stamp", "acmil", "csv"], typer.Option("--layout", help="How to lay them out.")
    ],
    labels: LabelsOption = None,
    out: command.OutOption = Path("runs/wsi-converted"),
    mpp: MppOption = None,
    as_json: command.JsonOption = False,
) -> None:
    """Features from one layout into another; csv is the plain MIL table, and needs labels."""
    from apps.wsi.convert import convert as work

    command.emit(work(data, labels, out, layout, mpp), as_json)


@app.command()
def train(
    data: command.DataOption = None,
    labels: LabelsOption = None,
    out: command.OutOption = Path("runs/wsi"),
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
    """Train a classifier on features of slides, or on musk1, musk2, elephant, ucsb, digits, or a MIL table."""
    settings = _settings(config, sets)
    from apps.wsi.train import train as work
    from shared.training.trainer import Hardware

    hardware = Hardware(device, devices, num_nodes, strategy, precision)
    command.emit(work(settings, data, labels, out, seed=seed, resume=resume, hardware=hardware), as_json)


@app.command("cross-validate")
def cross_validate(
    data: command.DataOption = None,
    labels: LabelsOption = None,
    out: command.OutOption = Path("runs/wsi-cross-validation"),
    models: Annotated[str, typer.Option("--models", help="Which, with commas between.")] = "acmil,gated-abmil,mean,max",
    folds: Annotated[int, typer.Option("--folds", min=2, help="Into how many parts the patients are split.")] = 10,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="How often, with other folds each time.")] = 10,
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    seed: command.SeedOption = 0,
    resume: command.ResumeOption = False,
    as_json: command.JsonOption = False,
) -> None:
    """Compare models by repeated k-fold cross-validation on the same folds, a patient in one fold only."""
    from apps.wsi.config import VARIANTS
    from shared.errors import InputError

    settings = _settings(config, sets)
    names = list(dict.fromkeys(name.strip() for name in models.split(",") if name.strip()))
    for name in names or [models]:
        if name not in VARIANTS:
            raise InputError(f"--models {name}: no such model; known: {', '.join(VARIANTS)}")
    from apps.wsi.crossval import cross_validate as work
    from apps.wsi.read import read_data

    result = work(read_data(data, labels), settings, names, out, count=folds, repeats=repeats, seed=seed, resume=resume)
    command.emit(result, as_json)


@app.command()
def evaluate(
    checkpoint: command.CheckpointOption = None,
    data: command.DataOption = None,
    labels: LabelsOption = None,
    split: SplitOption = None,
    out: command.OutOption = Path("runs/wsi-evaluation"),
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """AUROC, accuracy, macro F1, calibration, with intervals over patients."""
    from apps.wsi.classifier import load
    from apps.wsi.evaluate import evaluate as work

    command.emit(work(load(checkpoint, device), data, labels, split, out), as_json)


@app.command()
def predict(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="A slide, features, or a folder of either.")],
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/wsi-predictions"),
    mpp: MppOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """The class of each slide with its probabilities, as CSV and JSON."""
    from apps.wsi.classifier import load
    from apps.wsi.predict import predict as work

    command.emit(work(load(checkpoint, device, encoder, weights), data, out, mpp), as_json)


@app.command()
def heatmap(
    slide: Annotated[Path, typer.Argument(metavar="SLIDE", help="A slide file.")],
    features: Annotated[
        Path | None, typer.Option("--features", help="Its features; else they are made now.", show_default=False)
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", help="QuPath's GeoJSON: does attention find these regions?", show_default=False),
    ] = None,
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/wsi-heatmap"),
    mpp: MppOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    longest: Annotated[int, typer.Option("--longest", min=64, max=8192, help="Longer side of the picture.")] = 1600,
    top: Annotated[int, typer.Option("--top", min=1, max=100, help="Tiles on the sheet of the strongest.")] = 20,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Where the model looks: overlay, a map a branch, GeoJSON for QuPath, strongest tiles, a page to zoom in."""
    from apps.wsi.classifier import load
    from apps.wsi.heatmap import heatmap as work

    classifier = load(checkpoint, device, encoder, weights)
    result = work(classifier, slide, features, out, mpp=mpp, longest=longest, top=top, annotations=annotations)
    command.emit(result, as_json)


@app.command()
def explain(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="Slides, features, a table, or a folder.")],
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/wsi-explanation"),
    mpp: MppOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """How concentrated attention is, and how much the branches overlap."""
    from apps.wsi.classifier import load
    from apps.wsi.explain import explain as work

    command.emit(work(load(checkpoint, device, encoder, weights), data, out, mpp), as_json)


@app.command()
def compare(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Run folders; the first is compared to.")
    ],
    data: command.DataOption = None,
    labels: LabelsOption = None,
    split: SplitOption = None,
    out: command.OutOption = Path("runs/wsi-comparison"),
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Trained models on the same slides, with paired tests against the first."""
    from apps.wsi.classifier import load
    from apps.wsi.compare import compare as work

    command.emit(work([load(one, device) for one in checkpoints], data, labels, split, out), as_json)


@app.command("load-authors")
def load_authors(
    weights: Annotated[Path, typer.Argument(metavar="FILE.pt", help="A state dict of ACMIL_GA or of CLAM's clam_sb.")],
    out: command.OutOption = Path("runs/wsi-authors"),
    classes: Annotated[
        str | None, typer.Option("--classes", help="Names of the classes, commas between.", show_default=False)
    ] = None,
    as_json: command.JsonOption = False,
) -> None:
    """Turn weights that the authors released into a model for the other verbs; only tensors are read."""
    from apps.wsi.authors import load_authors as work

    names = [name.strip() for name in classes.split(",")] if classes else None
    command.emit(work(weights, out, names), as_json)


@app.command()
def practice(
    slide: Annotated[Path, typer.Argument(metavar="SLIDE", help="A slide or region to cut from.")],
    out: command.OutOption = Path("runs/wsi-practice"),
    count: Annotated[int, typer.Option("--count", min=24, max=10_000, help="How many practice slides.")] = 96,
    seed: command.SeedOption = 0,
    mpp: MppOption = None,
    as_json: command.JsonOption = False,
) -> None:
    """Practice slides, clean and marred by ink or lost focus, to try the whole chain on: a toy with a known truth."""
    from apps.wsi.practice import practice as work

    command.emit(work(slide, out, count, seed, mpp), as_json)


@app.command()
def info(checkpoint: command.CheckpointOption = None, as_json: command.JsonOption = False) -> None:
    """What a model is: size, data, figures; and which configurations come with the app."""
    from apps.wsi.classifier import load
    from apps.wsi.config import CONFIGS
    from shared.config import shipped_configs

    classifier = load(checkpoint, "cpu")
    parameters = sum(p.numel() for p in classifier.model.parameters())
    facts = {"model": str(classifier.path), "parameters": parameters, **classifier.card}
    command.emit({**facts, "shipped_configs": shipped_configs(CONFIGS)}, as_json)


@app.command()
def export(
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/wsi-export"),
    name: Annotated[str, typer.Option("--name", help="The name of the two files, without ending.")] = "model",
    as_json: command.JsonOption = False,
) -> None:
    """Write a model in half the size (float16), to hand on: NAME.safetensors and its card NAME.json."""
    from apps.wsi.classifier import export as work

    command.emit(work(checkpoint, out, name), as_json)
