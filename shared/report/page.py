"""One self-contained HTML page out of sections of text, figures, sounds and tables."""

import base64
import math
import mimetypes
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shared.io.files import input_file, write_text

# Python's own table has no entry for some of these, and other names on other systems.
TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif"}
TYPES |= {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg", ".mp4": "video/mp4"}


@dataclass
class Section:
    """A part of a page. Its text is plain: empty lines part paragraphs, and nothing in it is read as HTML.

    Figures are images and videos. The rows of a table are dicts; its columns are their keys, in order of appearance.
    Code is shown as it is. A link is a file that stays where it is, linked relative to the page.
    """

    title: str
    text: str = ""
    figures: list[Path] = field(default_factory=list)
    audio: list[Path] = field(default_factory=list)
    table: list[dict[str, Any]] | None = None
    code: str = ""
    links: list[Path] = field(default_factory=list)


def write_page(path: Path, title: str, sections: list[Section], subtitle: str = "") -> None:
    """Writes the page, with images and sounds inside. Raises `InputError` when one of them is missing or empty."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.jinja").render(
        title=title,
        subtitle=subtitle,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        sections=[_view(section, number, path.parent) for number, section in enumerate(sections, 1)],
    )
    write_text(path, page)


def _view(section: Section, number: int, folder: Path) -> dict[str, Any]:
    columns = list(dict.fromkeys(name for row in section.table or [] for name in row))
    return {
        "id": f"section-{number}",
        "title": section.title,
        "paragraphs": [part.strip() for part in section.text.split("\n\n") if part.strip()],
        "figures": [_media(file) for file in section.figures],
        "audio": [_media(file) for file in section.audio],
        "columns": [column.replace("_", " ") for column in columns],
        "rows": [[_cell(row.get(column)) for column in columns] for row in section.table or []],
        "code": section.code.strip("\n"),
        "links": [{"name": file.name, "address": _address(file, folder)} for file in section.links],
    }


def _media(file: Path) -> dict[str, str]:
    data = input_file(file).read_bytes()
    kind = TYPES.get(file.suffix.lower()) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    caption = file.stem.replace("_", " ").replace("-", " ")
    return {"address": f"data:{kind};base64,{base64.b64encode(data).decode()}", "kind": kind, "caption": caption}


def _address(file: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix())


def _cell(value: Any) -> dict[str, Any]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        text = "–"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.4g}"
    else:
        text = str(value)
    return {"text": text, "number": number}
