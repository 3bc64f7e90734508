"""Whether data files are still those that were registered.

A query reads a file several times and in several processes: footers when it is planned, row groups
in every copy of an element. If the file changes meanwhile, each may see another one, and the answer
is wrong without any error. So files are compared before a query and after it: one that has the same
inode, size and time of modification at its end was not changed while it was read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from engine.errors import DataError
from libd.errors import ScadError

__all__ = ["FileVersion", "FileVersions"]


class FileVersion(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileVersion:
        """The state of a file now."""
        found = os.stat(path)
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


class FileVersions:
    """The states in which files were registered. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: dict[str, FileVersion] = {}
        self._lock = threading.Lock()

    def update(self, versions: dict[str, FileVersion]) -> None:
        """Remember files, by path, in place of what was known of them."""
        with self._lock:
            self._known.update(versions)

    def check(self, paths: Iterable[str]) -> None:
        """Compare files with what is known of them; others are ignored.

        Raises
        ------
        DataError
            If a file is another one now, or cannot be found; the message names it.
        """
        for path in paths:
            known = self._known.get(path)
            if known is None:
                continue
            try:
                now = FileVersion.of(path)
            except FileNotFoundError:
                raise DataError(f"{path}: the file is gone since it was registered") from None
            except OSError as error:
                raise DataError(f"{path}: {error.strerror}") from None
            if now != known:
                raise DataError(
                    f"{path}: the file changed since it was registered: register it again"
                )

    @contextmanager
    def unchanged(self, paths: Iterable[str]) -> Iterator[None]:
        """Check files before and after a block. An error of ours in the block is taken for a
        consequence of a file that changed.

        Raises
        ------
        DataError
            As `check`.
        """
        paths = list(dict.fromkeys(paths))
        self.check(paths)
        try:
            yield
        except ScadError as error:
            try:
                self.check(paths)
            except DataError as changed:
                raise changed from error
            raise
        self.check(paths)
