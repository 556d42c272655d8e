"""`manyheads wsi ...`: whole slides, from the slide file to the heat map. It parses; the work lies in the other rooms."""

from pathlib import Path
from typing import Annotated

import typer

from shared import command

app = typer.Typer(no_args_is_help=True)

LabelsOption = Annotated[
    Path | None,
    typer.Option("--labels", help="CSV with the columns slide, label and, if known, patient.", show_default=False),
]


@app.callback()
def wsi() -> None:
    """Whole-slide diagnosis by attention-challenging MIL: tile, extract, train, evaluate, predict, heat maps."""


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
    from apps.wsi.config import CONFIGS, VARIANTS, WsiConfig
    from shared.config import find_config, load_config
    from shared.errors import InputError

    settings = load_config(WsiConfig, find_config(config, CONFIGS), sets or [])
    names = [name.strip() for name in models.split(",") if name.strip()]
    for name in names:
        if name not in VARIANTS:
            raise InputError(f"--models {name}: no such model; known: {', '.join(VARIANTS)}")
    from apps.wsi.crossval import cross_validate as work
    from apps.wsi.read import read_data

    result = work(read_data(data, labels), settings, names, out, count=folds, repeats=repeats, seed=seed, resume=resume)
    command.emit(result, as_json)
