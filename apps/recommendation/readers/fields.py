"""The fields of one event, checked with errors that name the file and the line."""

import math
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from shared.errors import InputError

MISSING = {"", "nan", "null", "none", "na", "n/a"}
MICROSECONDS = 1_000_000


def identifier(text: str, what: str, where: str) -> str:
    """An id as given, without space around it. Raises InputError for a missing or a negative one."""
    text = text.strip()
    if text.lower() in MISSING:
        raise InputError(f"{where}: the {what} id is missing ({text or 'empty'}); give one, or take the line out")
    if text[0] == "-" and text[1:].replace(".", "", 1).isdecimal():
        raise InputError(
            f"{where}: the {what} id {text} is negative, as for a missing one; mend it, or take the line out"
        )
    return text


def time_of(text: str, where: str) -> int:
    """A time in microseconds: a number of seconds (exact) or an ISO 8601 date and time (UTC if unsaid)."""
    text = text.strip()
    if text.isdecimal():  # by far the most
        return _in_range(int(text) * MICROSECONDS, text, where)
    if text.lower() in MISSING:
        raise InputError(f"{where}: the time is missing ({text or 'empty'}); give one, or take the line out")
    try:
        number = Decimal(text)
    except InvalidOperation:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise InputError(
                f"{where}: the time {text[:40]!r} is neither a number nor a date like 2024-01-31 12:00; mend it"
            ) from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * MICROSECONDS)
    if not number.is_finite():
        raise InputError(f"{where}: the time {text} is not finite; mend it, or take the line out")
    return _in_range(int(number * MICROSECONDS), text, where)


def _in_range(microseconds: int, text: str, where: str) -> int:
    # Beyond, it would not be an int64: nobody's clock says so.
    if abs(microseconds) >= 2**63:
        # Milli-, micro- and nanoseconds since 1970 are in use, too.
        raise InputError(f"{where}: the time {text[:40]} is too large for seconds; give seconds")
    return microseconds


def number_of(text: str, what: str, where: str) -> float:
    """A finite number. Raises InputError for anything else."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: the {what} {text.strip()[:40]!r} is not a number; mend it") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: the {what} is {text.strip()}; mend it, or take the line out")
    return value
