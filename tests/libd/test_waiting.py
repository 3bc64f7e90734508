"""What must hold however one waits: with `await`, in short waits, across cuts, beside signals."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from libd import (
    CapacityError,
    LibdAction,
    LibdError,
    MemoryServer,
    MemoryServerProcess,
    ServerControl,
    StaleRefError,
    TransportClosedError,
    TransportTimeoutError,
)
from tests.libd.relay import relay

Stand = Any  # conftest.py's
ADMIN = "the administrator's token"
WELCOME = struct.pack("<HHiQQQQ", 0x5343, 0, 0, 0, 0, 0, 64) + struct.pack(
    "<16sQQQQIIII", b"", 1, 1, 1 << 20, 5, 1, 0, 0, 0
)


def test_flush_tells_of_writes_that_nobody_waited_for(stand: Stand) -> None:
    with relay(stand.server.port) as (port, cut):
        with LibdAction("0", [f"m;rdma_tcp;url,tcp://127.0.0.1:{port};"]) as action:
            trans = action.get_transport("m")
            trans.write_from(0, b"old")
            cut()
            trans.submit(writes=[(0, b"new")])
            with pytest.raises(TransportClosedError):
                trans.flush()
            with suppress(TransportClosedError):
                trans.flush()  # told of the connection first, of the write then
            trans.flush()
            out = bytearray(3)
            trans.read_into(0, out)
            assert out == b"old"


@pytest.mark.parametrize("kind", ["shm", "tcp"])
def test_flush_tells_of_writes_to_what_is_gone(stand: Stand, kind: str) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", elastic=True)
    trans, other = stand.open(grant, kind), stand.open(grant, kind)
    addr = trans.alloc(100)
    trans.write_from(addr, b"x")
    other.resolve(trans.ref([(addr, 1)]))
    other.free(addr)
    with suppress(StaleRefError):
        trans.submit(writes=[(addr, b"lost")])
        trans.submit(reads=[(addr, bytearray(1))])  # reads that nobody waits for are no loss
    with pytest.raises(StaleRefError):
        trans.flush()
    trans.flush()
    done = trans.submit(writes=[(addr, b"told")])
    with pytest.raises(StaleRefError):
        done.wait()
    del done
    trans.flush()


class Silent:
    """Greets, says what region 0 is, and then says nothing; connections stay open."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connections: list[socket.socket] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        self.durl = f"m;rdma_tcp;url,tcp://127.0.0.1:{self.listener.getsockname()[1]};"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.connections.append(sock)
                sock.recv(48, socket.MSG_WAITALL)
                sock.sendall(WELCOME)
                number = struct.unpack_from("<Q", sock.recv(48, socket.MSG_WAITALL), 8)[0]
                sock.sendall(struct.pack("<HHiQQQQ", 0x5343, 8, 0, number, 5, 1 << 20, 0))

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(30)
        for sock in self.connections:
            sock.close()


@pytest.fixture
def silent() -> Any:
    server = Silent()
    yield server
    server.close()


def test_await_gives_a_hung_server_up(silent: Silent) -> None:
    async def main(trans: Any) -> None:
        with pytest.raises(TransportTimeoutError):
            await trans.submit(reads=[(0, bytearray(10))])

    with LibdAction("0", [silent.durl + "stall,0.3;"]) as action:
        asyncio.run(asyncio.wait_for(main(action.get_transport("m")), 30))


def test_short_waits_give_a_hung_server_up(silent: Silent) -> None:
    with LibdAction("0", [silent.durl + "stall,0.3;"]) as action:
        done = action.get_transport("m").submit(reads=[(0, bytearray(10))])
        for _ in range(300):
            with pytest.raises(TransportTimeoutError):
                done.wait(timeout=0.1)
            if done.done:
                break
        assert done.done


def test_waiting_in_vain_says_so(silent: Silent) -> None:
    with LibdAction("0", [silent.durl]) as action:
        done = action.get_transport("m").submit(reads=[(0, bytearray(10))])
        with pytest.raises(TransportTimeoutError, match="it goes on"):
            done.wait(timeout=0.01)


def test_a_greeting_that_dribbles_in_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, suppress(OSError):
                for i in range(len(WELCOME)):
                    sock.sendall(WELCOME[i : i + 1])
                    if stop.wait(0.2):
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        durl = f"m;rdma_tcp;url,tcp://127.0.0.1:{listener.getsockname()[1]};timeout,0.5;"
        with LibdAction("0", [durl]) as action, pytest.raises(TransportTimeoutError):
            action.get_transport("m")
        assert thread.is_alive()  # it had more to say
        stop.set()
        thread.join(30)


def test_event_loops_are_let_go(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 22), "m", 1 << 22)
    trans = stand.open(grant, "tcp")
    loops = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(
            *(trans.submit(reads=[(0, np.empty(1 << 22, np.uint8))]) for _ in range(4))
        )

    for _ in range(3):
        asyncio.run(main())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3


def test_an_idle_lane_that_ends_ends_the_batch(stand: Stand) -> None:
    """Its end wakes an event loop; unless it is taken note of, again and again."""
    with relay(stand.server.port) as (port, cut):
        size = 8 << 20
        grant = stand.control.create_element(stand.tenant(size), "m", size)
        durl = grant.durl("m", "rdma_tcp").replace(f":{stand.server.port}", f":{port}")
        with LibdAction("0", [f"{durl}stripes,3;"]) as action:
            trans = action.get_transport("m")

            async def main() -> None:
                await trans.submit(reads=[(0, np.empty(size, np.uint8))])
                cut()
                for _ in range(100):
                    try:
                        await trans.submit(reads=[(0, bytearray(1))])
                        return
                    except TransportClosedError:
                        continue

            asyncio.run(asyncio.wait_for(main(), 30))


SIGNALLED = """
import os, signal, threading, time
from libd import LibdAction, MemoryServer
class Stop(Exception): pass
def handler(*_): raise Stop
signal.signal(signal.SIGALRM, handler)
server = MemoryServer(1 << 26)
trans = LibdAction("0", [f"m;rdma_tcp;url,{server.tcp_url};"]).get_transport("m")
out, other = bytearray(1 << 20), bytearray(64)
end = time.monotonic() + 3
done = False
def churn():
    while not done:
        try:
            trans.read_into(0, other)
        except ConnectionError:
            pass
threads = [threading.Thread(target=churn) for _ in range(2)]
for t in threads: t.start()
hits = 0
while time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        while True:
            try:
                trans.read_into(0, out)
                trans.submit(reads=[(0, out)]).wait()
                trans.stat()
            except ConnectionError:
                pass
    except Stop:
        hits += 1
done = True
for t in threads: t.join()
print(hits > 10, flush=True)
os._exit(0)
"""


def test_a_signal_beside_a_call_that_ends_is_the_signals() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.split() == ["True"], done.stderr


def test_await_in_a_child_of_fork_says_why(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 22), "m", 1 << 22)
    trans = stand.open(grant, "tcp")
    done = trans.submit(reads=[(0, np.empty(1 << 22, np.uint8))])

    async def main() -> None:
        await done

    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(main())
        except TransportClosedError:
            status = 0
        except BaseException:
            status = 2
        finally:
            os._exit(status)
    end = time.monotonic() + 30
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(found[1]) == 0
    done.wait()


def test_an_administrators_leases_survive_its_connection(stand: Stand) -> None:
    with relay(stand.server.port) as (port, cut):
        with ServerControl(f"tcp://127.0.0.1:{port}", ADMIN) as control:
            tenant = control.create_tenant("leaseholder", 1 << 20)
            leased = control.create_element(tenant, "m", 4096, lease=0.5)
            renewed = control.create_element(tenant, "n", 4096)
            control.renew_element(tenant, renewed.id, 0.5)
            cut()
            with suppress(TransportClosedError):
                control.stats()
            control.stats()
            time.sleep(0.8)
            assert control.element_stats(tenant, leased.id).reserved == 4096
            assert control.element_stats(tenant, renewed.id).reserved == 4096
            assert control.stats().leases == 2
            control.drop_element(tenant, leased.id)
        stand.control.drop_tenant(tenant)


def test_the_number_of_tenants_is_bounded() -> None:
    """The kernel marks no more than 2048 locks of a thread that dies."""
    with MemoryServerProcess("64 MB") as process:
        for i in range(2000):
            process.control.create_tenant(f"t{i}", 4096)
        with pytest.raises(CapacityError, match="2000 tenants"):
            process.control.create_tenant("one more", 4096)
        grant = process.control.create_element("t0", "m", 64)
        with LibdAction("0", [grant.durl("m", "rdma_shm")]) as action:
            trans = action.get_transport("m")
            os.kill(process.pid, signal.SIGKILL)
            process.stop()
            with pytest.raises(TransportClosedError):
                trans.write_from(0, b"x")


class Interface:
    """Memory that only ``__array_interface__`` leads to."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__


@pytest.mark.parametrize("dtype", ["<U4", "S3", "<M8[ns]", "<m8[25us]", "<c16", "?", "V7"])
def test_array_interface_of_any_item(stand: Stand, dtype: str) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 4096), "shm")
    array = np.frombuffer(bytes(range(1, 129)), np.uint8)[: 4 * np.dtype(dtype).itemsize]
    assert trans.write_from(0, Interface(array.copy().view(dtype))) == array.nbytes
    out = bytearray(array.nbytes)
    trans.read_into(0, out)
    assert out == array.tobytes()


def same(array: Any) -> Any:
    return array


@pytest.mark.parametrize("dtype", ["<M8[ns]", "<m8[25us]", "i8,M8[s]", "<c16", "U3", "?", "V7"])
def test_arrays_of_any_plain_item(stand: Stand, dtype: str) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 4096), "shm")
    data = np.frombuffer(bytes(range(1, 129)), np.uint8)[: 4 * np.dtype(dtype).itemsize].copy()
    assert trans.write_from(0, data.view(dtype)) == data.nbytes
    out = np.zeros_like(data)
    trans.read_into(0, out.view(dtype))
    np.testing.assert_array_equal(out, data)


OBJECTS = [
    np.array([None, 1]),
    np.zeros(2, [("Offset", "i8"), ("o", object)]),
    np.zeros(2, [("a", [("when", "M8[s]"), ("o", object, 3)])]),
    np.array([[None, 1], [2, 3]], order="F"),
    (ctypes.py_object * 2)(None, 1),
]


@pytest.mark.parametrize("objects", OBJECTS, ids=lambda o: str(getattr(o, "dtype", type(o))))
@pytest.mark.parametrize("seen_as", [same, memoryview, Interface])
def test_objects_are_refused(stand: Stand, objects: Any, seen_as: Callable[[Any], Any]) -> None:
    """Bytes of an element must not become pointers that Python follows."""
    try:
        target = seen_as(objects)
    except (AttributeError, ValueError):
        pytest.skip("cannot be seen so")
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 4096), "shm")
    trans.write_from(0, b"\x41" * 64)
    trans.reg(64)
    for operation in (
        lambda: trans.write_from(0, target),
        lambda: trans.read_into(0, target),
        lambda: trans.read(16, out=target),
        lambda: trans.readv([(0, target)]),
        lambda: trans.writev([(0, target)]),
        lambda: trans.submit(reads=[(0, target)]),
        lambda: trans.submit(writes=[(0, target)]),
    ):
        with pytest.raises(BufferError, match="plain memory"):
            operation()


def test_objects_that_no_format_tells_of_are_refused(stand: Stand) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 4096), "shm")
    out_of_order = {"names": ["i", "o"], "formats": ["i8", "O"], "offsets": [8, 0]}
    with pytest.raises(BufferError, match="plain memory"):
        trans.read_into(0, np.zeros(2, out_of_order))


def test_a_field_may_be_called_O(stand: Stand) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 4096), "shm")
    trans.read_into(0, np.ones(3, [("O", "i8"), ("NO", [("O", "f4", 2)])]))


def test_arguments_of_other_types_are_type_errors(stand: Stand) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", elastic=True), "tcp")
    with pytest.raises(TypeError):
        trans.read_into("x", bytearray(1))
    with pytest.raises(TypeError):
        trans.alloc(1.5)
    with pytest.raises(LibdError, match="lease"):
        trans.alloc(1, lease="5")


def test_an_administrator_grants_and_the_default_region_is_asked_for() -> None:
    name = f"@scad-test-{secrets.token_hex(8)}"
    command = [sys.executable, "-m", "libd.memory_server", "0", "--size", "16MB", "--json"]
    process = subprocess.Popen(
        [*command, "--unix", name, "--admin-token", "boss"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline()
        with ServerControl(f"unix://{name}", "boss") as control:
            control.create_element(control.create_tenant("t", "16 MB"), "m", "16 MB")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
    with MemoryServer(4096, admin_token="boss") as server:
        with pytest.raises(LibdError):
            LibdAction("0", [f"m;rdma_tcp;url,{server.tcp_url};"]).get_transport("m")
