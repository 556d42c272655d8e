"""Recommendations of many users in one file: CSV, JSON or Parquet."""

import csv
import itertools
from collections.abc import Iterable
from pathlib import Path

from shared.io.files import replacing, to_json

COLUMNS = ("user", "place", "item", "title", "score")


def write_rows(path: Path, kind: str, rows: Iterable[tuple[str, int, str, str, float]]) -> None:
    """Rows of `COLUMNS`. JSON has an object a user: {"user", "recommendations": [...]}, one a line in a list."""
    with replacing(path) as partial:
        if kind == "csv":
            with open(partial, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS)
                writer.writerows((*row[:4], f"{row[4]:.6g}") for row in rows)
        elif kind == "json":
            with open(partial, "w", encoding="utf-8") as file:
                file.write("[")
                for number, (user, mine) in enumerate(itertools.groupby(rows, key=lambda row: row[0])):
                    lines = [dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in mine]
                    file.write((",\n" if number else "\n") + to_json({"user": user, "recommendations": lines}))
                file.write("\n]\n")
        else:
            import pyarrow
            import pyarrow.parquet

            columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
            types = (pyarrow.string(), pyarrow.int32(), pyarrow.string(), pyarrow.string(), pyarrow.float32())
            arrays = [pyarrow.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
            pyarrow.parquet.write_table(pyarrow.table(arrays, names=list(COLUMNS)), partial)
