"""What tells that a data file is another one now, for what is kept of it between elements."""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["Versions", "file_versions"]

Versions = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of modification of each file; None for one that is not there."""


def file_versions(paths: Sequence[str]) -> Versions:
    """The versions of files as they are now."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            known = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((known.st_ino, known.st_size, known.st_mtime_ns))
    return tuple(found)
