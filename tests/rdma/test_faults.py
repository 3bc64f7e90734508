"""What fails under verbs: servers that die, regions that go, keys that are guessed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from libd import (
    BoundsError,
    CapabilityError,
    LibdAction,
    LibdError,
    MemoryServer,
    MemoryServerProcess,
    StaleRefError,
    Transport,
    TransportClosedError,
    UnsupportedError,
)

Maker = Callable[..., Transport]
Stand = Any  # conftest.py's
NOTICED = 2.0  # seconds in which the end of a server has to be noticed


@pytest.fixture
def process(pair: Any) -> Iterator[MemoryServerProcess]:
    with MemoryServerProcess("64 MB", rdma=pair[0].device) as made:
        yield made


def opened(action: LibdAction, pair: Any, grant: Any, name: str = "m") -> Transport:
    action.add_transport(grant.durl(name, "rdma_uverbs") + f"device,{pair[1].device};")
    return action.get_transport(name)


def test_a_killed_server_fails_all_that_is_in_flight(
    process: MemoryServerProcess, pair: Any
) -> None:
    tenant = process.control.create_tenant("t", "48 MB")
    grant = process.control.create_element(tenant, "m", "32 MB")
    with LibdAction() as action:
        trans = opened(action, pair, grant)
        trans.reg(32 << 20)
        window = [trans.submit(reads=[(0, trans.buf[0 : 32 << 20])]) for _ in range(16)]
        window[0].poll()
        os.kill(process.pid, signal.SIGKILL)
        killed = time.monotonic()
        for completion in window:
            with pytest.raises(TransportClosedError):
                completion.wait()
        assert time.monotonic() - killed < NOTICED
        with pytest.raises(TransportClosedError):
            trans.read(8)
        with pytest.raises(TransportClosedError):
            trans.write(8)
        with pytest.raises(TransportClosedError):
            trans.flush()


def test_threads_that_wait_for_a_killed_server(process: MemoryServerProcess, pair: Any) -> None:
    tenant = process.control.create_tenant("t", "48 MB")
    grant = process.control.create_element(tenant, "m", "16 MB")
    outcomes: list[object] = []
    busy = threading.Event()

    def work(trans: Transport) -> None:
        out = np.empty(16 << 20, np.uint8)
        try:
            while True:
                busy.set()
                trans.read_into(0, out)
        except LibdError as error:
            outcomes.append(error)

    with LibdAction() as action:
        trans = opened(action, pair, grant)
        threads = [threading.Thread(target=work, args=(trans,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert busy.wait(30)
        os.kill(process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(30)
        assert [type(o) for o in outcomes] == [TransportClosedError] * 4


@pytest.mark.parametrize("idle", [False, True])
def test_a_restarted_server_is_another_one(pair: Any, idle: bool) -> None:
    server = MemoryServer(1 << 20, rdma=pair[0].device)
    port = server.port
    with LibdAction() as action:
        action.add_transport(f"m;rdma_uverbs;url,tcp://127.0.0.1:{port};device,{pair[1].device};")
        trans = action.get_transport("m")
        trans.write_from(0, b"before")
        server.stop()
        if not idle:
            with pytest.raises(TransportClosedError):
                trans.read_into(0, bytearray(6))
        time.sleep(0.1)  # an address that refused is not asked again at once
        with MemoryServer(1 << 20, port=port, rdma=pair[0].device):
            for _ in range(2):
                with pytest.raises(StaleRefError, match="restarted"):
                    trans.read_into(0, bytearray(6))
                with pytest.raises(StaleRefError, match="restarted"):
                    trans.write_from(0, b"after")
            with pytest.raises(StaleRefError):
                trans.alloc(8)


def test_a_region_that_somebody_else_frees(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 1 << 20, elastic=True)
    owner, reader = stand.open(grant, "uverbs"), stand.open(grant, "uverbs")
    kept, gone = owner.alloc(4096), owner.alloc(4096)
    owner.write_from(kept, b"kept")
    ref = owner.ref([(gone, 4096)])
    assert reader.resolve(ref) == [(gone, 4096)]
    out = bytearray(4)
    reader.read_into(gone, out)
    owner.free(gone)
    again = owner.alloc(4096)  # the same bytes, in another region
    owner.write_from(again, b"new!")
    before = bytes(out)
    for _ in range(2):
        with pytest.raises(StaleRefError):
            reader.read_into(gone, out)
        with pytest.raises(StaleRefError):
            reader.write_from(gone, b"old!")
    assert bytes(out) == before
    reader.read_into(kept, out)
    assert out == b"kept"
    owner.read_into(again, out)
    assert out == b"new!"


def test_neighbours_of_a_failed_batch_go_on(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 1 << 22, elastic=True)
    owner, reader = stand.open(grant, "uverbs"), stand.open(grant, "uverbs")
    good, gone = owner.alloc(1 << 20), owner.alloc(1 << 16)
    data = np.random.default_rng(1).integers(0, 256, 1 << 20, dtype=np.uint8)
    owner.write_from(good, data)
    reader.readv([(good, bytearray(8)), (gone, bytearray(8))])
    owner.free(gone)
    outs = [np.zeros(1 << 17, np.uint8) for _ in range(8)]
    batches = []
    for i, out in enumerate(outs):
        batches.append(reader.submit(reads=[(good + (i << 17), out)]))
        batches.append(reader.submit(reads=[(gone, bytearray(1 << 15)), (gone, bytearray(64))]))
        batches.append(reader.submit(writes=[(gone, bytes(100))]))
    for i, batch in enumerate(batches):
        if i % 3 == 0:
            assert batch.wait() == 1 << 17
        else:
            with pytest.raises(StaleRefError):
                batch.wait()
    np.testing.assert_array_equal(np.concatenate(outs), data)


def test_a_region_that_somebody_else_extends(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 1 << 20, elastic=True)
    owner, reader = stand.open(grant, "uverbs"), stand.open(grant, "uverbs")
    addr = owner.alloc(4096)
    owner.write_from(addr, b"a" * 4096)
    assert reader.resolve(owner.ref([(addr, 4096)])) == [(addr, 4096)]
    reader.read_into(addr, bytearray(4096))
    assert owner.extend(addr, 1 << 16) == addr
    owner.write_from(addr + 60000, b"beyond")
    out = bytearray(6)
    reader.read_into(addr, out)  # by a key that was withdrawn
    assert out == b"aaaaaa"
    reader.read_into(addr + 60000, out)  # outside of what the reader knew
    assert out == b"beyond"
    with pytest.raises(BoundsError):
        reader.read_into(addr + (1 << 16) - 5, out)


def test_the_end_of_a_connection_is_mended(stand: Stand) -> None:
    """The queue pair ends with its connection; the next use connects both again."""
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 1 << 20), "uverbs")
    trans.write_from(0, b"here")
    for _ in range(3):
        assert connections(cut=True)
        deadline = time.monotonic() + 30
        while connections():  # both ends in this process: the server's goes too
            assert time.monotonic() < deadline
        while not connections():  # until the server's queue pair goes, reads need no connection
            out = bytearray(4)
            trans.read_into(0, out)
            assert out == b"here"
            assert time.monotonic() < deadline


def test_what_is_under_way_survives_the_end_of_its_connection(stand: Stand) -> None:
    size = 1 << 20
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", size), "uverbs")
    data = np.random.default_rng(2).integers(0, 256, size, dtype=np.uint8)
    trans.write_from(0, data)
    outs = [np.zeros(size, np.uint8) for _ in range(8)]
    batches = [trans.submit(reads=[(0, out)]) for out in outs]
    assert connections(cut=True)
    for batch, out in zip(batches, outs, strict=True):
        batch.wait()
        np.testing.assert_array_equal(out, data)


def connections(cut: bool = False) -> int:
    """How many TCP connections this process has, found from outside of libd; ends them too."""
    found = 0
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry))) as sock:
                if sock.family == socket.AF_INET and sock.getpeername():
                    if cut:
                        sock.shutdown(socket.SHUT_RDWR)
                    found += 1
    return found


def test_another_tenants_key_is_refused(stand: Stand, raw_read: Any) -> None:
    """A key of a region opens nothing on another tenant's queue pair."""
    one = stand.control.create_element(stand.tenant(), "one", 4096)
    two = stand.control.create_element(stand.tenant(), "two", 4096)
    stand.open(one, "uverbs").write_from(0, b"secret")
    assert raw_read(one, one) == b"secret"
    with pytest.raises(PermissionError):
        raw_read(two, one)


def test_the_key_of_a_freed_region_is_refused(stand: Stand, raw_read: Any) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 1 << 16, elastic=True)
    trans = stand.open(grant, "uverbs")
    addr = trans.alloc(4096)
    trans.write_from(addr, b"secret")

    def free() -> None:
        trans.free(addr)
        trans.write_from(trans.alloc(4096), b"others")

    assert raw_read(grant, grant, addr) == b"secret"
    with pytest.raises(PermissionError):
        raw_read(grant, grant, addr, before=free)


@pytest.mark.parametrize(("offset", "size"), [(4095, 2), (4096, 1), (-1, 1), (0, 4097)])
def test_a_key_opens_its_region_and_no_byte_more(
    stand: Stand, raw_read: Any, offset: int, size: int
) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 20), "m", 1 << 16, elastic=True)
    trans = stand.open(grant, "uverbs")
    around = [trans.alloc(4096) for _ in range(3)]
    assert len(raw_read(grant, grant, around[1], size=4096)) == 4096
    with pytest.raises(PermissionError):
        raw_read(grant, grant, around[1], offset=offset, size=size)


def test_another_elements_region_is_not_described(stand: Stand, raw_read: Any) -> None:
    tenant = stand.tenant()
    one = stand.control.create_element(tenant, "one", 1 << 16, elastic=True)
    two = stand.control.create_element(tenant, "two", 1 << 16, elastic=True)
    addr = stand.open(one, "uverbs").alloc(64)
    with pytest.raises(CapabilityError):
        stand.open(two, "uverbs").read_into(addr, bytearray(1))


def test_a_dropped_tenant(stand: Stand) -> None:
    tenant = stand.tenant()
    grant = stand.control.create_element(tenant, "m", 4096)
    trans = stand.open(grant, "uverbs")
    trans.write_from(0, b"x")
    stand.control.drop_tenant(tenant)
    for _ in range(2):
        with pytest.raises(StaleRefError):
            trans.read_into(0, bytearray(1))


def test_a_dropped_element(stand: Stand) -> None:
    tenant = stand.tenant()
    grant = stand.control.create_element(tenant, "m", 4096)
    trans = stand.open(grant, "uverbs")
    trans.write_from(0, b"x")
    stand.control.drop_element(tenant, grant.id)
    for _ in range(2):
        with pytest.raises(StaleRefError):
            trans.read_into(0, bytearray(1))


def test_a_server_without_a_device_says_so(pair: Any) -> None:
    with MemoryServer(1 << 16) as server, LibdAction() as action:
        assert server.rdma_device is None
        action.add_transport(f"m;rdma_uverbs;url,{server.tcp_url};")
        with pytest.raises(UnsupportedError, match="memory server has no RDMA device"):
            action.get_transport("m")


@pytest.mark.parametrize("named", [False, True])
def test_a_server_of_an_action(pair: Any, free_port: int, named: bool) -> None:
    url = f"url,tcp://127.0.0.1:{free_port};"
    device = f"device,{pair[0].device};" * named
    with LibdAction("0", [f"s;rdma_uverbs_server;{url}size,65536;{device}"]) as action:
        action.add_transport(f"m;rdma_uverbs;{url}device,{pair[1].device};")
        action.add_transport(f"t;rdma_tcp;{url}")
        trans = action.get_transport("m")
        trans.write_from(16, b"by the device")
        trans.flush()
        out = bytearray(13)
        action.get_transport("t").read_into(16, out)
        assert out == b"by the device"
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", free_port))


def test_devices_that_are_not_there(pair: Any) -> None:
    with pytest.raises(UnsupportedError, match="no such RDMA device"):
        MemoryServer(1 << 16, rdma="none9")
    with MemoryServer(1 << 16, rdma=pair[0].device) as server, LibdAction() as action:
        action.add_transport(f"m;rdma_uverbs;url,{server.tcp_url};device,none9;")
        with pytest.raises(UnsupportedError, match="no such RDMA device"):
            action.get_transport("m")


def test_nothing_is_left_on_the_device(stand: Stand) -> None:
    """Queue pairs, regions and domains go with what they were made for."""
    before = resources()
    tenant = stand.control.create_tenant("passing", 1 << 24)
    for _ in range(20):
        grant = stand.control.create_element(tenant, "m", 1 << 20, elastic=True)
        with LibdAction() as action:
            durl = grant.durl("m", "rdma_uverbs") + f"device,{stand.device};"
            action.add_transport(durl)
            trans = action.get_transport("m")
            addr = trans.alloc(1 << 18)
            trans.write_from(addr, np.ones(1 << 18, np.uint8))
        del trans, action
        stand.control.drop_element(tenant, grant.id)
    stand.control.drop_tenant(tenant)
    deadline = time.monotonic() + 30
    while resources() != before:
        assert time.monotonic() < deadline, (before, resources())
        time.sleep(0.05)


def resources() -> dict[str, list[int]]:
    """What exists on each device: ``rdma resource`` as numbers."""
    said = subprocess.run(["rdma", "resource"], capture_output=True, text=True, check=True).stdout
    lines = [line.partition(": ")[2] for line in said.splitlines()]
    return {line.split()[0]: [int(n) for n in re.findall(r" (\d+)", line)] for line in lines}
