"""A zip or tar archive of MIDI files, opened so that no archive can write elsewhere or fill the disk."""

import contextlib
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from shared.errors import InputError
from shared.io.files import input_file

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
WANTED = (".mid", ".midi", ".csv")
MOST_BYTES = 4 << 30  # all that the archive claims to hold, wanted or not
MOST_MEMBERS = 200_000
# RuntimeError is what zipfile raises for an encrypted archive, NotImplementedError for a compression it does not know.
DAMAGED = (tarfile.FilterError, tarfile.ReadError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError)
DAMAGED += (RuntimeError, NotImplementedError)


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
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the archive
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: cannot be unpacked ({text}); get a whole copy, or give the folder") from None
        yield Path(folder)


def _unpack(path: Path, folder: Path) -> None:
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:  # whose `extract` never leaves the folder
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check_size(path, sum(member.file_size for member in members), len(members))
            for member in members:
                if member.filename.lower().endswith(WANTED):
                    archive.extract(member, folder)
        return
    total = 0
    with tarfile.open(path, "r:*") as archive:
        for count, member in enumerate(archive, 1):
            total += max(member.size, 0)
            _check_size(path, total, count)
            if member.isreg() and member.name.lower().endswith(WANTED):
                archive.extract(member, folder, filter="data")


def _check_size(path: Path, claimed: int, members: int) -> None:
    if claimed > MOST_BYTES or members > MOST_MEMBERS:
        raise InputError(f"{path}: holds more than 4 GiB or 200,000 files; unpack it and give the folder")
