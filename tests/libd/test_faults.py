"""Servers and clients that die, lie, or fall silent."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from libd import (
    AuthError,
    LibdAction,
    LibdError,
    MemoryServer,
    MemoryServerProcess,
    ProtocolError,
    Ref,
    StaleRefError,
    TransportClosedError,
    TransportTimeoutError,
    _core,
    join_address,
)
from tests.waiting import until

Stand = Any  # conftest.py's

HELLO = struct.Struct("<8sHHHHQQ16s")
REQUEST = struct.Struct("<HHIQQQQQ")
REPLY = struct.Struct("<HHiQQQQ")


def hello(version: int = _core.PROTOCOL_VERSION, kind: int = 1, token: bytes = b"") -> bytes:
    return HELLO.pack(b"SCADMEM1", version, kind, len(token), 0, 0, 0, bytes(16)) + token


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


def dial(server: MemoryServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def greeted(server: MemoryServer) -> socket.socket:
    """A connection to the default region, by hand."""
    sock = dial(server)
    sock.sendall(hello())
    reply = REPLY.unpack(receive(sock, REPLY.size))
    assert reply[2] == 0
    receive(sock, reply[6])
    return sock


def operations(trans: Any) -> list[Callable[[], object]]:
    return [
        lambda: trans.read_into(0, bytearray(1)),
        lambda: trans.write_from(0, b"1"),
        lambda: trans.readv([(0, bytearray(1)), (1, bytearray(1))]),
        lambda: trans.alloc(1),
        lambda: trans.ref([(0, 1)]),
        trans.flush,
        trans.stat,
    ]


@pytest.mark.parametrize("kind", ["shm", "tcp"])
def test_a_killed_server_fails_pending_and_following_calls(kind: str) -> None:
    with MemoryServerProcess("64 MB") as process:
        tenant = process.control.create_tenant("t", "48 MB")
        grant = process.control.create_element(tenant, "m", "32 MB")
        with LibdAction("0", [grant.durl(f"m{i}", f"rdma_{kind}") for i in range(4)]) as action:
            outcomes: list[object] = []

            def work(trans: Any) -> None:
                out = np.empty(32 << 20, np.uint8)
                try:
                    while True:
                        trans.read_into(0, out)
                        busy.set()
                except LibdError as error:
                    outcomes.append(error)

            busy = threading.Event()
            opened = [action.get_transport(f"m{i}") for i in range(4)]
            threads = [threading.Thread(target=work, args=(trans,)) for trans in opened]
            for thread in threads:
                thread.start()
            assert busy.wait(30)
            os.kill(process.pid, signal.SIGKILL)
            for thread in threads:
                thread.join(30)
            assert [type(o) for o in outcomes] == [TransportClosedError] * 4
            for operation in operations(action.get_transport("m0")):
                with pytest.raises(TransportClosedError):
                    operation()
        with pytest.raises(TransportClosedError):
            process.control.stats()
        process.stop()
        assert process.returncode == -signal.SIGKILL
        with LibdAction("1", [grant.durl("m", f"rdma_{kind}")]) as action:
            with pytest.raises(TransportClosedError, match="no memory server"):
                action.get_transport("m")


@pytest.mark.parametrize("kind", ["shm", "tcp"])
def test_a_restarted_server_knows_no_old_refs(kind: str) -> None:
    refs: list[Ref] = []
    for _ in range(2):
        with MemoryServer(1 << 20, unix=f"scad-test-restart-{os.getpid()}") as server:
            url = server.unix_url if kind == "shm" else server.tcp_url
            with LibdAction("0", [f"m;rdma_{kind};url,{url};"]) as action:
                trans = action.get_transport("m")
                for old in refs:
                    with pytest.raises(StaleRefError):
                        trans.resolve(old)
                refs += [trans.ref([(0, 8)]), trans.ref([(trans.alloc(100), 8)])]
    assert len({r.epoch for r in refs}) == 4


@pytest.mark.parametrize("kind", ["shm", "tcp"])
def test_a_server_that_stops(kind: str, stand: Stand) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 4096), kind)
    view = trans.map(0, 10) if kind == "shm" else memoryview(bytes(10))
    stand.server.stop()
    for operation in operations(trans):
        with pytest.raises(TransportClosedError):
            operation()
    assert bytes(view) == bytes(10)


def test_closing_in_another_thread_ends_a_call_that_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caught: list[BaseException] = []

        def work(trans: Any) -> None:
            try:
                trans.read_into(0, bytearray(8))
            except LibdError as error:
                caught.append(error)

        durl = f"m;rdma_tcp;url,tcp://127.0.0.1:{listener.getsockname()[1]};timeout,30;"
        with LibdAction("0", [durl]) as action:
            opener = threading.Thread(target=lambda: action.get_transport("m"))
            opener.start()
            server, _ = listener.accept()
            receive(server, HELLO.size)
            server.sendall(
                REPLY.pack(0x5343, 0, 0, 0, 0, 0, 64)
                + struct.pack("<16sQQQQIIII", b"", 1, 1, 64, 5, 1, 0, 0, 0)
            )
            opener.join(30)
            trans = action.get_transport("m")
            thread = threading.Thread(target=work, args=(trans,))
            thread.start()
            receive(server, REQUEST.size)  # it asks, and is never answered
            trans.close()
            thread.join(30)
            server.close()
        assert [type(e) for e in caught] == [TransportClosedError]


def answering(reply: bytes) -> tuple[socket.socket, threading.Thread]:
    """A false server: sends `reply` to the first who greets it, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            receive(sock, HELLO.size)
            sock.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    return listener, thread


WELCOME = struct.pack("<16sQQQQIIII", b"", 1, 1, 64, 5, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", ProtocolError),
        (b"", TransportClosedError),
        (REPLY.pack(0x5343, 0, 0, 0, 0, 0, 64)[:20], TransportClosedError),
        (REPLY.pack(0x5343, 0, 0, 0, 0, 0, 10_000) + bytes(10_000), ProtocolError),
        (REPLY.pack(0x5343, 0, 0, 0, 0, 0, 66) + WELCOME + b"ab", ProtocolError),
        (REPLY.pack(0x5343, 0, 14, 0, 2, 0, 0), ProtocolError),
        (REPLY.pack(0x5343, 0, 999, 0, 0, 0, 0), LibdError),
    ],
)
def test_false_servers(reply: bytes, error: type[LibdError]) -> None:
    listener, thread = answering(reply)
    durl = f"m;rdma_tcp;url,tcp://127.0.0.1:{listener.getsockname()[1]};"
    with listener, LibdAction("0", [durl]) as action, pytest.raises(error):
        action.get_transport("m")
    thread.join()


def test_a_server_that_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        durl = f"m;rdma_tcp;url,tcp://127.0.0.1:{listener.getsockname()[1]};timeout,0.2;"
        with LibdAction("0", [durl]) as action, pytest.raises(TransportTimeoutError):
            action.get_transport("m")


def test_another_version_is_told_ours(stand: Stand) -> None:
    with dial(stand.server) as sock:
        sock.sendall(hello(version=7))
        reply = REPLY.unpack(receive(sock, REPLY.size))
        assert (reply[2], reply[4]) == (14, _core.PROTOCOL_VERSION)
        assert sock.recv(1) == b""


def test_clients_that_vanish(stand: Stand) -> None:
    """In the greeting, in a header, in the data, and with an answer under way."""
    big = 1 << 16
    for sent in (
        b"",
        hello()[:20],
        hello() + REQUEST.pack(1, 0, 0, 1, 0, 0, big, 0)[:13],
        hello() + REQUEST.pack(2, 0, 0, 1, 0, 0, big, big) + bytes(1000),
        hello() + REQUEST.pack(1, 0, 0, 1, 0, 0, big, 0) * 100,
    ):
        with dial(stand.server) as sock:
            sock.sendall(sent)
    with greeted(stand.server) as sock:
        sock.sendall(REQUEST.pack(9, 0, 0, 5, 0, 0, 0, 0))
        assert REPLY.unpack(receive(sock, REPLY.size))[:4] == (0x5343, 9, 0, 5)


def test_a_client_that_does_not_read_holds_up_nobody(stand: Stand) -> None:
    with dial(stand.server) as greedy:
        greedy.sendall(hello())
        greedy.setblocking(False)
        asked = 0
        try:
            while asked < 5000:
                asked += greedy.send(REQUEST.pack(1, 0, 0, 1, 0, 0, 1 << 16, 0)) // REQUEST.size
        except BlockingIOError:
            pass
        with greeted(stand.server) as sock:
            sock.sendall(REQUEST.pack(9, 0, 0, 5, 0, 0, 0, 0))
            assert REPLY.unpack(receive(sock, REPLY.size))[2] == 0


def test_pipelined_requests_are_answered_in_order(stand: Stand) -> None:
    with greeted(stand.server) as sock:
        frames = b"".join(
            REQUEST.pack(2, 0, 0, 2 * i, i * 8, 0, 8, 8)
            + struct.pack("<Q", i)
            + REQUEST.pack(1, 0, 0, 2 * i + 1, i * 8, 0, 8, 0)
            for i in range(300)
        )
        sock.sendall(frames)
        for i in range(300):
            assert REPLY.unpack(receive(sock, REPLY.size))[2:4] == (0, 2 * i)
            reply = REPLY.unpack(receive(sock, REPLY.size))
            assert (reply[2], reply[3], reply[6]) == (0, 2 * i + 1, 8)
            assert receive(sock, 8) == struct.pack("<Q", i)


def test_a_refused_write_does_not_lose_step(stand: Stand) -> None:
    with greeted(stand.server) as sock:
        for addr, size, length, code in (
            (1 << 16, 100_000, 100_000, 4),
            (0, 10, 99, 9),
            (0, 99, 10, 9),
            (0, 0, 10, 9),
            (1 << 50, 1, 1, 4),
            (0, 1 << 63, 7, 4),
        ):
            sock.sendall(REQUEST.pack(2, 0, 0, 1, addr, 0, size, length) + b"x" * length)
            reply = REPLY.unpack(receive(sock, REPLY.size))
            assert reply[2] == code
            assert reply[6] == 0
        two = struct.pack("<QQQQQQ", 0, 0, 4, 8, 0, 4)
        sock.sendall(REQUEST.pack(4, 0, 2, 1, 0, 0, 0, 48 + 9) + two + b"123456789")
        assert REPLY.unpack(receive(sock, REPLY.size))[2] == 9
        sock.sendall(REQUEST.pack(9, 0, 0, 5, 0, 0, 0, 0))
        assert REPLY.unpack(receive(sock, REPLY.size))[2:4] == (0, 5)
    assert stand.control.stats().bytes_written == 0


@pytest.mark.parametrize(
    ("op", "count", "payload"),
    [
        *((op, 0, b"?") for op in (1, 5, 6, 7, 8, 9, 10, 11, 37)),
        (3, 0, b""),
        (3, 4097, bytes(24 * 4097)),
        (3, 1, bytes(25)),
        (4, 1, bytes(23)),
        (13, 0, b""),
        (17, 0, b""),
        (17, 0, bytes(7)),
        (16, 0, bytes(8)),
        (12, 0, b"?"),
        (32, 0, b"a tenant"),
        (32, 0, bytes(512)),
    ],
)
def test_what_is_not_the_protocol_ends_the_connection(
    stand: Stand, op: int, count: int, payload: bytes
) -> None:
    with greeted(stand.server) as sock:
        sock.sendall(REQUEST.pack(op, 0, count, 5, 0, 0, 1, len(payload)))
        if op == 32 and len(payload) < 512:
            sock.sendall(payload)  # well formed, for somebody else
        assert REPLY.unpack(receive(sock, REPLY.size))[2:4] == (9, 5)
        assert sock.recv(1) == b""


@pytest.mark.parametrize("op", [2, 4])
def test_an_administrator_writes_nothing(stand: Stand, op: int) -> None:
    with dial(stand.server) as sock:
        sock.sendall(hello(kind=3, token=b"the administrator's token"))
        assert REPLY.unpack(receive(sock, REPLY.size))[2::4] == (0, 64)
        receive(sock, 64)
        sock.sendall(REQUEST.pack(1, 0, 0, 6, 0, 0, 1, 0))
        assert REPLY.unpack(receive(sock, REPLY.size))[2:4] == (8, 6)
        sock.sendall(
            REQUEST.pack(op, 0, 1, 7, 0, 0, 9, 9 + 24 * (op == 4)) + bytes(9 + 24 * (op == 4))
        )
        assert REPLY.unpack(receive(sock, REPLY.size))[2:4] == (9, 7)
        assert sock.recv(1) == b""


def random_frame(rng: random.Random) -> bytes:
    big = [
        0,
        1,
        7,
        64,
        65535,
        65536,
        1 << 40,
        (1 << 40) - 1,
        1 << 62,
        1 << 63,
        (1 << 64) - 1,
        rng.getrandbits(64),
    ]
    body = rng.randbytes(rng.choice([0, 0, 1, 8, 24, 48, 300, 5000]))
    length = rng.choice([len(body), len(body), rng.choice(big)])
    frame = REQUEST.pack(
        rng.choice([*range(44), rng.getrandbits(16)]), rng.choice([0, 1, 65535]),
        rng.choice([0, 1, 2, 12, 4096, 4097, rng.getrandbits(32)]),
        rng.getrandbits(64), rng.choice(big),
        rng.choice([0, 0, 1, rng.getrandbits(53)]), rng.choice(big), length,
    ) + body  # fmt: skip
    if rng.random() < 0.2:
        frame = frame[: rng.randrange(len(frame) + 1)]
    if rng.random() < 0.1:
        at = rng.randrange(len(frame) + 1)
        frame = frame[:at] + rng.randbytes(8) + frame[at:]
    return frame


def fuzz(server: MemoryServer, token: str, frames: int, seed: int) -> None:
    rng = random.Random(seed)
    sent = 0
    while sent < frames:
        kind = rng.choice([1, 1, 1, 3])
        greeting = hello(kind=kind, token=token.encode() if kind == 3 else b"")
        if rng.random() < 0.2:
            greeting = (
                rng.randbytes(rng.randrange(100))
                if rng.random() < 0.5
                else greeting[: rng.randrange(48)]
            )
        with dial(server) as sock:
            sock.setblocking(False)
            batch = [greeting] + [random_frame(rng) for _ in range(rng.randrange(1, 30))]
            try:
                for frame in batch:
                    sock.send(frame)
                    sent += 1  # only what went out counts
                    if rng.random() < 0.3:
                        with suppress(BlockingIOError):
                            sock.recv(1 << 16)
            except (BlockingIOError, ConnectionError):
                pass


def check_alive(stand: Stand) -> None:
    with LibdAction("0", [f"m;rdma_tcp;url,{stand.server.tcp_url};"]) as action:
        trans = action.get_transport("m")
        trans.write_from(100, b"alive")
        out = bytearray(5)
        trans.read_into(100, out)
        assert out == b"alive"


def test_malformed_frames(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(), "bystander", 8192)
    trans = stand.open(grant, "tcp")
    trans.write_from(0, b"\x5a" * 8192)
    fuzz(stand.server, "the administrator's token", 4000, seed=2333)
    check_alive(stand)
    out = bytearray(8192)
    trans.read_into(0, out)
    assert out == b"\x5a" * 8192


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_a_million_malformed_frames(stand: Stand, seed: int) -> None:
    fuzz(stand.server, "the administrator's token", 100_000, seed)
    check_alive(stand)


def test_connections_leave_nothing_behind(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 20), "m", elastic=True)

    def cycle() -> None:
        for kind in ("shm", "tcp"):
            with LibdAction("0", [grant.durl("m", f"rdma_{kind}")]) as action:
                trans = action.get_transport("m")
                addr = trans.alloc(1000)
                trans.write_from(addr, bytes(1000))
                trans.free(addr)

    cycle()
    stand.control.stats()

    def held() -> tuple[int, int]:
        return psutil.Process().num_fds(), Path("/proc/self/maps").read_text().count("memfd:scad")

    before = held()
    for _ in range(50):
        cycle()
    while stand.control.stats().connections > 1:  # the server's thread notices a little later
        pass
    assert held() == before
    assert stand.control.element_stats(grant.tenant, grant.id).reserved == 0


def test_a_child_of_fork_does_not_touch_its_parents_connections(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 4096)
    action = LibdAction(
        "0", [grant.durl("s", "rdma_shm"), grant.durl("t", "rdma_tcp"), "l;rdma_local;size,64;"]
    )
    stand.actions.append(action)
    transports = [action.get_transport(n) for n in "stl"]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for trans in transports:
                with pytest.raises(TransportClosedError, match="fork"):
                    trans.read_into(0, bytearray(1))
            assert len(action.cache) == 0
            action.close()
            with LibdAction("1", [grant.durl("s", "rdma_shm")], cache=action.cache) as fresh:
                fresh.get_transport("s").write_from(0, b"child")
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    out = bytearray(5)
    transports[1].read_into(0, out)
    assert out == b"child"


def drop_in_a_child(action: LibdAction) -> None:
    """Fork, and have the child let go of the transports, as one that exits does."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            gone = [weakref.ref(action.get_transport(name)) for name in action.names]
            action.close()
            gc.collect()
            status = sum(ref() is not None for ref in gone)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("elastic", [False, True])
def test_a_child_of_fork_that_drops_transports_leaves_the_parent_its_memory(
    stand: Stand, elastic: bool
) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 4096, elastic=elastic)
    durls = [grant.durl("s", "rdma_shm"), grant.durl("t", "rdma_tcp")]
    durls.append("l;rdma_local;size,4096;" + "elastic,true;" * elastic)
    with LibdAction("0", durls) as action:
        addrs = {}
        for name in "stl":
            addrs[name] = action.get_transport(name).alloc(64)
            action.get_transport(name).write_from(addrs[name], b"parent's")
        drop_in_a_child(action)
        for name in "stl":
            trans = action.get_transport(name)
            out = bytearray(8)
            trans.read_into(addrs[name], out)
            assert out == b"parent's"
            assert trans.region(addrs[name]).size == 64
            trans.free(addrs[name])
            trans.free(trans.alloc(64))


def test_a_child_of_fork_that_drops_a_transport_leaves_the_parents_event_loop_its_events(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without events only this timer would find out that a batch is done.
    monkeypatch.setattr("libd.aio._LOOK", 60.0)
    size = 4 << 20
    grant = stand.control.create_element(stand.tenant(), "m", size)
    with LibdAction("0", [grant.durl("m", "rdma_tcp")]) as action:

        async def read() -> None:
            trans = action.get_transport("m")
            for _ in range(10):
                await asyncio.wait_for(trans.submit(reads=[(0, bytearray(size))]), 20)

        asyncio.run(read())
        drop_in_a_child(action)
        asyncio.run(read())


def watched() -> int:
    """How many descriptors the event loops of this process watch."""
    found = 0
    for info in Path("/proc/self/fdinfo").iterdir():
        with suppress(OSError):
            found += info.read_text().count("tfd:")
    return found


@pytest.mark.parametrize("kind", ["rdma_tcp", "rdma_shm"])
def test_a_server_watches_no_connection_that_it_has_closed(stand: Stand, kind: str) -> None:
    """A child of fork that has the descriptor, too, keeps it in the server's event loop, which
    would go on with memory that it has freed.
    """
    grant = stand.control.create_element(stand.tenant(), "m", 4096)
    before = watched()
    reading, writing = os.pipe()
    child = 0
    try:
        for _ in range(5):
            with LibdAction("0", [grant.durl("m", kind)]) as action:
                action.get_transport("m").write_from(0, b"here")
                assert watched() > before
                if not child and (child := os.fork()) == 0:
                    os.close(writing)
                    os.read(reading, 1)  # until the parent is done
                    os._exit(0)
            until(lambda: watched() == before)
            assert stand.control.stats().connections == 1
    finally:
        os.close(writing)
        os.close(reading)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_server_of_another_user_is_not_shown_the_token() -> None:
    name = f"scad-test-{secrets.token_hex(8)}"
    listening, listens = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind("\0" + name)
                listener.listen()
                os.write(listens, b"x")
                listener.settimeout(20)
                sock, _ = listener.accept()
                with sock:
                    sock.settimeout(20)
                    status = int(sock.recv(1) != b"")
        finally:
            os._exit(status)
    try:
        os.read(listening, 1)
        with LibdAction("0", [f"m;rdma_shm;url,unix://@{name};token,secret;timeout,5;"]) as action:
            with pytest.raises(AuthError, match="user 65534"):
                action.get_transport("m")
    finally:
        os.close(listening)
        os.close(listens)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_turned_away_from_the_unix_socket(stand: Stand) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(20)
                sock.connect("\0" + stand.server.unix_url.removeprefix("unix://@"))
                try:
                    sock.sendall(hello())
                    status = int(sock.recv(1) != b"")
                except ConnectionError:
                    status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stand.control.stats().refused == 1


def test_a_transport_of_a_thread_that_is_gone() -> None:
    made: list[LibdAction] = []
    thread = threading.Thread(
        target=lambda: made.append(LibdAction("0", ["l;rdma_local;size,64;"]))
    )
    thread.start()
    thread.join()
    with made[0] as action:
        thread = threading.Thread(target=lambda: action.get_transport("l").write_from(0, b"there"))
        thread.start()
        thread.join()
        assert bytes(action.get_transport("l").map(0, 5)) == b"there"


INTERRUPTED = """
import os, signal, socket, struct, sys, threading
from libd import LibdAction
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    sock, _ = listener.accept()
    sock.recv(48, socket.MSG_WAITALL)
    sock.sendall(struct.pack("<HHiQQQQ", 0x5343, 0, 0, 0, 0, 0, 64))
    sock.sendall(struct.pack("<16sQQQQIIII", b"", 1, 1, 64, 5, 1, 0, 0, 0))
    sock.recv(48, socket.MSG_WAITALL)
    os.kill(os.getpid(), signal.SIGINT)
    sock.recv(1)
threading.Thread(target=serve, daemon=True).start()
trans = LibdAction("0", [f"m;rdma_tcp;url,tcp://127.0.0.1:{listener.getsockname()[1]};"]).get_transport("m")
try:
    trans.read_into(0, bytearray(8))
except KeyboardInterrupt:
    print("interrupted", flush=True)
    try:
        trans.flush()
    except Exception as error:
        print(type(error).__name__, flush=True)
os._exit(0)
"""


def test_ctrl_c_interrupts_a_call_that_waits() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["interrupted", "TransportClosedError"], done.stderr


def test_writers_are_told_when_their_region_is_freed_under_way(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 20), "m", elastic=True)
    trans = stand.open(grant, "shm")
    addr = trans.alloc(1 << 19)
    durl = grant.durl("m", "rdma_tcp")
    config = dict(s.split(",", 1) for s in durl.split(";")[2:] if s)
    token = config["token"].encode()
    with dial(stand.server) as sock:
        sock.sendall(
            HELLO.pack(
                b"SCADMEM1",
                _core.PROTOCOL_VERSION,
                2,
                len(token),
                0,
                int(config["tenant"]),
                int(config["eid"]),
                bytes.fromhex(config["key"]),
            )
            + token
        )
        reply = REPLY.unpack(receive(sock, REPLY.size))
        assert reply[2] == 0
        receive(sock, reply[6])
        sock.sendall(REQUEST.pack(2, 0, 0, 1, addr, 0, 1 << 19, 1 << 19) + b"o" * 1000)
        while stand.control.element_stats(grant.tenant, grant.id).bytes_written == 0:
            pass  # the server has the header
        trans.free(addr)
        again = trans.alloc(1 << 19)
        trans.write_from(again, b"n" * (1 << 19))
        sock.sendall(b"o" * ((1 << 19) - 1000))
        assert REPLY.unpack(receive(sock, REPLY.size))[2] == 6
    assert bytes(trans.map(again, 1 << 19)) == b"n" * (1 << 19)
    assert join_address(again >> 40, 0) == again
