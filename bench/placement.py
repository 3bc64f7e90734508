"""On which processors the two ends of every side run.

Left alone, the kernel may run a client and its server on one processor, where a small request takes
a third of the time that it takes between two, and stays with that for seconds: of two equal sides
one may be three times faster for a whole case. With ``--cpus`` all sides run as told.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Placement", "get", "parse", "place", "prefix", "processors", "use"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Processors of clients and of servers; None: wherever the kernel likes."""

    client: frozenset[int] | None = None
    server: frozenset[int] | None = None

    @property
    def ends(self) -> tuple[frozenset[int] | None, frozenset[int] | None]:
        """Those of clients, then those of servers."""
        return self.client, self.server

    def of(self, role: str) -> frozenset[int] | None:
        """Processors for a worker's role, ``"Server"`` or anything else."""
        return self.server if role == "Server" else self.client


_current = Placement()


def use(placement: Placement) -> None:
    """Place processes that are started from now on."""
    global _current
    _current = placement


def get() -> Placement:
    """What is in force."""
    return _current


def processors() -> tuple[int, int]:
    """A processor for the client of a C program and one for its server; -1: any."""
    client, server = (min(cpus) if cpus else -1 for cpus in _current.ends)
    return client, server


def parse(text: str) -> Placement:
    """``CLIENTS:SERVERS``, each a list of processors with commas between.

    Raises
    ------
    ValueError
        if it is not that, or a processor is not there.
    """
    here = os.sched_getaffinity(0)
    ends = [frozenset(int(cpu) for cpu in part.split(",")) for part in text.split(":")]
    if len(ends) != 2 or not all(ends) or not ends[0] | ends[1] <= here:
        raise ValueError(f"not CLIENTS:SERVERS of processors {sorted(here)}: {text!r}")
    return Placement(*ends)


def place(pid: int, cpus: frozenset[int] | None) -> None:
    """Bind all threads of a process; those that it starts later inherit it."""
    if cpus is not None:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cpus)


def prefix(cpus: frozenset[int] | None) -> Sequence[str]:
    """What a command begins with to be started on `cpus`."""
    return [] if cpus is None else ["taskset", "-c", ",".join(map(str, sorted(cpus)))]
