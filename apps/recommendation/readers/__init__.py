"""From a path to histories: which reader a file needs, and the data that the app brings."""

import importlib.util
from dataclasses import replace
from pathlib import Path

from apps.recommendation.config import DataConfig
from apps.recommendation.histories import Events, Histories, make_histories
from apps.recommendation.readers.lines import read_lines
from apps.recommendation.readers.tables import read_table, read_titles
from shared.errors import InputError
from shared.io.files import input_file

BROUGHT = "ml-100k"


def read_histories(path: Path | None, config: DataConfig) -> Histories:
    """Histories from a file or a folder of RecBole's atomic files; None: MovieLens 100k from the recbole package.

    Raises InputError that names the file, the line and the mend.
    """
    file = _file_of(brought() if path is None else path)
    events = _read(file, config)
    beside = Path(config.titles) if config.titles else file.with_suffix(".item")
    if config.titles or (file.suffix == ".inter" and beside.exists()):
        titles, details = read_titles(beside, config.item, config.title)
        events = replace(events, titles=events.titles | titles, details=details)
    return make_histories(
        events,
        min_rating=config.min_rating,
        min_user_events=config.min_user_events,
        min_item_events=config.min_item_events,
        repeats=config.repeats,
    )


def brought() -> Path:
    """MovieLens 100k as the installed recbole package has it (found without importing the package)."""
    found = importlib.util.find_spec("recbole")
    places = [] if found is None else list(found.submodule_search_locations or [])
    for place in places:
        file = Path(place) / "dataset_example" / BROUGHT / f"{BROUGHT}.inter"
        if file.exists():
            return file
    raise InputError("--data: the package recbole, which brings ml-100k, is not installed; name a file of events")


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return input_file(path)
    inside = sorted(path.glob("*.inter"))
    if len(inside) != 1:
        found = "no .inter file" if not inside else f"{len(inside)} .inter files"
        raise InputError(f"{path}: the folder holds {found}; name the file of events")
    return input_file(inside[0])


def _read(file: Path, config: DataConfig) -> Events:
    kind = config.format
    if kind == "auto":
        kind = {".inter": "atomic", ".csv": "table", ".tsv": "table", ".txt": "lines"}.get(file.suffix.lower(), "")
        if not kind:
            raise InputError(
                f"{file}: is none of .inter, .csv, .tsv, .txt; rename it, or say --set data.format=table (or lines)"
            )
    if kind == "lines":
        return read_lines(file)
    return read_table(
        file, user=config.user, item=config.item, time=config.time, rating=config.rating, title=config.title
    )
