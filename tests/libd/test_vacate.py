"""Memory that goes back in turns: nobody waits for it but who needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from libd import ElementGrant, LibdAction, LibdError, MemoryServerProcess, ServerControl
from tests.waiting import until

MB = 1 << 20
SIZE = 256 * MB


@pytest.fixture
def process() -> Iterator[MemoryServerProcess]:
    with MemoryServerProcess(SIZE) as made:
        yield made


@pytest.fixture
def looker(process: MemoryServerProcess) -> Iterator[ServerControl]:
    """Another administrator: one connection's requests are done in order."""
    with ServerControl(process.unix_url, process._admin_token) as control:
        yield control


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def fill(grant: ElementGrant, kind: str = "tcp") -> None:
    with LibdAction("a", [grant.durl("m", f"rdma_{kind}")]) as action:
        trans = action.get_transport("m")
        block = np.full(16 * MB, 0xFF, np.uint8)
        for at in range(0, SIZE, len(block)):
            trans.write_from(at, block)


def drop_a_full_tenant(process: MemoryServerProcess) -> None:
    tenant = process.control.create_tenant("t", SIZE)
    fill(process.control.create_element(tenant, "m", SIZE))
    process.control.drop_tenant(tenant)


def some_on_the_way(looker: ServerControl, done: Callable[[], bool]) -> bool:
    """Whether anything was answered while only a part had gone."""
    seen = False
    while not done():
        seen |= 0 < looker.stats().resident < SIZE
    return seen


def test_a_dropped_tenant_keeps_nobody_waiting(
    process: MemoryServerProcess, looker: ServerControl
) -> None:
    for _ in range(5):
        drop_a_full_tenant(process)
        seen = some_on_the_way(looker, lambda: looker.stats().resident == 0)
        assert looker.stats().reserved == 0
        if seen:
            return
    raise AssertionError("it went back all at once")


def test_it_is_charged_until_it_is_gone(
    process: MemoryServerProcess, looker: ServerControl
) -> None:
    for _ in range(5):
        drop_a_full_tenant(process)
        stats = looker.stats()
        assert stats.tenants == 0
        assert stats.reserved == (SIZE if stats.resident else 0)
        until(lambda: looker.stats().reserved == 0)
        if stats.resident:
            return
    raise AssertionError("it went back all at once")


@pytest.mark.parametrize("elastic", [False, True])
def test_who_needs_it_waits_for_it(process: MemoryServerProcess, elastic: bool) -> None:
    """A server that one tenant had all of has all of it for the next, however soon that comes."""
    control = process.control
    for i in range(3):
        tenant = control.create_tenant(f"t{i}", SIZE)
        grant = control.create_element(tenant, "m", SIZE, elastic=elastic)
        with LibdAction("a", [grant.durl("m", "rdma_tcp")]) as action:
            trans = action.get_transport("m")
            addr = trans.alloc(SIZE) if elastic else 0
            out = np.full(SIZE, 0xAA, np.uint8)
            trans.read_into(addr, out)
            assert not out.any()
            trans.write_from(addr, np.full(SIZE, 0xFF, np.uint8))
        control.drop_tenant(tenant)
    assert control.stats().errors["capacity"] == 0


def test_a_client_that_keeps_the_arena_keeps_no_memory(
    process: MemoryServerProcess, looker: ServerControl
) -> None:
    tenant = process.control.create_tenant("t", SIZE)
    grant = process.control.create_element(tenant, "m", SIZE)
    with LibdAction("a", [grant.durl("m", "rdma_shm")]) as action:
        view = action.get_transport("m").map(0, SIZE, writable=True)
        np.frombuffer(view, np.uint8)[:] = 0xFF
        process.control.drop_tenant(tenant)
        until(lambda: looker.stats().resident == 0)
        until(lambda: looker.stats().reserved == 0)
        view.release()


def test_a_new_element_over_warm_memory_keeps_nobody_waiting(
    process: MemoryServerProcess, looker: ServerControl, beside: ThreadPoolExecutor
) -> None:
    tenant = process.control.create_tenant("t", SIZE)
    grant = process.control.create_element(tenant, "m", SIZE)
    for kind in ("tcp", "shm", "tcp", "shm", "tcp"):
        fill(grant, kind)
        process.control.drop_element(tenant, grant.id)
        made: Future[ElementGrant] = beside.submit(
            process.control.create_element, tenant, "m", SIZE
        )
        seen = some_on_the_way(looker, made.done)
        grant = made.result()
        out = np.full(SIZE, 0xAA, np.uint8)
        with LibdAction("a", [grant.durl("m", f"rdma_{kind}")]) as action:
            action.get_transport("m").read_into(0, out)
        assert not out.any()
        if seen:
            return
    raise AssertionError("it was cleared all at once")


def test_an_element_that_is_dropped_while_it_is_cleared(
    process: MemoryServerProcess, looker: ServerControl, beside: ThreadPoolExecutor
) -> None:
    control = process.control
    cut = 0
    for i in range(5):
        tenant = control.create_tenant(f"t{i}", SIZE)
        grant = control.create_element(tenant, "m", SIZE)
        fill(grant)
        control.drop_element(tenant, grant.id)
        before = looker.stats().operations["element_create"]
        made = beside.submit(control.create_element, tenant, "m", SIZE)
        while looker.stats().operations["element_create"] == before:
            pass
        looker.drop_tenant(tenant)
        if error := made.exception(30):
            assert isinstance(error, LibdError)
            assert "no such thing" in str(error)
            cut += 1
        until(lambda: looker.stats().resident == 0)
    assert cut


def test_an_administrator_who_goes_while_an_element_is_cleared(
    process: MemoryServerProcess, looker: ServerControl
) -> None:
    control = process.control
    tenant = control.create_tenant("t", SIZE)
    for lease in (None, 0.05):
        grant = control.create_element(tenant, "m", SIZE)
        fill(grant)
        control.drop_element(tenant, grant.id)
        with ServerControl(process.unix_url, process._admin_token) as fleeting:
            thread = threading.Thread(
                target=lambda f=fleeting, t=lease: _ignoring(
                    lambda: f.create_element(tenant, "m", SIZE, lease=t)
                )
            )
            before = looker.stats().operations["element_create"]
            thread.start()
            while looker.stats().operations["element_create"] == before:
                time.sleep(0)
        thread.join()
        if lease is None:
            (found,) = [id_ for (_, id_, _) in looker.snapshot().elements]
            control.drop_element(tenant, found)
        else:
            until(lambda: looker.stats().elements == 0)


def _ignoring(what: Callable[[], object]) -> None:
    with suppress(LibdError):
        what()
