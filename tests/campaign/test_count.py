"""The page on faults says how many cases there are."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pages" / "reference" / "faults.md"


def test_the_page_says_how_many_cases_there_are(request: pytest.FixtureRequest) -> None:
    files = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    mine = [item for item in request.session.items if item.path.parent == Path(__file__).parent]
    if {item.path.name for item in mine} != files or request.config.option.keyword:
        pytest.skip("a part of the campaign runs")
    text = PAGE.read_text()
    rows = [int(row) for row in re.findall(r"^\|.*\| (\d+) \|$", text, re.MULTILINE)]
    assert sum(rows) == len(mine) - 1
    assert f"{sum(rows)} cases" in text
