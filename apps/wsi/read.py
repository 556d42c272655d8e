"""`--data` and `--labels`: whatever they name, as bags."""

from pathlib import Path

from apps.wsi.bags import Bags
from apps.wsi.classic import NAMES, read_classic, read_csv
from shared.errors import InputError


def read_data(data: Path | None, labels: Path | None = None) -> Bags:
    """The data set that `--data` names: musk1, musk2, elephant, ucsb, digits; a MIL table; a folder of features."""
    if data is None:
        raise InputError(f"--data: is required; name a folder of features, a CSV table, or one of {', '.join(NAMES)}")
    if str(data) in NAMES and not data.exists():
        return read_classic(str(data))
    if data.suffix.lower() == ".csv" and labels is None:
        return read_csv(data)
    raise InputError(f"{data}: no such file or folder")
