"""Descriptors, of which a server has so many and no more: `admission.c`."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from libd import (
    CapacityError,
    ElementGrant,
    LibdAction,
    MemoryServer,
    MemoryServerProcess,
    ServerControl,
)
from libd.memory_server import DESCRIPTORS
from tests.waiting import until

MB = 1 << 20
FEW = 256


@contextmanager
def limited(soft: int) -> Iterator[None]:
    """What is started here may have so many descriptors."""
    before = resource.prlimit(0, resource.RLIMIT_NOFILE)
    resource.prlimit(0, resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(0, resource.RLIMIT_NOFILE, before)


@pytest.fixture
def process() -> Iterator[MemoryServerProcess]:
    with MemoryServerProcess(64 * MB) as made:
        resource.prlimit(made.pid, resource.RLIMIT_NOFILE, (FEW, FEW))
        yield made


def element(process: MemoryServerProcess, tenant: str) -> ElementGrant:
    control = process.control
    return control.create_element(control.create_tenant(tenant, MB), "m", 4096)


def connect(stack: ExitStack, grant: ElementGrant) -> LibdAction:
    action = stack.enter_context(LibdAction("a", [grant.durl("m", "rdma_tcp")]))
    action.get_transport("m")
    return action


def greedy(stack: ExitStack, grant: ElementGrant) -> list[LibdAction]:
    """As many connections as the tenant gets."""
    made: list[LibdAction] = []
    while True:
        try:
            made.append(connect(stack, grant))
        except CapacityError as error:
            refused = str(error)
            break
    assert f"the tenant has {len(made)} connections" in refused
    return made


def test_one_tenant_leaves_connections_to_others(process: MemoryServerProcess) -> None:
    first, second, third = (element(process, name) for name in ("a", "b", "c"))
    with ExitStack() as stack:
        counts = [len(greedy(stack, grant)) for grant in (first, second, third)]
        assert FEW // 3 < counts[0] <= FEW // 2
        assert all(counts)
        assert counts == sorted(counts, reverse=True)
        with ServerControl(process.tcp_url, process._admin_token) as another:
            stats = another.stats()
            assert stats.descriptors == FEW
            assert stats.turned_away == 3
            assert stats.errors["capacity"] == 3
            assert another.tenant_stats("a").connections == counts[0]
            another.create_tenant("d", MB)  # takes two
    until(lambda: process.control.tenant_stats("a").connections == 0)
    with ExitStack() as stack:
        connect(stack, first)


def test_those_that_it_has_still_work(process: MemoryServerProcess) -> None:
    with ExitStack() as stack:
        made = greedy(stack, element(process, "a"))
        for action in made:
            action.get_transport("m").write_from(0, b"works")
        made[0].close()
        until(lambda: process.control.tenant_stats("a").connections < len(made))
        connect(stack, element(process, "b"))


def test_strangers_do_not_keep_others_out(process: MemoryServerProcess) -> None:
    grant = element(process, "a")
    host, _, port = process.tcp_url.removeprefix("tcp://").rpartition(":")
    with ExitStack() as stack:
        for _ in range(2 * FEW):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
        action = connect(stack, grant)
        action.get_transport("m").write_from(0, b"works")
        with ServerControl(process.tcp_url, process._admin_token) as another:
            assert another.stats().turned_away > 0
        assert action.get_transport("m").stat()["bytes_written"] == 5


def test_more_stripes_than_there_are_connections(process: MemoryServerProcess) -> None:
    grant = process.control.create_element(
        process.control.create_tenant("s", 32 * MB), "m", 16 * MB
    )
    with ExitStack() as stack:
        made = greedy(stack, grant)
        made[-1].close()
        until(lambda: process.control.tenant_stats("s").connections < len(made))
        durl = grant.durl("m", "rdma_tcp") + "stripes,8;"
        action = stack.enter_context(LibdAction("a", [durl]))
        action.get_transport("m").write_from(0, bytes(16 * MB))


def test_a_server_process_raises_its_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with limited(128):
        process = MemoryServerProcess(MB)
    with process:
        assert process.control.stats().descriptors == min(hard, DESCRIPTORS)
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[1] == hard


def test_a_library_leaves_the_limit_alone() -> None:
    with limited(300):
        server = MemoryServer(MB, admin_token="x")
        try:
            with ServerControl(server.tcp_url or "", "x") as control:
                assert control.stats().descriptors == 300
        finally:
            server.stop()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
