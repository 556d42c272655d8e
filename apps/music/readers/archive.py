"""A tar archive of MIDI files, opened so that no archive can write elsewhere or fill the disk."""

import contextlib
import lzma
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from shared.errors import InputError
from shared.io.files import input_file

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
WANTED = (".mid", ".midi", ".csv")
MOST_BYTES = 4 << 30  # all that the archive claims to hold, wanted or not
MOST_MEMBERS = 200_000


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with the archive's MIDI and CSV files, gone after the block.

    Links, devices and other files stay inside. Raises InputError: no archive, truncated, a name that points outside,
    more than 4 GiB or 200,000 entries.
    """
    path = input_file(path)
    with tempfile.TemporaryDirectory(prefix="manyheads-") as folder:
        try:
            _unpack(path, Path(folder))
        except (tarfile.FilterError, tarfile.ReadError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the archive
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: cannot be unpacked ({text}); get a whole copy, or give the folder") from None
        yield Path(folder)


def _unpack(path: Path, folder: Path) -> None:
    total = 0
    with tarfile.open(path, "r:*") as archive:
        for count, member in enumerate(archive):
            total += max(member.size, 0)
            if total > MOST_BYTES or count >= MOST_MEMBERS:
                raise InputError(f"{path}: holds more than 4 GiB or 200,000 files; unpack it and give the folder")
            if member.isreg() and member.name.lower().endswith(WANTED):
                archive.extract(member, folder, filter="data")
