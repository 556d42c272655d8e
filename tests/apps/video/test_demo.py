"""The demo, whole; it takes a minute or two."""

from pathlib import Path

import pytest

from shared.report.page import write_page


@pytest.mark.slow
def test_the_demo_makes_its_section(tmp_path: Path) -> None:
    from apps.video.demo import run

    said: list[str] = []
    section = run(tmp_path, said.append)
    assert len(said) >= 5
    assert all(file.stat().st_size > 5000 for file in section.figures)
    assert section.table is not None
    carried, held = section.table[0], section.table[1]
    assert carried["J"] > held["J"]
    write_page(tmp_path / "page.html", "demo", [section])
