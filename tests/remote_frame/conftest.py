from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from libd import LibdAction, MemoryServer, ServerControl, Transport
from libd.errors import BoundsError, CapacityError, StaleRefError, UnsupportedError
from libd.ref import Ref, join_address, split_address


class FakeTransport:
    """One elastic memory element in a dict of bytearrays; counts, checks, and fails on demand."""

    name = element = "m1"

    def __init__(self, mappable: bool = False, limit: int = 1 << 30) -> None:
        self.mappable = mappable
        self.limit = limit
        self.regions: dict[int, bytearray] = {}
        self.epochs: dict[int, int] = {}
        self.next = 1
        self.fail: set[str] = set()
        self.pending = 0
        self.counters = SimpleNamespace(
            reads=0, writes=0, maps=0, bytes_read=0, bytes_written=0, bytes_mapped=0
        )

    def alloc(self, size: int, align: int = 64) -> int:
        if sum(map(len, self.regions.values())) + size > self.limit:
            raise CapacityError("the fake element is full")
        region, self.next = self.next, self.next + 1
        self.regions[region] = bytearray(size)
        self.epochs[region] = 1000 + region
        return join_address(region, 0)

    def free(self, addr: int) -> None:
        del self.regions[split_address(addr)[0]]

    def _bytes(self, addr: int, size: int) -> memoryview:
        region, offset = split_address(addr)
        if region not in self.regions or offset + size > len(self.regions[region]):
            raise BoundsError(f"region {region}, {offset}+{size}")
        return memoryview(self.regions[region])[offset : offset + size]

    def _maybe_fail(self, what: str) -> None:
        if what in self.fail:
            raise ConnectionError(f"{what} failed on demand")

    def read_into(self, addr: int, out: Any) -> int:
        return self.readv([(addr, out)])

    def write_from(self, addr: int, data: Any) -> int:
        return self.writev([(addr, data)])

    def readv(self, segments: list[tuple[int, Any]]) -> int:
        self._maybe_fail("readv")
        self.counters.reads += 1
        moved = 0
        for addr, out in segments:
            view = memoryview(out).cast("B")
            view[:] = self._bytes(addr, len(view))
            moved += len(view)
        self.counters.bytes_read += moved
        return moved

    def writev(self, segments: list[tuple[int, Any]]) -> int:
        self._maybe_fail("writev")
        self.counters.writes += 1
        moved = 0
        for addr, data in segments:
            view = memoryview(data).cast("B")
            self._bytes(addr, len(view))[:] = view
            moved += len(view)
        self.counters.bytes_written += moved
        return moved

    def submit(self, reads: Any = (), writes: Any = ()) -> Any:
        """A batch whose bytes move when somebody waits for it."""
        self.pending += 1

        def wait(timeout: float | None = None) -> int:
            self.pending -= 1
            return (self.readv(list(reads)) if reads else 0) + (
                self.writev(list(writes)) if writes else 0
            )

        return SimpleNamespace(wait=wait)

    def map(self, addr: int, size: int, writable: bool = False) -> memoryview:
        if not self.mappable:
            raise UnsupportedError("the fake does not map")
        self._maybe_fail("map")
        self.counters.maps += 1
        view = self._bytes(addr, size)
        return view if writable else view.toreadonly()

    def ref(self, extents: list[tuple[int, int]]) -> Ref:
        regions = {split_address(addr)[0] for addr, _ in extents}
        (region,) = regions
        pairs = [(split_address(addr)[1], size) for addr, size in extents]
        return Ref(self.element, region, self.epochs[region], pairs)

    def resolve(self, ref: Ref) -> list[tuple[int, int]]:
        if ref.region not in self.regions or self.epochs[ref.region] != ref.epoch:
            raise StaleRefError(f"region {ref.region}")
        for offset, size in ref.extents:
            self._bytes(join_address(ref.region, offset), size)
        return [(join_address(ref.region, offset), size) for offset, size in ref.extents]

    def flush(self) -> None:
        self._maybe_fail("flush")


@pytest.fixture
def fake() -> Callable[..., FakeTransport]:
    return FakeTransport


@dataclass
class Element:
    """One elastic memory element on a real transport, and the action that reaches it."""

    kind: str
    action: LibdAction
    again: Callable[[], LibdAction]
    durl: str = ""

    @property
    def transport(self) -> Transport:
        return self.action.get_transport("m1", "rdma")


@pytest.fixture(params=["local", "shm", "tcp"])
def element(request: pytest.FixtureRequest) -> Iterator[Element]:
    """A memory element; `again()` connects to it as another compute element would."""
    kind = str(request.param)
    with ExitStack() as stack:
        if kind == "local":
            action = stack.enter_context(LibdAction("a", ["m1;rdma_local;size,64MB;elastic,true;"]))
            yield Element(kind, action, lambda: action)
            return
        name = f"@scad-test-{secrets.token_hex(8)}"
        server = stack.enter_context(MemoryServer(1 << 28, unix=name, admin_token="root"))
        control = stack.enter_context(
            ServerControl(server.tcp_url or "", "root", unix_url=server.unix_url)
        )
        tenant = control.create_tenant("t", 1 << 26)
        grant = control.create_element(tenant, "m1", 1 << 26, elastic=True)

        durl = grant.durl("m1", f"rdma_{kind}")

        def connect() -> LibdAction:
            return stack.enter_context(LibdAction("a", [durl]))

        yield Element(kind, connect(), connect, durl)
