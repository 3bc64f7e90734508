"""What there is besides moving bytes: mapping and attaching, the Python around a call, the server's
own memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench import placement
from bench.elements import QUOTA, served
from bench.harness import Case, Gauge, Options, Timer
from bench.native import CORE, NO_COMPILER, ProgramTimer, compiled
from bench.peers import open_peers
from bench.sizes import label
from bench.work import KIB, MIB, SPAN, Job
from bench.worker import JobTimer, Worker

__all__ = ["mapping", "memory", "overhead"]

CLIENTS = 32
TABLE = 4 * KIB + (1 << 18) * 32
"""Bytes of a tenant's table of regions, which is attached with its arena."""


class Attach(Timer):
    """Connecting to a server and mapping its arena, as the client's process times it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def seconds(self, repeat: int) -> float:
        """Seconds for `repeat` of them."""
        return float(self.worker.ask("attach", repeat))


def mapping(options: Options) -> Iterator[Case]:
    """`map` of an attached arena at three sizes, beside Ray's zero-copy ``get``; attaching, beside
    the system calls that it cannot do without.
    """
    sizes = [4 * KIB] if options.quick else [4 * KIB, MIB, SPAN]
    with served() as memory, compiled("attach.c") as program:
        ours = memory.client("shm")
        again = memory.client("shm")
        yield Case(
            "shm attach (connect, authenticate, map the arena)", "us", Attach(ours),
            "its system calls, from C" if program else NO_COMPILER,
            ProgramTimer(program, QUOTA, TABLE, *placement.processors()) if program else None,
            limit=100.0, repeat=0, table="shm map and attach",
        )  # fmt: skip
        smallest = Job("read", sizes[0], way="map")
        for size in sizes:
            yield Case(
                f"shm map {label(size)}", "us", JobTimer(ours, Job("read", size, way="map")),
                f"shm map {label(sizes[0])}", JobTimer(again, smallest),
                limit=3.0, repeat=0, table="shm map and attach",
            )  # fmt: skip
        for peer in open_peers(["ray"], options):
            for size in sizes:
                job = Job("read", size, way="map")
                yield Case(
                    f"shm map {label(size)}", "us", JobTimer(ours, job),
                    peer.names(job), peer.side(job),
                    repeat=0, table="shm map and attach",
                )  # fmt: skip


class PythonCalls(Timer):
    """Calls from a Python loop."""

    def __init__(self, worker: Worker, kind: str) -> None:
        self.worker = worker
        self.kind = kind

    def seconds(self, repeat: int) -> float:
        """Seconds for `repeat` calls."""
        return float(self.worker.ask("python_call", self.kind, repeat))


def overhead(options: Options) -> Iterator[Case]:
    """What Python adds to an operation of 8 bytes in a memory element of the same process."""
    with served() as memory, compiled("calls.c", CORE) as program:
        ours = memory.client("local")
        for kind in ("read", "write", "submit"):
            name = "submit and wait for a read" if kind == "submit" else kind
            yield Case(
                f"{name} of 8 B from Python", "us", PythonCalls(ours, kind),
                "the same from C" if program else NO_COMPILER,
                ProgramTimer(program, kind) if program else None,
                margin=1.0, repeat=0, table="Python overhead per call",
            )  # fmt: skip


def own_bytes(pid: int) -> int:
    """Resident bytes of a process that are not shared memory: a memory server's without its pool.

    Sockets' buffers are the kernel's and not among them. Counted mapping by mapping: the totals in
    ``/proc/PID/status`` may be some hundred KiB behind.
    """
    total = 0
    shared = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            shared = len(words) > 5 and words[5].startswith(("/memfd:", "/dev/shm/", "/dev/zero"))
        elif words[0] == "Rss:" and not shared:
            total += int(words[1]) * KIB
    return total


def memory(options: Options) -> Iterator[Case]:
    """A server's resident memory beyond its pool: by itself, and for each busy client more."""
    number = 4 if options.quick else CLIENTS
    with served() as memory:
        pid = memory.server.pid
        alone = own_bytes(pid)
        yield Case(
            "server without clients", "MB", Gauge(lambda: own_bytes(pid) / 1e6), "-",
            limit=20.0, table="server memory beyond the pool",
        )  # fmt: skip
        for kind in ("tcp", "shm"):
            before = own_bytes(pid)
            clients = [memory.client(kind) for _ in range(number)]
            # What a client costs shows once it has moved something in both directions, enough of
            # it to be cut up over several connections.
            for client in clients:
                for job in (
                    Job("read", 8 * MIB),
                    Job("write", 8 * MIB),
                    Job("read", 4 * KIB, 16, "vector", 64),
                ):
                    JobTimer(client, job).check()
            yield Case(
                f"each of {number} {kind} clients more", "KiB",
                Gauge(lambda before=before: (own_bytes(pid) - before) / number / KIB),  # type: ignore[misc]
                "-", limit=64.0, table="server memory beyond the pool",
            )  # fmt: skip
        total = 20e6 + 2 * number * 64 * KIB
        yield Case(
            f"server with {2 * number} clients (began with {alone / 1e6:.1f} MB)", "MB",
            Gauge(lambda: own_bytes(pid) / 1e6), "-",
            limit=total / 1e6, table="server memory beyond the pool",
        )  # fmt: skip
