"""Configuration: pydantic models that refuse unknown fields, read from TOML and from `--set a.b=value`."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import pydantic
import tomli_w

from shared.errors import InputError
from shared.io.files import input_file, write_text


class Config(pydantic.BaseModel):
    """Base of every app's configuration: unknown fields are an error, values do not change, and numbers are finite."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


C = TypeVar("C", bound=pydantic.BaseModel)


def load_config(model: type[C], path: Path | None = None, sets: Sequence[str] | None = None) -> C:
    """The configuration in `path` (a TOML file; None: the defaults), changed by `sets` such as `model.layers=8`.

    A value in `sets` is read as TOML (numbers, true, [1, 2], "text"), and as plain text where it is none.
    Raises `InputError`, one line that names the file, the field and what is allowed.
    """
    values = _read_toml(path) if path is not None else {}
    given: dict[tuple[str, ...], str] = {}
    for text in sets or ():
        keys = _override(values, text)
        given[keys] = f"--set {text}"
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise InputError(_one_line(model, error, path, given)) from None


def shipped_configs(folder: Path) -> list[str]:
    """The names of the TOML files in `folder` (an app's `configs/`), as `--config NAME` takes them."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def find_config(path: Path | None, folder: Path) -> Path | None:
    """A user's file as it is; the bare name of a config shipped in `folder` as its file. InputError: it is neither."""
    if path is None or path.is_file() or path.suffix or path.name != str(path):
        return path
    shipped = folder / f"{path}.toml"
    if not shipped.exists():
        raise InputError(f"--config {path}: is no file, nor one of {', '.join(shipped_configs(folder))}")
    return shipped


def write_config(config: pydantic.BaseModel, path: Path) -> None:
    """Writes the whole configuration as TOML. Fields that are None are left out: TOML has no null."""
    write_text(path, config_text(config))


def config_text(config: pydantic.BaseModel) -> str:
    """The configuration as TOML, as `write_config` writes it."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _read_toml(path: Path) -> dict[str, Any]:
    path = input_file(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not valid TOML ({error}); mend that place") from None


def _override(values: dict[str, Any], text: str) -> tuple[str, ...]:
    name, equals, value = text.partition("=")
    keys = tuple(key.strip() for key in name.split("."))
    if not equals or not all(keys):
        raise InputError(f"--set {text}: is not of the form field=value, such as model.layers=8")
    table = values
    for depth, key in enumerate(keys[:-1]):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {text}: {'.'.join(keys[: depth + 1])} is a value, not a table of fields")
    table[keys[-1]] = _parse_value(value.strip())
    return keys


def _parse_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _one_line(
    model: type[pydantic.BaseModel],
    error: pydantic.ValidationError,
    path: Path | None,
    given: dict[tuple[str, ...], str],
) -> str:
    first = error.errors()[0]
    where = tuple(str(part) for part in first["loc"])
    # The source is the --set that wrote the field, a part of it or what holds it, else the file.
    source = next(
        (text for keys, text in given.items() if all(a == b for a, b in zip(keys, where, strict=False))), None
    )
    source = source or (str(path) if path is not None else "configuration")
    if first["type"] == "extra_forbidden":
        known = _fields(model, first["loc"][:-1])
        near = difflib.get_close_matches(where[-1], known, n=1)
        mend = f"unknown field; did you mean {near[0]}?" if near else f"unknown field; known: {', '.join(known)}"
    elif first["type"] == "missing":
        mend = "is required; add it"
    else:
        got = repr(first["input"])
        mend = f"{first['msg'][:1].lower()}{first['msg'][1:]}, not {got if len(got) < 60 else got[:57] + '...'}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    field = ".".join(where)
    return " ".join(f"{source}: {field + ': ' if field else ''}{mend}{more}".split())


def _fields(model: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The names of the fields of the (nested) model at `location`."""
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # an index of a list, or the tag of a union
        candidates = [field.annotation, *_flat_args(field.annotation)]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, pydantic.BaseModel)), model)
    return list(model.model_fields)


def _flat_args(annotation: Any) -> list[Any]:
    return [inner for arg in get_args(annotation) for inner in (arg, *_flat_args(arg))]
