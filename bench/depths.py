"""Several operations outstanding, and several clients, over TCP.

Ours keeps operations outstanding in three ways: ``batches`` are two alternating batches of half the
depth, ``window`` replaces each single operation once the oldest is done, ``readv`` and ``writev``
are one call for all of them. The issue's targets are about ``batches``: who has many reads to make
has their addresses, and one call takes them all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from bench import placement
from bench.elements import Served, served
from bench.harness import Case, Options, Side
from bench.native import NO_COMPILER, ProgramTimer, compiled
from bench.peers import Opened, open_peers, opened
from bench.sizes import label
from bench.work import KIB, MIB, SPAN, Job
from bench.worker import JobTimer, Together

__all__ = ["clients", "inflight", "scattered"]

DEPTHS = [1, 2, 4, 8, 16]
SIZES = [4 * KIB, 64 * KIB, MIB]
CLIENTS = [1, 2, 3, 4]
PAGE = 4 * KIB
WAYS = ["batches", "window", "vector"]
"""How ours keeps operations outstanding; the first is what targets are about."""


def job_of(kind: str, size: int, depth: int, way: str, scattered: bool = False) -> Job:
    """A job whose call is long enough for `depth` operations to be outstanding most of the time."""
    if depth == 1 and not scattered:
        return Job(kind, size)
    count = max(8 * depth, 64) if size < MIB else 4 * depth
    return Job(kind, size, depth, way if depth > 1 else "one", count, scattered)


def said(way: str, kind: str) -> str:
    """A way as tables name it."""
    return f"{kind}v" if way == "vector" else way


def against(peer: Opened, kind: str, size: int, depth: int) -> Iterator[tuple[str, Job, str]]:
    """A way of ours, the peer's job, and what a table calls that.

    All ways of ours stand beside the socket that asks one at a time, which the targets name; the
    first of them stands beside each peer's own way of having several outstanding.
    """
    if peer.key == "socket":
        # It goes through as many places and buffers as we do, or its bytes would be in the cache.
        one = Job(kind, size, count=depth, places=depth)
        for way in WAYS if depth > 1 else WAYS[:1]:
            yield way, one, peer.called(", one at a time")
        if depth == 1:
            return
    theirs, suffix = peer.peer.ways[-1]
    yield WAYS[0], job_of(kind, size, depth, theirs), peer.called(suffix)


def inflight(options: Options) -> Iterator[Case]:
    """1 to 16 reads or writes outstanding, GB/s by depth."""
    sizes, depths = (SIZES[:1], [1, 4]) if options.quick else (SIZES, DEPTHS)
    with served() as memory:
        ours = memory.client("tcp")
        for peer in open_peers(["socket", "redis", "ucx", "mooncake"], options, ("socket",)):
            for kind, size, depth in itertools.product(("read", "write"), sizes, depths):
                for way, theirs, name in against(peer, kind, size, depth):
                    mine = job_of(kind, size, depth, way)
                    aim = (peer.key, kind, size, depth, way, theirs.depth) == (
                        "socket", "read", MIB, 8, WAYS[0], 1,
                    )  # fmt: skip
                    suffix = f", {said(way, kind)}" if depth > 1 else ""
                    yield Case(
                        name=f"{kind} {label(size)}, {depth} in flight{suffix}",
                        unit="GB/s",
                        ours=JobTimer(ours, mine),
                        peer_name=name,
                        peer=peer.side(theirs),
                        operations=mine.count,
                        peer_operations=theirs.count,
                        size=size,
                        target=1.15 if aim else None,
                        repeat=0,
                        table=f"tcp {kind} {label(size)}, in flight",
                        x=depth,
                    )


def scattered(options: Options) -> Iterator[Case]:
    """Random 4 KiB reads in SPAN bytes, one at a time and 16 outstanding, thousands a second."""
    depth = 16
    with served() as memory, compiled("loopback.c") as program:
        ours, again = memory.client("tcp"), memory.client("tcp")
        single = Job("read", PAGE, 1, "one", 64, scattered=True)

        def many(way: str) -> Job:
            return job_of("read", PAGE, depth, way, scattered=True)

        def case(
            mine: Job, name: str, peer: Side | None, job: Job, target: float | None = None
        ) -> Case:
            text = "one at a time" if mine.depth == 1 else f"{depth} in flight, "
            return Case(
                name=f"random 4 KiB read, {text}{said(mine.way, 'read') if mine.depth > 1 else ''}",
                unit="k/s",
                ours=JobTimer(ours, mine),
                peer_name=name,
                peer=peer,
                operations=mine.count,
                peer_operations=job.count,
                size=PAGE,
                target=target,
                repeat=0,
                table="tcp, random 4 KiB reads",
            )

        for way in WAYS:
            aim = 8.0 if way == "vector" else None  # as a pipeline is: one call for all
            yield case(many(way), "ours, one at a time", JobTimer(again, single), single, aim)
        vector = many("vector")
        # As many places as ours and Redis go through: how much of them is in a cache matters.
        loopback = (
            ProgramTimer(program, PAGE, depth, SPAN, vector.count, *placement.processors())
            if program
            else None
        )
        name = f"random 4 KiB read, {depth} in flight, "
        limit = Case(
            name=f"{name}readv", unit="k/s", ours=JobTimer(ours, vector),
            peer_name="loopback itself, from C" if program else NO_COMPILER, peer=loopback,
            operations=vector.count, peer_operations=depth, size=PAGE, repeat=0,
            table="tcp, random 4 KiB reads",
        )  # fmt: skip
        yield limit
        for peer in open_peers(["socket", "redis", "ucx", "mooncake"], options, ("redis",)):
            if peer.key == "redis" and loopback is not None:
                # What the fastest possible client and server of this protocol would reach.
                theirs = many(peer.peer.ways[-1][0])
                yield replace(
                    limit, name=f"{name}loopback itself, from C", ours=loopback, operations=depth,
                    peer_name=peer.names(theirs), peer=peer.side(theirs),
                    peer_operations=theirs.count,
                )  # fmt: skip
            for their_way, _ in peer.peer.ways:
                if their_way == "one":
                    yield case(single, peer.names(single), peer.side(single), single)
                    continue
                theirs = many(their_way)
                for way in WAYS:
                    aim = 10.0 if peer.key == "redis" and way == "vector" else None
                    yield case(many(way), peer.names(theirs), peer.side(theirs), theirs, aim)


def together(
    memory: Served,
    transport: str,
    keys: list[str],
    jobs: dict[str, Job],
    numbers: list[int],
    options: Options,
) -> Iterator[Case]:
    """Cases of several clients of one transport; a peer's as many processes beside them."""
    ours = [memory.client(transport) for _ in range(max(numbers))]
    for key in keys:
        if not options.wants(key):
            continue
        for number in numbers:
            with opened(key, number) as peer:
                for text, job in jobs.items():
                    theirs = job
                    if job.depth > 1:
                        way = peer.peer.ways[-1][0]
                        theirs = job_of("read", job.size, job.depth, way, scattered=True)
                    yield Case(
                        name=f"{transport} read {text}, {number} client{'s' * (number > 1)}",
                        unit="GB/s" if job.size >= MIB else "k/s",
                        ours=Together(ours[:number], job),
                        peer_name=peer.names(theirs),
                        peer=peer.side(theirs),
                        operations=job.count * number,
                        peer_operations=theirs.count * number,
                        size=job.size,
                        repeat=0,
                        table=f"{transport} clients, {text}",
                        x=number,
                    )


def clients(options: Options) -> Iterator[Case]:
    """1 to 4 client processes of one server, all together: small reads, random ones, large ones."""
    if options.targets:
        return
    numbers = [2] if options.quick else CLIENTS
    tcp_jobs = {
        "4 KiB": Job("read", PAGE),
        "random 4 KiB, 16 in flight": job_of("read", PAGE, 16, WAYS[0], scattered=True),
        "1 MiB": Job("read", MIB),
    }
    shm_jobs = {"4 KiB": Job("read", PAGE), "1 MiB": Job("read", MIB)}
    with served() as memory:
        yield from together(memory, "shm", ["copyto"], shm_jobs, numbers, options)
        peers = ["socket", "redis", "mooncake"]
        yield from together(memory, "tcp", peers, tcp_jobs, numbers, options)
