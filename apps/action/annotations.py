"""Labelled segments from files: ActivityNet's JSON, THUMOS (the same, times as text), CSV, and ELAN's text."""

import csv
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.action.recordings import Segment
from shared.errors import InputError
from shared.io.files import input_file, read_json

SUBSETS = {"training": "train", "train": "train", "validation": "valid", "val": "valid", "valid": "valid"}
SUBSETS |= {"testing": "test", "test": "test"}
SUFFIXES = (".json", ".csv", ".tsv", ".txt")
NAMES = ("video", "recording", "file", "name", "video-id", "video_id")
STARTS, ENDS = ("start", "t-start", "begin", "begin time"), ("end", "t-end", "stop", "end time")
LABELS = ("label", "class", "action", "annotation")


@dataclass
class Annotated:
    """What an annotation file says of one recording."""

    segments: list[Segment] = field(default_factory=list)
    duration: float | None = None
    subset: str = ""
    group: str = ""


def read_annotations(path: Path) -> dict[str, Annotated]:
    """Recording name -> what the file says of it, segments in order of time.

    JSON is ActivityNet's: {"database": {NAME: {"subset", "duration", "annotations": [{"segment": [s, e], "label"}]}}};
    THUMOS has the same with times as text and no durations. CSV and tab-delimited text have a header that names
    recording, start, end and label (and, if they like, duration, subset, group), or, without a header, ELAN's export:
    tier, start, end, duration, label, in a file of the recording's name. Raises InputError that names file and place.
    """
    path = input_file(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        found = _read_json(path)
    elif suffix in SUFFIXES:
        found = _read_table(path)
    else:
        raise InputError(f"{path}: is no annotation file; give one of {', '.join(SUFFIXES)}")
    if not found:
        raise InputError(f"{path}: holds no annotations; name at least one recording")
    for entry in found.values():
        entry.segments.sort()
    return found


def _read_json(path: Path) -> dict[str, Annotated]:
    data = read_json(path)
    database = data.get("database", data) if isinstance(data, dict) else None
    if not isinstance(database, dict):
        raise InputError(f"{path}: has no database of recordings; give ActivityNet's JSON")
    return {str(name): _entry(f"{path}: {name}", entry) for name, entry in database.items()}


def _entry(where: str, entry: Any) -> Annotated:
    if not isinstance(entry, dict) or not isinstance(entry.get("annotations", []), list):
        raise InputError(f"{where}: is no recording with a list of annotations; give ActivityNet's JSON")
    made = Annotated(
        duration=_number(where, "duration", entry["duration"]) if entry.get("duration") is not None else None,
        subset=_subset(where, entry.get("subset", "")),
        group=str(entry.get("group", "")),
    )
    for number, item in enumerate(entry.get("annotations", []), 1):
        place = f"{where}: annotation {number}"
        segment = item.get("segment") if isinstance(item, dict) else None
        if not isinstance(segment, list) or len(segment) != 2:
            raise InputError(f'{place}: has no segment of two times; give {{"segment": [start, end], "label": ...}}')
        label = item.get("label")
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"{place}: has no label; name the class")
        start, end = (_number(place, "segment", value) for value in segment)
        made.segments.append(Segment(start, end, label.strip()))
    return made


def _number(where: str, field_name: str, value: Any) -> float:
    """Seconds, also as minutes:seconds or hours:minutes:seconds, and with a comma for the decimals."""
    parts = str(value).strip().replace(",", ".").split(":")
    try:
        number = sum(float(part) * 60**place for place, part in enumerate(reversed(parts)))
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or len(parts) > 3:
        raise InputError(f"{where}: {field_name}: {str(value)[:30]!r} is no number of seconds; mend it")
    return number


def _subset(where: str, value: Any) -> str:
    text = str(value or "").strip().lower()
    if text and text not in SUBSETS:
        raise InputError(f"{where}: subset: {text[:30]!r} is unknown; use {', '.join(SUBSETS)}")
    return SUBSETS.get(text, "")


def _read_table(path: Path) -> dict[str, Annotated]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; give a table of segments") from None
    top = text.partition("\n")[0]
    tabbed = path.suffix.lower() != ".csv" and "\t" in top
    semicolons = ";" in top and "," not in top  # a spreadsheet's, where the comma is for decimals
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t" if tabbed else ";" if semicolons else ","))
    except csv.Error as error:
        raise InputError(f"{path}: is no table ({error}); write it again") from None
    if not rows:
        return {}
    header = [cell.strip().lower() for cell in rows[0]]
    columns = {key: _column(header, names) for key, names in _wanted().items()}
    if columns["start"] is None or columns["label"] is None:
        if not tabbed:
            raise InputError(f"{path}: line 1: name the columns: recording, start, end, label")
        columns, first = _elan_columns(path, rows), 0
    else:
        first = 1
        if columns["end"] is None:
            raise InputError(f"{path}: line 1: there is no column for the end; name it end")
    found: dict[str, Annotated] = {}
    for number, row in enumerate(rows[first:], first + 1):
        if not any(cell.strip() for cell in row):
            continue
        _add_row(path, number, row, columns, found)
    return found


def _wanted() -> dict[str, tuple[str, ...]]:
    extra = {"duration": ("duration", "recording duration"), "subset": ("subset", "split")}
    return {
        "name": NAMES,
        "start": STARTS,
        "end": ENDS,
        "label": LABELS,
        "group": ("group", "person", "subject"),
        **extra,
    }


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _elan_columns(path: Path, rows: list[list[str]]) -> dict[str, int | None]:
    """ELAN's export without a header: tier, (participant,) begin, end, duration, annotation; times in seconds."""
    width = len(rows[0])
    numbers = [i for i in range(width) if _is_number(rows[0][i])]
    if len(numbers) < 2 or numbers[1] != numbers[0] + 1 or width <= numbers[-1] + 1:
        raise InputError(
            f"{path}: line 1: is neither a header nor tier, start, end, duration, label; see the data page"
        )
    empty = dict.fromkeys(_wanted())
    return {**empty, "start": numbers[0], "end": numbers[1], "label": numbers[-1] + 1}


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _add_row(path: Path, number: int, row: list[str], columns: dict, found: dict[str, Annotated]) -> None:
    where = f"{path}: line {number}"

    def cell(key: str) -> str:
        at = columns[key]
        if at is None:
            return ""
        if at >= len(row):
            raise InputError(f"{where}: has {len(row)} columns, too few for {key}; mend the line")
        return row[at].strip()

    name = cell("name") or path.stem
    entry = found.setdefault(name, Annotated())
    entry.subset = _subset(where, cell("subset")) or entry.subset
    entry.group = cell("group") or entry.group
    # In ELAN's tables the column of that name is the annotation's own duration.
    if columns["name"] is not None and cell("duration"):
        entry.duration = _number(where, "duration", cell("duration"))
    if not cell("label") and not cell("start"):
        return  # a recording without annotations
    if not cell("label"):
        raise InputError(f"{where}: has no label; name the class")
    entry.segments.append(
        Segment(_number(where, "start", cell("start")), _number(where, "end", cell("end")), cell("label"))
    )
