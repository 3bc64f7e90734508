"""Scratch directories: local disk that an element may use while it runs.

A directory is locked by the worker that made it, for as long as that lives. Whoever finds one that
is not locked may remove it: the worker itself when the element ends, the zygote when a worker was
killed, the next zygote when all of them were.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
from pathlib import Path

__all__ = ["Scratch", "sweep"]

PREFIX = "scad-scratch-"


# Seconds between two looks at how much there is.
_INTERVAL = 0.05


class Scratch:
    """A directory that is made when somebody first asks for it, and removed by `close`.

    Attributes
    ----------
    peak
        The most bytes that were seen in it.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._path: str | None = None
        self._lock = -1
        self._closing = threading.Event()

    @property
    def path(self) -> str:
        """The directory.

        Raises
        ------
        OSError
            If it cannot be made.
        """
        while self._path is None:
            path = tempfile.mkdtemp(prefix=PREFIX)
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # somebody who sweeps was faster
                os.close(lock)
                continue
            self._path, self._lock = path, lock
            threading.Thread(target=self._watch, args=(path,), daemon=True).start()
        return self._path

    def _watch(self, path: str) -> None:
        while not self._closing.wait(_INTERVAL):
            self.peak = max(self.peak, _bytes_in(path))

    def close(self) -> None:
        """Remove the directory, if there is one. Idempotent."""
        path, self._path = self._path, None
        if path is None:
            return
        self._closing.set()
        self.peak = max(self.peak, _bytes_in(path))
        shutil.rmtree(path, ignore_errors=True)
        os.close(self._lock)


def _bytes_in(path: str) -> int:
    """Bytes on disk of the files in a directory; files may come and go meanwhile."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def sweep() -> None:
    """Remove this user's scratch directories whose workers have ended."""
    for path in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
