"""`manyheads data`: the public data sets of the papers, where they are had, and whether a folder looks like one."""

import tomllib
from pathlib import Path
from typing import Any

from shared.errors import InputError

CATALOGUE = Path(__file__).resolve().parents[1] / "data" / "datasets.toml"


def catalogue() -> list[dict[str, Any]]:
    """Every data set: name, app, title, licence, source, layout, use, and what `check_data` looks for."""
    return tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))["dataset"]


def list_data(app: str | None) -> dict[str, dict[str, str]]:
    """The catalogue by name, of one app or of all. Raises `InputError` for an app without data sets."""
    rows = [row for row in catalogue() if app in (None, row["app"])]
    if not rows:
        known = ", ".join(sorted({row["app"] for row in catalogue()}))
        raise InputError(f"data list {app}: no such app; known: {known}")
    return {
        row["name"]: {key: row[key] for key in ("app", "title", "licence", "source", "layout", "use")} for row in rows
    }


def check_data(name: str, path: Path) -> dict[str, Any]:
    """Compares a folder (or the one file that a data set consists of) with the expected layout.

    Returns what was found for each pattern. Raises `InputError` for an unknown data set, a path that does not exist,
    an empty file, and the first thing that is missing, with what was expected.
    """
    known = {row["name"]: row for row in catalogue()}
    if name not in known:
        raise InputError(f"data check {name}: no such data set; known: {', '.join(known)}")
    row = known[name]
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the path")
    single = path.is_file()
    found = []
    for need in row["needs"]:
        files = [path] if single and path.match(need["files"]) else _files(path, need["files"])
        if len(files) < need["least"]:
            raise InputError(
                f"{path}: has {len(files)} files {need['files']}, not at least {need['least']}; "
                f"expected: {row['layout']}"
            )
        empty = next((file for file in files if file.stat().st_size == 0), None)
        if empty is not None:
            raise InputError(f"{empty}: is empty; fetch it again from {row['source']}")
        found.append({"files": need["files"], "found": len(files), "at_least": need["least"]})
    for pair in row.get("pairs", ()):
        files = _files(path, pair["each"])
        for file in files:
            partner = path / pair["partner"].format(name=file.name, stem=file.stem, parent=file.parent.name)
            if not partner.exists():
                raise InputError(f"{partner}: is missing, the partner of {file}; expected: {row['layout']}")
        found.append({"files": f"{pair['each']} with {pair['partner']}", "found": len(files), "at_least": 0})
    return {"data": name, "path": str(path), "as_expected": True, "found": found, "next": row["use"]}


def _files(folder: Path, pattern: str) -> list[Path]:
    return [file for file in folder.glob(pattern) if file.is_file()] if folder.is_dir() else []
