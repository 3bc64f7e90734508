"""Whether data files are still those whose footers a plan was made from.

A query reads a file several times and in several processes: footers when it is planned, row groups
in every copy of an element. If the file changes meanwhile, each may see another one, and the answer
is wrong without any error. So files are compared before a query and after it: one that has the same
inode, size and time of modification at its end was not changed while it was read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from libd.errors import ScadError
from operators.errors import DataFileError, FileChangedError

__all__ = ["FileVersion", "VersionedFile", "Versions", "check", "file_versions", "unchanged"]


class FileVersion(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileVersion:
        """The state of a file now.

        Raises
        ------
        DataFileError
            If it cannot be found; the message names it.
        """
        try:
            found = os.stat(path)
        except FileNotFoundError:
            raise DataFileError(f"{path}: there is no such file") from None
        except OSError as error:
            raise DataFileError(f"{path}: {error.strerror}") from None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


Versions = tuple[FileVersion | None, ...]
"""The states of several files; None for one that is not there."""


def file_versions(paths: Sequence[str]) -> Versions:
    """The states of files now, for what is kept of them between elements."""
    found: list[FileVersion | None] = []
    for path in paths:
        try:
            found.append(FileVersion.of(path))
        except DataFileError:
            found.append(None)
    return tuple(found)


VersionedFile = tuple[str, FileVersion]
"""A file's path, and the state in which it was registered or opened."""


def check(files: Iterable[VersionedFile]) -> None:
    """Compare files with what is known of them.

    Raises
    ------
    FileChangedError
        If a file is another one now, or cannot be found; the message names it.
    """
    for path, known in files:
        if not os.path.exists(path):
            raise FileChangedError(f"{path}: the file is gone since it was registered or opened")
        if FileVersion.of(path) != known:
            raise FileChangedError(
                f"{path}: the file changed since it was registered or opened: "
                "register it, or make the frame, again"
            )


@contextmanager
def unchanged(files: Iterable[VersionedFile]) -> Iterator[None]:
    """Check files before and after a block. An error of ours in the block is taken for a
    consequence of a file that changed.

    Raises
    ------
    FileChangedError
        As `check`.
    """
    files = list(dict.fromkeys(files))
    check(files)
    try:
        yield
    except ScadError as error:
        try:
            check(files)
        except FileChangedError as changed:
            raise changed from error
        raise
    check(files)
