"""`manyheads recommendation ...`: the command line of MQSA-TED. It parses; the work lies in the other rooms."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from shared import command
from shared.errors import InputError

app = typer.Typer(no_args_is_help=True)

RUN = Path("runs/recommendation")

Split = Annotated[Literal["valid", "test"], typer.Option("--split", help="Which held-out item of each user.")]
Seen = Annotated[bool, typer.Option("--seen/--no-seen", help="Whether items of the user's history may come up again.")]
Top = Annotated[int, typer.Option("--top", min=1, max=1000, help="How many items.")]
User = Annotated[str | None, typer.Option("--user", help="A user's id in the data.", show_default=False)]
Items = Annotated[
    str | None, typer.Option("--items", help="Item ids in order of time, with commas: a user of your own making.")
]


@app.callback()
def recommendation() -> None:
    """Next items from a user's history by MQSA-TED, with the reason."""


@app.command()
def train(
    data: command.DataOption = None,
    out: command.OutOption = RUN,
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
    """Train on a table of events, RecBole's atomic files, or lines of S3-Rec (left out: MovieLens 100k)."""
    settings = _settings(config, sets)
    from apps.recommendation import train as work
    from shared.training.trainer import Hardware

    hardware = Hardware(device, devices, num_nodes, strategy, precision)
    command.emit(work.train(settings, data, out, seed=seed, resume=resume, hardware=hardware), as_json)


@app.command()
def evaluate(
    checkpoint: command.CheckpointOption = RUN,
    data: command.DataOption = None,
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", help="A run of the same settings with another seed, for mean and sd; repeatable."),
    ] = None,
    split: Split = "test",
    seen: Seen = False,
    out: command.OutOption = Path("runs/recommendation-evaluation"),
    seed: command.SeedOption = 0,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """HR, NDCG, MRR and coverage by full ranking of held-out items, by history length and by transition frequency."""
    from apps.recommendation.evaluate import evaluate as work

    paths = [_run(checkpoint), *(also or [])]
    command.emit(work(paths, data, split, out, seen=seen, seed=seed, device=device), as_json)


@app.command()
def compare(
    data: command.DataOption = None,
    out: command.OutOption = Path("runs/recommendation-comparison"),
    config: command.ConfigOption = None,
    sets: command.SetOption = None,
    engine: Annotated[
        Literal["own", "recbole", "both"],
        typer.Option("--engine", help="Our models, RecBole's (and ours inside RecBole), or both."),
    ] = "own",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each model, from --seed up.")] = 1,
    epochs: Annotated[int, typer.Option("--recbole-epochs", min=1, help="Epochs at most of RecBole's models.")] = 20,
    split: Split = "test",
    seen: Seen = False,
    seed: command.SeedOption = 0,
    resume: command.ResumeOption = False,
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """POP, a Markov table, SASRec-CE, MQSA, MQSA-TED (and RecBole's models) trained and ranked alike, in one table."""
    settings = _settings(config, sets)
    from apps.recommendation.compare import Plan
    from apps.recommendation.compare import compare as work

    plan = Plan(engine, range(seed, seed + seeds), epochs, split, seen, resume, device)
    command.emit(work(settings, data, out, plan), as_json)


@app.command()
def recommend(
    checkpoint: command.CheckpointOption = RUN,
    data: command.DataOption = None,
    user: User = None,
    items: Items = None,
    everyone: Annotated[bool, typer.Option("--all", help="All users of the data, into one file.")] = False,
    top: Top = 10,
    seen: Seen = False,
    allow: Annotated[
        Path | None, typer.Option("--allow", help="Recommend only these: a file, one item id a line.")
    ] = None,
    deny: Annotated[
        Path | None, typer.Option("--deny", help="Never recommend these: a file, one item id a line.")
    ] = None,
    kind: Annotated[Literal["csv", "json", "parquet"], typer.Option("--format", help="Of the file of --all.")] = "csv",
    out: command.OutOption = Path("runs/recommendations"),
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """The next items for a user of the data, for any list of items, or for all users."""
    if sum((user is not None, items is not None, everyone)) != 1:
        raise InputError("recommend: give one of --user ID, --items ID,ID,... and --all")
    from apps.recommendation.recommend import Wish
    from apps.recommendation.recommend import recommend as work
    from apps.recommendation.recommender import load

    wish = Wish(top, seen, allow, deny)
    command.emit(work(load(_run(checkpoint), device), data, out, user, items, wish, kind), as_json)


@app.command()
def similar(
    item: Annotated[str, typer.Argument(metavar="ITEM", help="An item's id, or its title.")],
    checkpoint: command.CheckpointOption = RUN,
    top: Top = 10,
    as_json: command.JsonOption = False,
) -> None:
    """The items that the model holds closest to one (cosine of the embeddings)."""
    from apps.recommendation.recommend import similar as work
    from apps.recommendation.recommender import load

    command.emit(work(load(_run(checkpoint), "cpu"), item, top), as_json)


@app.command()
def explain(
    checkpoint: command.CheckpointOption = RUN,
    data: command.DataOption = None,
    user: User = None,
    items: Items = None,
    item: Annotated[
        str | None,
        typer.Option(
            "--item", help="The item to explain; left out: the first that is recommended.", show_default=False
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, max=50, help="How many items of the history to show.")] = 10,
    out: command.OutOption = Path("runs/recommendation-explained"),
    device: command.DeviceOption = "auto",
    as_json: command.JsonOption = False,
) -> None:
    """Why an item is recommended: the score by branch, the items attended to, and how many users went that way."""
    if (user is None) == (items is None):
        raise InputError("explain: give one of --user ID and --items ID,ID,...")
    from apps.recommendation.explain import explain as work
    from apps.recommendation.recommender import load

    command.emit(work(load(_run(checkpoint), device), data, out, user, items, item, top), as_json)


@app.command()
def export(
    checkpoint: command.CheckpointOption = RUN,
    out: command.OutOption = Path("runs/recommendation-export"),
    as_json: command.JsonOption = False,
) -> None:
    """The item matrix and the encoder (torch.export) for serving, checked to give equal scores."""
    from apps.recommendation.export import export as work
    from apps.recommendation.recommender import load

    command.emit(work(load(_run(checkpoint), "cpu"), out), as_json)


@app.command()
def info(checkpoint: command.CheckpointOption = None, as_json: command.JsonOption = False) -> None:
    """What a model is: size, data, figures; and which configurations come with the app."""
    from apps.recommendation.config import CONFIGS
    from shared.config import shipped_configs

    facts: dict = {"shipped_configs": shipped_configs(CONFIGS)}
    if checkpoint is not None or (RUN / "model.safetensors").exists():
        from apps.recommendation.recommender import facts as work

        facts = {**work(_run(checkpoint)), **facts}
    command.emit(facts, as_json)


def _settings(config: Path | None, sets: list[str] | None):
    from apps.recommendation.config import CONFIGS, RecommendationConfig
    from shared.config import find_config, load_config

    return load_config(RecommendationConfig, find_config(config, CONFIGS), sets or [])


def _run(checkpoint: Path | None) -> Path:
    if checkpoint is None:
        return RUN
    return checkpoint
