"""Child processes that never outlive their parent, whichever way it ends.

Two mechanisms, because each has a hole: the kernel's parent-death signal reaches a child even
when it is busy in native code, but kills it before it can clean up; the *lifeline*, a pipe that
the parent holds and never writes to, gives a child the time to clean up, but needs a thread that
waits on it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["die_with_parent", "ignore_terminal_signals", "spawn", "watch_lifeline"]

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def spawn(
    module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``python -m module arguments…``; its stdin is the lifeline, its stdout ours to read.

    The child sees this process's copy of the package, also when the program runs from a source
    tree that is not installed. `environment` is added to this process's.
    """
    root = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([root, inherited]) if inherited else root
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {}), "PYTHONPATH": path},
    )


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process as soon as the thread that started it ends.

    Parameters
    ----------
    parent
        Process id that the parent must still have; if it is already gone, this process ends here.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def ignore_terminal_signals() -> None:
    """Leave Ctrl-C and a closed terminal to the parent, which then ends the lifeline."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def watch_lifeline(descriptor: int, on_end: Callable[[], None]) -> None:
    """Run `on_end` and end the process when the other end of the pipe `descriptor` is closed."""

    def watch() -> None:
        # A raw read: a thread inside a buffered one would abort the interpreter's normal exit.
        while os.read(descriptor, 1):
            pass
        try:
            on_end()
        finally:
            os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
