"""Reads and writes one at a time, by size: local and shm beside `np.copyto`, tcp beside whoever
moves bytes over TCP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.elements import served
from bench.harness import Case, Options
from bench.peers import open_peers
from bench.work import KIB, MIB, SPAN, Job
from bench.worker import JobTimer, Worker

__all__ = ["label", "local", "shm", "tcp"]

SMALL = [8, 64, 512, 4 * KIB, 16 * KIB]
LARGE = [64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, SPAN]
QUICK_SMALL, QUICK_LARGE = [8, 4 * KIB], [64 * KIB]


def label(size: int) -> str:
    """A size as people say it."""
    if size % MIB == 0:
        return f"{size // MIB} MiB"
    return f"{size // KIB} KiB" if size % KIB == 0 else f"{size} B"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A target for one size against one peer."""

    peer: str
    kind: str
    size: int
    ratio: float


SHM_TARGETS = [Wanted("copyto", "read", MIB, 0.95), Wanted("copyto", "read", SPAN, 0.95)]
TCP_TARGETS = [
    Wanted("socket", "read", 4 * KIB, 1.0),
    Wanted("socket", "read", MIB, 1.0),
    Wanted("socket", "read", SPAN, 1.0),
]


def by_size(
    transport: str, ours: Worker, peers: list[str], wanted: list[Wanted], options: Options
) -> Iterator[Case]:
    """Cases of one transport: latency of small ones in us, bandwidth of large ones in GB/s."""
    small, large = (QUICK_SMALL, QUICK_LARGE) if options.quick else (SMALL, LARGE)
    for peer in open_peers(peers, options, tuple(w.peer for w in wanted)):
        for kind in ("read", "write"):
            for size in small + large:
                job = Job(kind, size)
                if not peer.takes(job):
                    continue
                target = [
                    w.ratio
                    for w in wanted
                    if (w.kind, w.size) == (kind, size) and peer.key == w.peer
                ]
                is_small = size in small
                yield Case(
                    name=f"{transport} {kind} {label(size)}",
                    unit="us" if is_small else "GB/s",
                    ours=JobTimer(ours, job),
                    peer_name=peer.names(job),
                    peer=peer.side(job),
                    size=size,
                    target=target[0] if target else None,
                    repeat=0,
                    table=f"{transport} {kind}, {'latency' if is_small else 'bandwidth'}",
                    x=size,
                )


def local(options: Options) -> Iterator[Case]:
    """Memory of this process."""
    with served() as memory:
        yield from by_size("local", memory.client("local"), ["copyto"], [], options)


def shm(options: Options) -> Iterator[Case]:
    """Shared memory, with a copy: beside a copy in private memory, and Ray's objects.

    And beside a copy out of `map`, which is what this memory allows: private memory may lie in huge
    pages where shared memory does not.
    """
    with served() as memory:
        ours = memory.client("shm")
        yield from by_size("shm", ours, ["copyto", "ray"], SHM_TARGETS, options)
        if options.targets:
            return
        again = memory.client("shm")
        for size in QUICK_LARGE if options.quick else LARGE:
            yield Case(
                name=f"shm read {label(size)}",
                unit="GB/s",
                ours=JobTimer(ours, Job("read", size)),
                peer_name="np.copyto out of map",
                peer=JobTimer(again, Job("read", size, way="mapcopy")),
                size=size,
                repeat=0,
                table="shm read, bandwidth",
                x=size,
            )


def tcp(options: Options) -> Iterator[Case]:
    """TCP over loopback."""
    peers = ["socket", "zmq", "redis", "flight", "ucx", "ucxx", "mooncake"]
    with served() as memory:
        yield from by_size("tcp", memory.client("tcp"), peers, TCP_TARGETS, options)
