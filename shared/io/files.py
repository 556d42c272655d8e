"""Files that are written whole or not at all, and read with errors that say what to mend."""

import contextlib
import hashlib
import json
import math
import os
import platform
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.errors import InputError, ManyheadsError

# In the name of every unfinished file, with the machine and the process that writes it, so that what a kill left behind
# can be told from what another process is writing.
PARTIAL = ".partial-"
MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:6]


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yields a path beside `path` (same suffix) to write to; it takes the place of `path` when the block ends well.

    When the block raises, or the process is killed, `path` is as it was before.
    Raises `InputError` when `path` is a folder or a device.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not an ordinary file; name a file to write to")
    output_folder(path.parent)
    _remove_leavings(path.parent)
    partial = path.with_name(f".{path.stem}{PARTIAL}{MACHINE}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
    except Exception as error:
        if getattr(error, "errno", None) is None and not isinstance(error, ManyheadsError):
            _raise_if_full(partial, path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    # The rename itself lies in the folder; not every system can sync one, and the file is whole either way.
    with contextlib.suppress(OSError):
        _sync(path.parent)


def _raise_if_full(partial: Path, path: Path) -> None:
    """Raises the system's `OSError` where `partial` cannot grow. Libraries have other words for a full disk."""
    try:
        with open(partial, "ab") as file:
            file.write(bytes(2**16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_looked_into: set[Path] = set()


def _remove_leavings(folder: Path) -> None:
    """Removes what processes of this machine that live no more left half written in `folder`, which is looked through
    once."""
    place = folder.absolute()
    if place in _looked_into:
        return
    _looked_into.add(place)
    for partial in folder.glob(f".*{PARTIAL}{MACHINE}-*"):
        process = partial.name.partition(f"{PARTIAL}{MACHINE}-")[2].partition("-")[0]
        if process.isdecimal() and not _lives(int(process)):
            partial.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    if os.name == "nt":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a number that is none
        return True
    return True


def write_bytes(path: Path | str, data: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    write_text(path, to_json(value, indent=2) + "\n")


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as strict JSON: numpy and torch numbers and arrays become numbers and lists, paths text, NaN null."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch, neither of which is worth importing here
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no place in a JSON file")


def read_json(path: Path | str) -> Any:
    """The content of a JSON file. Raises `InputError` when it is missing, empty or not JSON."""
    path = input_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; give a JSON file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}: is not valid JSON ({error.msg}); mend or rewrite it") from None


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_file(path: Path | str) -> Path:
    """`path` as a readable file with something in it, else `InputError`."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; change its permissions")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; give a file with content")
    return path


_made: list[Path] = []  # by `output_folder`, the outer before the inner


def output_folder(path: Path | str) -> Path:
    """`path` as a folder that can be written to, made where it is missing, else `InputError`."""
    path = Path(path)
    missing = [folder for folder in (path.absolute(), *path.absolute().parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        _made.extend(reversed(missing))
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path}: is, or lies under, a file; name a folder to write to") from None
    except PermissionError:
        raise InputError(f"{path}: may not be made here; name a folder that you can write to") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path}: may not be written to; name another folder or change its permissions")
    return path


@contextlib.contextmanager
def leaving_no_empty_folder() -> Iterator[None]:
    """When the block fails, removes the folders that `output_folder` made in it and nothing was written to.

    They are made before the work, so that a place that cannot be written to is known before it.
    """
    before = len(_made)
    try:
        yield
    except (Exception, KeyboardInterrupt):
        for folder in reversed(_made[before:]):
            with contextlib.suppress(OSError):  # it holds something, or is gone
                folder.rmdir()
        raise
    finally:
        del _made[before:]
