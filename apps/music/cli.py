"""`manyheads music ...`: the command line of Music Transformer. It parses; the work lies in the other rooms."""

import math
from pathlib import Path
from typing import Annotated, Literal

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
    from apps.music.config import CONFIGS, MusicConfig
    from shared.config import find_config, load_config

    settings = load_config(MusicConfig, find_config(config, CONFIGS), sets or [])
    from apps.music import train as work
    from shared.training.trainer import Hardware

    hardware = Hardware(device, devices, num_nodes, strategy, precision)
    command.emit(work.train(settings, data, out, seed=seed, resume=resume, hardware=hardware), as_json)


def _finite(value: float | None) -> float | None:
    # Of a range, typer lets nan pass.
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


Length = Annotated[str, typer.Option("--length", help="How much new music: bars of 4/4 or seconds, like 8bars or 30s.")]
Last = Annotated[
    str | None,
    typer.Option("--last", help="Use only the last part of the file, like 20s or 4bars.", show_default=False),
]
Count = Annotated[int, typer.Option("--count", min=1, max=256, help="How many, in one batch.")]
Tempo = Annotated[float, typer.Option("--tempo", min=20, max=300, callback=_finite, help="Quarters a minute.")]
FileTempo = Annotated[
    float | None,
    typer.Option(
        "--tempo",
        min=20,
        max=300,
        callback=_finite,
        help="Quarters a minute; left out: those of the file.",
        show_default=False,
    ),
]
Temperature = Annotated[
    float,
    typer.Option("--temperature", min=0, callback=_finite, help="Below 1 is safer, 0 always the likeliest."),
]
TopK = Annotated[int, typer.Option("--top-k", min=0, help="Draw from the likeliest K tokens only; 0: from all.")]
TopP = Annotated[
    float,
    typer.Option("--top-p", min=0.01, max=1, callback=_finite, help="Draw from the fewest tokens with this share."),
]
Codec = Annotated[Literal["chorale", "performance"], typer.Option("--codec", help="How to read the files.")]
Music = Annotated[Path, typer.Argument(metavar="FILE.mid", help="A MIDI file.")]


def _sampling(temperature: float, top_k: int, top_p: float, seed: int):
    from apps.music.decode import Sampling

    return Sampling(temperature, top_k, top_p, seed)


@app.command()
def evaluate(
    checkpoint: command.CheckpointOption = None,
    data: command.DataOption = None,
    split: Annotated[Literal["train", "valid", "test"], typer.Option("--split", help="Which pieces.")] = "test",
    samples: Annotated[int, typer.Option("--samples", min=0, help="Pieces to generate for the histograms.")] = 16,
    tempo: Tempo = 90,
    out: command.OutOption = Path("runs/music-evaluation"),
    seed: command.SeedOption = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """NLL per token on a split, accuracy by voice, and histograms of generated music against the data."""
    from apps.music.evaluate import evaluate as work
    from apps.music.predict import load

    result = work(load(checkpoint, device), data, split, out, samples=samples, tempo=tempo, seed=seed)
    command.emit(result, as_json)


@app.command()
def generate(
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/music-generated"),
    length: Length = "16bars",
    count: Count = 1,
    temperature: Temperature = 0.95,
    top_k: TopK = 0,
    top_p: TopP = 0.98,
    tempo: Tempo = 90,
    seed: command.SeedOption = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Write music out of nothing, as MIDI, score, piano roll and JSON."""
    from apps.music.outputs import parse_length

    wanted = parse_length(length)
    from apps.music.predict import generate as work
    from apps.music.predict import load

    sampling = _sampling(temperature, top_k, top_p, seed)
    result = work(load(checkpoint, device), out, length=wanted, count=count, tempo=tempo, sampling=sampling)
    command.emit(result, as_json)


@app.command("continue")
def continue_(
    primer: Music,
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/music-continued"),
    length: Length = "8bars",
    last: Last = None,
    count: Count = 4,
    temperature: Temperature = 0.95,
    top_k: TopK = 0,
    top_p: TopP = 0.98,
    tempo: FileTempo = None,
    seed: command.SeedOption = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Continue a motif: several continuations that share its beginning, ranked by likelihood."""
    from apps.music.outputs import parse_length

    wanted, part = parse_length(length), None if last is None else parse_length(last, "--last")
    from apps.music.predict import continue_ as work
    from apps.music.predict import load

    sampling = _sampling(temperature, top_k, top_p, seed)
    player = load(checkpoint, device)
    result = work(player, primer, out, length=wanted, last=part, count=count, tempo=tempo, sampling=sampling)
    command.emit(result, as_json)


@app.command()
def harmonise(
    melody: Music,
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/music-harmonised"),
    keep: Annotated[
        list[str] | None, typer.Option("--keep", help="A voice that is given; repeatable; left out: the soprano.")
    ] = None,
    count: Count = 1,
    transpose: Annotated[
        int, typer.Option("--transpose", min=-96, max=96, help="Semitones by which the given voices are moved first.")
    ] = 0,
    particles: Annotated[int, typer.Option("--particles", min=1, max=1024, help="Sequences that compete.")] = 32,
    temperature: Temperature = 0.9,
    top_k: TopK = 0,
    top_p: TopP = 0.98,
    tempo: FileTempo = None,
    seed: command.SeedOption = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Write the other three voices to a soprano (or to whichever voices are given)."""
    from apps.music.predict import harmonise as work
    from apps.music.predict import load

    result = work(
        load(checkpoint, device),
        melody,
        out,
        keep=keep or ["soprano"],
        transpose=transpose,
        count=count,
        particles=particles,
        tempo=tempo,
        sampling=_sampling(temperature, top_k, top_p, seed),
    )
    command.emit(result, as_json)


@app.command()
def accompany(
    melody: Music,
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/music-accompanied"),
    count: Count = 1,
    temperature: Temperature = 0.95,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    tempo: FileTempo = None,
    seed: command.SeedOption = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Write an accompaniment to a melody, with a model trained on POP909."""
    from apps.music.predict import accompany as work
    from apps.music.predict import load

    sampling = _sampling(temperature, top_k, top_p, seed)
    command.emit(work(load(checkpoint, device), melody, out, count=count, tempo=tempo, sampling=sampling), as_json)


@app.command()
def render(
    music: Music,
    out: Annotated[Path | None, typer.Option("--out", help="The WAV file; left out: beside the MIDI.")] = None,
    soundfont: Annotated[
        Path | None, typer.Option("--soundfont", help="An .sf2 file; left out: pretty_midi's.", show_default=False)
    ] = None,
    rate: Annotated[int, typer.Option("--rate", help="Samples a second.")] = 44100,
    as_json: command.JsonOption = False,
) -> None:
    """Play a MIDI file into a WAV file, with a picture of its mel spectrogram."""
    from apps.music.figures import mel_picture
    from apps.music.render import read_wav, render_wav

    wav = out or music.with_suffix(".wav")
    seconds = render_wav(music, wav, soundfont, rate)
    picture = wav.with_suffix(".mel.png")
    mel_picture(picture, *read_wav(wav), music.stem)
    command.emit({"wav": str(wav), "seconds": seconds, "picture": str(picture)}, as_json)


@app.command()
def explain(
    music: Music,
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/music-explained"),
    layer: Annotated[int, typer.Option("--layer", help="Which layer, from 1; -1 is the last.")] = -1,
    at: Annotated[
        float | None,
        typer.Option(
            "--at", callback=_finite, help="From which second on; left out: the last notes.", show_default=False
        ),
    ] = None,
    span: Annotated[
        float, typer.Option("--span", min=0.01, callback=_finite, help="How many seconds of notes to ask.")
    ] = 0.01,
    strongest: Annotated[int, typer.Option("--strongest", min=1, help="Arcs for each note and head.")] = 6,
    last: Last = None,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Show which notes the model looks back at: arcs over the piano roll, one row for each head."""
    from apps.music.outputs import parse_length

    part = None if last is None else parse_length(last, "--last")
    from apps.music.explain import explain as work
    from apps.music.predict import load

    player = load(checkpoint, device)
    result = work(player, music, out, layer=layer, at=at, span=span, strongest=strongest, last=part)
    command.emit(result, as_json)


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.mid...", help="MIDI files, such as generated ones.")],
    data: command.DataOption = None,
    codec: Codec = "chorale",
    out: command.OutOption = Path("runs/music-report"),
    as_json: command.JsonOption = False,
) -> None:
    """How new the music is (the longest quotation of a training piece) and how well its voices are led."""
    from apps.music.report import report as work

    result = work(files, data, codec, out)
    if not as_json:  # people get the sentences; every number lies in report.json
        result["novelty"] = [
            {"file": Path(row["file"]).name, "longest shared run": row["sentences"][0]} for row in result["novelty"]
        ]
    command.emit(result, as_json)


@app.command()
def info(checkpoint: command.CheckpointOption = None, as_json: command.JsonOption = False) -> None:
    """What a model is: size, data, figures; and which configurations come with the app."""
    from apps.music.config import CONFIGS
    from apps.music.predict import load
    from shared.config import shipped_configs

    player = load(checkpoint, "cpu")
    parameters = sum(p.numel() for p in player.model.parameters())
    facts = {"model": str(player.path), "parameters": parameters, **player.card}
    command.emit({**facts, "shipped_configs": shipped_configs(CONFIGS)}, as_json)


@app.command()
def export(
    checkpoint: command.CheckpointOption = None,
    out: command.OutOption = Path("runs/music-export"),
    name: Annotated[str, typer.Option("--name", help="The name of the two files, without ending.")] = "model",
    as_json: command.JsonOption = False,
) -> None:
    """Write a model in half the size (float16), to hand on: NAME.safetensors and its card NAME.json."""
    from apps.music.predict import export as work

    command.emit(work(checkpoint, out, name), as_json)
