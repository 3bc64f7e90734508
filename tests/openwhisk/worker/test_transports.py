"""What a worker knows of its memory elements after a failure."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from libd.errors import LibdError, TransportClosedError
from libd.server_process import MemoryServerProcess
from openwhisk.runtime import Resources
from openwhisk.worker.messages import Grant
from openwhisk.worker.transports import GrantedTransports

MiB = 1 << 20


@pytest.fixture
def server() -> Iterator[MemoryServerProcess]:
    process = MemoryServerProcess(16 * MiB)
    yield process
    process.stop()


@pytest.fixture
def resources() -> Iterator[Resources]:
    made = Resources()
    yield made
    made.close()


def granted(server: MemoryServerProcess, type: str, resources: Resources) -> GrantedTransports:
    tenant = server.control.create_tenant("t", MiB)
    grant = server.control.create_element(tenant, "m", 4096)
    return GrantedTransports("a", [Grant("m", "m", grant.durl("m", type))], (), resources)


def kill(server: MemoryServerProcess) -> None:
    os.kill(server.pid, signal.SIGKILL)
    # Unlike the state of its first thread, this says that its sockets are closed.
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize("type", ["rdma_shm", "rdma_tcp", "rdma_auto"])
@pytest.mark.parametrize("opened", [True, False])
def test_a_server_that_died_is_a_loss_whoever_noticed_first(
    server: MemoryServerProcess, resources: Resources, type: str, opened: bool
) -> None:
    transports = granted(server, type, resources)
    if opened:
        transports.get_transport("m")
        assert not transports.lost()
        kill(server)
    else:
        kill(server)
        with pytest.raises(TransportClosedError):
            transports.get_transport("m")
    assert transports.lost()
    transports.close()


def test_nothing_is_lost_before_anything_was_wanted(
    server: MemoryServerProcess, resources: Resources
) -> None:
    transports = granted(server, "rdma_auto", resources)
    kill(server)
    assert not transports.lost()
    transports.close()


def test_a_transport_that_was_never_granted_is_no_loss(
    server: MemoryServerProcess, resources: Resources
) -> None:
    transports = granted(server, "rdma_auto", resources)
    with pytest.raises(LibdError):
        transports.get_transport("other", timeout=0.01)
    assert not transports.lost()
    transports.close()
