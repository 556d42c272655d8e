"""How a folder of MIDI files is laid out: MAESTRO, POP909, or any files; and what is to be read from each."""

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import InputError

HASH_RULE = "80/10/10 by the SHA-1 of each file's bytes"
MAESTRO_SPLITS = {"train": "train", "validation": "valid", "test": "test"}


@dataclass
class Layout:
    """`files`: piece name -> file; `given`: piece name -> split, if the data set has its own; `kind`: see parse.py."""

    name: str
    kind: str
    rule: str
    files: dict[str, Path]
    given: dict[str, str] = field(default_factory=dict)
    extra: list[Path] = field(default_factory=list)  # files that decide, and so count in the hash
    skipped: list[tuple[str, str]] = field(default_factory=list)


def find_layout(folder: Path, name: str, codec: str) -> Layout:
    """What there is to read in `folder`. Raises InputError for a folder without MIDI files or a bad MAESTRO table."""
    kind = "grid" if codec == "chorale" else "notes"
    tables = sorted(folder.glob("maestro-v*.csv")) or sorted(folder.glob("*/maestro-v*.csv"))
    if tables:
        return _maestro(tables[-1], name, kind)
    songs = _pop909(folder)
    if songs and codec == "performance":
        return Layout(f"POP909 ({name})", "pop909", HASH_RULE, songs)
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".mid", ".midi") and path.is_file() and not path.name.startswith(".")
    }
    if not files:
        raise InputError(f"{folder}: holds no .mid or .midi files; name a folder of MIDI files")
    return Layout(name, kind, HASH_RULE, files)


def _pop909(folder: Path) -> dict[str, Path]:
    """The songs NNN/NNN.mid; the other versions that the data set has of each are not read."""
    for root in (folder, folder / "POP909"):
        songs = {path.stem: path for path in sorted(root.glob("*/*.mid")) if path.stem == path.parent.name}
        songs = {name: path for name, path in songs.items() if re.fullmatch(r"\d{3}", name)}
        if songs:
            return songs
    return {}


def _maestro(table: Path, name: str, kind: str) -> Layout:
    layout = Layout(f"MAESTRO ({name})", kind, f"the column split of {table.name}", {}, extra=[table])
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: is not a CSV table ({error}); get another copy") from None
    if not rows or not {"split", "midi_filename"} <= set(rows[0]):
        raise InputError(f"{table}: needs the columns split and midi_filename, and at least one row")
    root = table.parent.resolve()
    for row in rows:
        piece, split = row["midi_filename"] or "", MAESTRO_SPLITS.get(row["split"] or "")
        path = (root / piece).resolve()
        if split is None:
            layout.skipped.append((piece, f"its split is {row['split']!r}, not train, validation or test"))
        elif not path.is_relative_to(root) or not path.is_file():
            layout.skipped.append((piece, f"is in {table.name} but not in the folder"))
        else:
            layout.files[piece], layout.given[piece] = path, split
    if not layout.files:
        raise InputError(
            f"{table}: none of its {len(rows)} files is in the folder; put the MIDI files beside the table"
        )
    return layout
