import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest

from shared.errors import InputError
from shared.report.figures import new_figure, save_figure
from shared.report.page import Section, write_page


class Checked(HTMLParser):
    """Fails on tags that are not closed in order, and collects addresses and text."""

    VOID = frozenset({"meta", "img", "br", "link", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def parsed(path: Path) -> Checked:
    page = Checked()
    page.feed(path.read_text())
    assert not page.open
    return page


def test_the_page_holds_everything_itself(tmp_path: Path) -> None:
    figure = new_figure(2, 2)
    figure.subplots().plot([1, 2])
    save_figure(figure, tmp_path / "piano_roll.png")
    save_figure(figure, tmp_path / "arcs.svg")
    (tmp_path / "out").mkdir()
    (tmp_path / "sound.wav").write_bytes(b"RIFF....")
    (tmp_path / "a b.mid").write_bytes(b"MThd")
    sections = [
        Section(
            "Music",
            text="first\n\nsecond",
            figures=[tmp_path / "piano_roll.png", tmp_path / "arcs.svg"],
            audio=[tmp_path / "sound.wav"],
            table=[{"split": "test", "nll_per_token": 0.33512}, {"split": "valid", "better": True, "n": None}],
            code="manyheads music generate",
            links=[tmp_path / "a b.mid"],
        ),
        Section("Empty"),
    ]
    path = tmp_path / "out" / "report.html"
    write_page(path, "Demo", sections, subtitle="what was made")
    page = parsed(path)
    media = [address for address in page.addresses if address.startswith("data:")]
    assert [address.split(";")[0] for address in media] == ["data:image/png", "data:image/svg+xml", "data:audio/wav"]
    assert base64.b64decode(media[0].split(",")[1]) == (tmp_path / "piano_roll.png").read_bytes()
    assert [a for a in page.addresses if not a.startswith("data:")] == ["#section-1", "#section-2", "../a%20b.mid"]
    for words in (
        "what was made",
        "second",
        "0.3351",
        "nll per token",
        "yes",
        "manyheads music generate",
        "piano roll",
    ):
        assert words in page.words
    text = path.read_text()
    for part in ("viewport", "prefers-color-scheme: dark", "@media print"):
        assert part in text
    assert "http" not in text


def test_what_a_user_gives_is_text_and_not_html(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    section = Section(evil, text=evil, table=[{evil: evil}], code=evil, links=[tmp_path / f"{evil}.mid"])
    write_page(tmp_path / "p.html", evil, [section], subtitle=evil)
    assert "script" not in parsed(tmp_path / "p.html").seen


def test_a_missing_figure_is_named_and_the_old_page_stays(tmp_path: Path) -> None:
    path = tmp_path / "p.html"
    write_page(path, "Old", [])
    with pytest.raises(InputError, match=r"none\.png"):
        write_page(path, "New", [Section("s", figures=[tmp_path / "none.png"])])
    assert "Old" in path.read_text()
