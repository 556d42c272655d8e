"""The page in headless Chromium at the widths of a phone and of a desk: nothing sticks out, everything is painted."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shared.report.figures import new_figure, save_figure
from shared.report.page import Section, write_page

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not BROWSER, reason="needs Chromium (on Debian: apt-get install chromium)")

WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    figure = new_figure(12, 3)
    figure.subplots().plot(range(100))
    save_figure(figure, folder / "a_wide_picture.png")
    row = {f"column {i}": "some words that take room" for i in range(12)}
    sections = [
        Section("Words", "A paragraph.\n\n" + "averyverylongwordwithoutanyspace" * 8),
        Section("A wide table", table=[row, row]),
        Section("A picture and a command", figures=[folder / "a_wide_picture.png"], code="manyheads demo " * 30),
    ]
    write_page(folder / "page.html", "A page", sections)
    return folder / "page.html"


def browser(folder: Path, *arguments: str) -> str:
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}"),
    ]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=180, check=True).stdout


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_at_the_side(page: Path, width: int, tmp_path: Path) -> None:
    inside = html.escape(page.read_text(encoding="utf-8"), quote=True)
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<title>none</title><iframe id="page" style="width: {width}px; height: 900px; border: 0" srcdoc="{inside}" '
        'onload="document.title = this.contentDocument.documentElement.scrollWidth"></iframe>',
        encoding="utf-8",
    )
    shown = browser(tmp_path, "--virtual-time-budget=3000", "--dump-dom", f"file://{frame}")
    found = re.search(r"<title>(\d+)</title>", shown)
    assert found, shown[:300]
    assert int(found[1]) <= width


def test_a_screenshot_is_no_blank_page(page: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    picture = tmp_path / "page.png"
    browser(tmp_path, "--window-size=1280,900", f"--screenshot={picture}", f"file://{page}")
    pixels = imread(picture)[..., :3]
    assert pixels.shape[1] == 1280
    dark = (pixels.mean(-1) < 0.5).mean()
    assert 0.001 < dark < 0.5
