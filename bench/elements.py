"""Our own servers and clients for the suites about libd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench import placement
from bench.work import SPAN
from bench.worker import Worker
from libd import ElementGrant, MemoryServerProcess

__all__ = ["QUOTA", "Served", "served"]

QUOTA = 3 * SPAN
"""Bytes of the tenant's arena."""

_OURS = "bench.peers.ours"


@dataclass(slots=True)
class Served:
    """A memory server in its own process with one element of 2 SPAN bytes."""

    server: MemoryServerProcess
    grant: ElementGrant
    stack: ExitStack

    def client(self, kind: str) -> Worker:
        """A process with a transport of type ``rdma_{kind}``; it ends with the server."""
        durl = (
            f"memory;rdma_local;size,{2 * SPAN};"
            if kind == "local"
            else self.grant.durl("memory", f"rdma_{kind}")
        )
        address = {"durl": durl, "fill": kind == "local"}
        return self.stack.enter_context(Worker(_OURS, "PeerClient", {"address": address}))


@contextmanager
def served() -> Iterator[Served]:
    """Start a server whose element holds what reads expect."""
    with ExitStack() as stack:
        server = stack.enter_context(MemoryServerProcess(size=4 * SPAN))
        placement.place(server.pid, placement.get().server)
        tenant = server.control.create_tenant("bench", QUOTA)
        grant = server.control.create_element(tenant.name, "memory", 2 * SPAN)
        address = {"durl": grant.durl("memory", "rdma_shm"), "fill": True}
        with Worker(_OURS, "PeerClient", {"address": address}):
            pass
        yield Served(server, grant, stack)
