from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from shared.config import Config, find_config, load_config, write_config
from shared.errors import InputError


class Model(Config):
    layers: int = Field(4, ge=1)
    kind: Literal["global", "local"] = "global"
    rates: tuple[float, ...] = (0.5, 1.0)
    window: int | None = None


class Whole(Config):
    model: Model = Model()
    title: str = "a title"
    data: Path | None = None


def test_defaults_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('title = "from file"\n[model]\nlayers = 2\nkind = "local"\n')
    assert load_config(Whole) == Whole()
    config = load_config(Whole, path, ["model.layers=8", "model.rates=[1, 2]", "title=plain words", "model.window=3"])
    assert config.model.layers == 8
    assert config.model.kind == "local"
    assert config.model.rates == (1.0, 2.0)
    assert config.title == "plain words"
    assert config.model.window == 3


@given(
    layers=st.integers(1, 99),
    title=st.text(st.characters(exclude_categories=["Cs"])),
    rates=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    window=st.none() | st.integers(-5, 5),
)
def test_write_and_load_round_trip(
    tmp_path_factory: pytest.TempPathFactory, layers: int, title: str, rates: list[float], window: int | None
) -> None:
    config = Whole(model=Model(layers=layers, rates=tuple(rates), window=window), title=title, data=Path("a b"))
    path = tmp_path_factory.mktemp("config") / "config.toml"
    write_config(config, path)
    assert load_config(Whole, path) == config


@pytest.mark.parametrize(
    ("text", "sets", "parts"),
    [
        ("[model]\nlayer = 2", [], ["c.toml", "model.layer", "did you mean layers"]),
        ("zzz = 2", [], ["c.toml", "zzz", "known: model, title, data"]),
        ("[model]\nlayers = 0", [], ["c.toml", "model.layers", "greater than or equal to 1", "not 0"]),
        ('[model]\nkind = "x"', [], ["model.kind", "'global' or 'local'"]),
        ("title = ", [], ["c.toml", "not valid TOML"]),
        ("", ["model.layers=many"], ["--set model.layers=many", "model.layers", "valid integer"]),
        ("", ["layers"], ["field=value"]),
        ("", ["model.=3"], ["field=value"]),
        ("", ["title.x=3"], ["--set title.x=3", "title"]),
        ('title = "t"', ["title.x=3"], ["title is a value"]),
        ("[model]\nlayers = 0\nkind = 3", [], ["and 1 more"]),
    ],
)
def test_errors_are_one_line_that_names_the_place(tmp_path: Path, text: str, sets: list[str], parts: list[str]) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text + "\n")
    with pytest.raises(InputError) as caught:
        load_config(Whole, path, sets)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_config(Whole, tmp_path / "none.toml")


def test_a_folder_of_that_name_does_not_hide_a_shipped_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "demo.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert find_config(Path("demo"), tmp_path / "shipped") == tmp_path / "shipped" / "demo.toml"
    assert find_config(Path("other.toml"), tmp_path / "shipped") == Path("other.toml")
    with pytest.raises(InputError, match="--config dmeo: is no file, nor one of demo"):
        find_config(Path("dmeo"), tmp_path / "shipped")
    (tmp_path / "demo").rmdir()
    (tmp_path / "demo").write_text("")
    assert find_config(Path("demo"), tmp_path / "shipped") == Path("demo")  # a file of the user's goes first
