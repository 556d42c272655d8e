"""`manyheads music ...`: the command line of Music Transformer. It parses; the work lies in the other rooms."""

from pathlib import Path

import typer

from shared import command

app = typer.Typer(no_args_is_help=True)


@app.callback()
def music() -> None:
    """Music Transformer: train on scores or performances, generate, continue, harmonise, accompany."""


@app.command()
def train(
    data: command.DataOption = None,
    out: command.OutOption = Path("runs/music"),
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
    """Train a model on chorales, a folder of MIDI files, MAESTRO or POP909."""
    from apps.music.config import MusicConfig, find_config
    from shared.config import load_config

    settings = load_config(MusicConfig, find_config(config), sets or [])
    from apps.music import train as work
    from shared.training.trainer import Hardware

    hardware = Hardware(device, devices, num_nodes, strategy, precision)
    command.emit(work.train(settings, data, out, seed=seed, resume=resume, hardware=hardware), as_json)
