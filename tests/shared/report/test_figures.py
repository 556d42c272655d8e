import subprocess
import sys
from pathlib import Path

import pytest

from shared.report.figures import COLOURS, new_figure, save_figure


def draw(width: float = 4.0, height: float = 3.0):
    figure = new_figure(width, height)
    axes = figure.subplots(1, 2)
    axes[0].plot([0, 1], [1, 0], label="a line")
    axes[1].set_title("a title")
    return figure


def test_png_and_svg_are_written_and_repeatable(tmp_path: Path) -> None:
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        for name in ("a", "b"):
            save_figure(draw(), tmp_path / f"{name}{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes().startswith(start)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert "a title" in (tmp_path / "a.svg").read_text()
    assert len(list(tmp_path.iterdir())) == 4


def test_size_and_style(tmp_path: Path) -> None:
    figure = draw(5.0, 2.0)
    assert tuple(figure.get_size_inches()) == (5.0, 2.0)
    axes = figure.axes[0]
    assert not axes.spines["top"].get_visible()
    assert axes.lines[0].get_color() == COLOURS[0]


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        save_figure(draw(), tmp_path / "a.pdf")


def test_nothing_global_is_touched() -> None:
    code = (
        "import sys; from matplotlib import rcParams\n"
        "state = lambda: {key: rcParams[key] for key in rcParams if key != 'backend'}; before = state()\n"
        "from shared.report.figures import new_figure; new_figure(2, 2).subplots()\n"
        "assert state() == before; assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[3])
