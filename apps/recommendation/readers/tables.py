"""Tables with a row for each event: RecBole's atomic files (`.inter`, `.item`), CSV and TSV with named columns."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from apps.recommendation.histories import Events
from apps.recommendation.readers.fields import identifier, number_of, time_of
from apps.recommendation.readers.lines import text_of
from shared.errors import InputError

USUAL = {
    "user": ("user_id", "user", "userid", "uid", "customer_id", "customer", "session_id", "reviewerid"),
    "item": ("item_id", "item", "itemid", "iid", "product_id", "product", "movie_id", "movieid", "asin", "sku"),
    "time": ("timestamp", "time", "datetime", "date", "unixreviewtime", "unix_time", "ts", "created_at"),
    "rating": ("rating", "ratings", "score", "stars", "overall"),
    "title": ("title", "movie_title", "item_title", "product_title", "name"),
    "details": ("genres", "genre", "class", "category", "categories"),
}


class Table:
    """A file with a header. `rows` yields (line number, cells); every row has as many cells as the header."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = text_of(path)
        first = self.text.partition("\n")[0]
        self.atomic = path.suffix in (".inter", ".item", ".user")
        marks = ["\t"] if self.atomic or path.suffix == ".tsv" else [",", ";", "\t", "|"]
        self.mark = max(marks, key=first.count)
        cells = next(self._cells(), (1, []))[1]
        self.columns = [cell.strip().partition(":")[0] if self.atomic else cell.strip() for cell in cells]
        if not any(self.columns):
            raise InputError(f"{path}: line 1: has no column names; give a header such as user_id,item_id,timestamp")
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise InputError(f"{path}: line 1: has the column {name or '(without a name)'} twice; rename one")

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        quoting = csv.QUOTE_NONE if self.atomic else csv.QUOTE_MINIMAL
        reader = csv.reader(io.StringIO(self.text, newline=""), delimiter=self.mark, quoting=quoting, strict=True)
        last = 0
        try:
            for cells in reader:
                yield last + 1, cells
                last = reader.line_num
        except csv.Error as error:
            raise InputError(f"{self.path}: line {last + 1}: cannot be read as a row ({error}); mend it") from None

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        cells = self._cells()
        next(cells)
        wanted = len(self.columns)
        for number, row in cells:
            if len(row) != wanted:
                if not any(cell.strip() for cell in row):
                    continue
                raise InputError(
                    f"{self.path}: line {number}: has {len(row)} fields where the header has {wanted}; mend that line"
                )
            yield number, row

    def column(self, what: str, name: str | None, required: bool) -> int | None:
        """Where a column stands: the one of this name, or by the usual names. Raises InputError where it must be."""
        lower = [column.lower() for column in self.columns]
        if name is not None:
            if name in self.columns:
                return self.columns.index(name)
            raise InputError(
                f"{self.path}: line 1: has no column {name} (data.{what}); it has {', '.join(self.columns)[:200]}"
            )
        found = next((lower.index(usual) for usual in USUAL[what] if usual in lower), None)
        if found is None and required:
            raise InputError(
                f"{self.path}: line 1: has no column of the usual names of a{'n' if what == 'item' else ''} {what} "
                f"({', '.join(USUAL[what][:4])}, ...); it has {', '.join(self.columns)[:200]}; name it by "
                f"--set data.{what}=NAME"
            )
        return found


def read_table(
    path: Path,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    title: str | None = None,
) -> Events:
    """The events of a table; columns that are not named are found by their usual names, a user and an item column must
    be there. Raises InputError that names the file and the line."""
    table = Table(path)
    user_at, item_at = table.column("user", user, True), table.column("item", item, True)
    time_at, rating_at = table.column("time", time, False), table.column("rating", rating, False)
    title_at = table.column("title", title, False)
    users, items, times, ratings, titles = [], [], [], [], {}
    for number, row in table.rows():
        where = f"{path}: line {number}"
        users.append(identifier(row[user_at], "user", where))
        items.append(identifier(row[item_at], "item", where))
        if time_at is not None:
            times.append(time_of(row[time_at], where))
        if rating_at is not None:
            ratings.append(number_of(row[rating_at], "rating", where))
        if title_at is not None and row[title_at].strip():
            titles.setdefault(items[-1], row[title_at].strip())
    if not users:
        raise InputError(f"{path}: holds a header and no events; give a row for each event")
    notes: dict[str, int | str] = {} if time_at is not None else {"order": "no column of times: the order of the file"}
    return Events(
        path.name,
        users,
        items,
        np.array(times, np.int64) if time_at is not None else None,
        np.array(ratings) if rating_at is not None else None,
        titles,
        notes=notes,
    )


def read_titles(path: Path, item: str | None = None, title: str | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """Item ids with their titles (a year is added where there is one), and with what else is told of them (genres).

    Raises InputError that names the file and the line.
    """
    table = Table(path)
    item_at, title_at = table.column("item", item, True), table.column("title", title, title is not None)
    details_at = table.column("details", None, False)
    year_at = next((i for i, name in enumerate(table.columns) if name in ("release_year", "year")), None)
    titles, details = {}, {}
    for number, row in table.rows():
        name = identifier(row[item_at], "item", f"{path}: line {number}")
        if title_at is not None and row[title_at].strip():
            year = row[year_at].strip() if year_at is not None else ""
            titles[name] = row[title_at].strip() + (f" ({year})" if year else "")
        if details_at is not None and row[details_at].strip():
            details[name] = row[details_at].strip()
    return titles, details
