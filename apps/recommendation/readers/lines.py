"""Text as S3-Rec prepares it: one user a line, `user item item ...` in order of time."""

from pathlib import Path

from apps.recommendation.histories import Events
from apps.recommendation.readers.fields import identifier
from shared.errors import InputError
from shared.io.files import input_file


def read_lines(path: Path) -> Events:
    """Users with their items, in the order of the lines. Raises InputError that names the file and the line."""
    users: list[str] = []
    items: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text_of(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}: line {number}"
        user, *taken = (identifier(word, "item" if i else "user", where) for i, word in enumerate(words))
        if not taken:
            raise InputError(f"{where}: user {user} has no items; take the line out")
        if user in seen:
            raise InputError(f"{where}: user {user} is on line {seen[user]} already; give each user one line")
        seen[user] = number
        users += [user] * len(taken)
        items += taken
    if not users:
        raise InputError(f"{path}: holds no events; give one user a line: user item item ...")
    return Events(path.name, users, items)


def text_of(path: Path) -> str:
    """The text of a file. Raises InputError where it is none."""
    try:
        return input_file(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
