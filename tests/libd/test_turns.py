"""The server's loop: bytes that come in any portions, ends behind them, turns that are over."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from libd import ElementGrant, LibdAction, MemoryServerProcess
from tests.libd.test_requests import READ, REPLY, REQUEST, WRITE, Raw, greeting, raw

Stand = Any  # conftest.py's

FLUSH = 9
INPUT = 4096  # bytes that a connection buffers
SIZE = 1 << 20


@pytest.fixture
def grant(stand: Stand) -> ElementGrant:
    return stand.control.create_element(stand.tenant(8 * SIZE), "m", SIZE)


def request(op: int, number: int, size: int = 0, payload: bytes = b"") -> bytes:
    return REQUEST.pack(op, 0, 0, number, 0, 0, size, len(payload)) + payload


def replies(sock: socket.socket) -> list[tuple[int, int, int]]:
    """Operation, code and number of all that comes before the end."""
    data = b""
    while piece := sock.recv(1 << 20):
        data += piece
    found = []
    while data:
        _, op, code, number, _, _, length = REPLY.unpack(data[: REPLY.size])
        data = data[REPLY.size + length :]
        found.append((op, code, number))
    return found


@pytest.mark.parametrize("count", [0, 1, 84, 85, 86, 1000])
def test_what_comes_before_the_end_is_answered(
    stand: Stand, grant: ElementGrant, count: int
) -> None:
    """The end makes no event of its own if it is there with the bytes before it."""
    with socket.create_connection(("127.0.0.1", stand.server.port), timeout=20) as sock:
        sock.sendall(greeting(grant) + b"".join(request(FLUSH, i) for i in range(1, count + 1)))
        sock.shutdown(socket.SHUT_WR)
        assert replies(sock) == [(0, 0, 0), *((FLUSH, 0, i) for i in range(1, count + 1))]


@pytest.mark.parametrize("flushes", [0, 3])
def test_a_long_read_before_the_end_is_answered(flushes: int) -> None:
    """Whether short reads may go before it is looked for where the end is already."""
    sizes = [8, LONG, SIZE, 8 * SIZE]
    with MemoryServerProcess("16 MB") as process:
        tenant = process.control.create_tenant("t", 8 * SIZE)
        grant = process.control.create_element(tenant, "m", 8 * SIZE)
        port = int(process.tcp_url.rpartition(":")[2])
        for size in sizes:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
                sock.sendall(greeting(grant))
                client = Raw(sock)
                client.receive(REPLY.unpack(client.receive(REPLY.size))[6])
                os.kill(process.pid, signal.SIGSTOP)  # so that all of it is there when it goes on
                try:
                    frames = [request(FLUSH, i) for i in range(flushes)]
                    sock.sendall(b"".join(frames) + request(READ, flushes, size))
                    sock.shutdown(socket.SHUT_WR)
                finally:
                    os.kill(process.pid, signal.SIGCONT)
                done = [*((FLUSH, 0, i) for i in range(flushes)), (READ, 0, flushes)]
                assert replies(sock) == done


@pytest.mark.parametrize("extra", range(-2, 3))
@pytest.mark.parametrize("split", [False, True])
def test_requests_about_as_long_as_the_buffer(
    stand: Stand, grant: ElementGrant, extra: int, split: bool
) -> None:
    data = random.Random(extra).randbytes(INPUT - REQUEST.size + extra)
    frame = request(WRITE, 1, len(data), data) + request(READ, 2, len(data))
    with raw(stand, grant) as client:
        for _ in range(20):
            half = len(frame) // 2 if split else len(frame)
            client.sock.sendall(frame[:half])
            client.sock.sendall(frame[half:])
            assert REPLY.unpack(client.receive(REPLY.size))[1:4] == (WRITE, 0, 1)
            assert REPLY.unpack(client.receive(REPLY.size))[1:4] == (READ, 0, 2)
            assert client.receive(len(data)) == data


def test_pieces_of_any_length(stand: Stand, grant: ElementGrant) -> None:
    draw = random.Random(5)
    frames, wanted = b"", []
    for number in range(1, 200):
        data = draw.randbytes(draw.choice([0, 1, 47, 48, 1000, 4000, 4048, 4096, 20_000]))
        if draw.random() < 0.5:
            frames += request(FLUSH, number)
            wanted.append((FLUSH, 0, number))
        else:
            frames += request(WRITE, number, len(data), data)
            wanted.append((WRITE, 0, number))
    with raw(stand, grant) as client:

        def send() -> None:
            at = 0
            while at < len(frames):
                n = draw.choice([1, 7, 48, 49, 4096, 4097, 8192, 60_000])
                client.sock.sendall(frames[at : at + n])
                at += n
            client.sock.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        assert replies(client.sock) == wanted
        thread.join(30)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_peer_that_reads_late(stand: Stand, grant: ElementGrant, kind: str) -> None:
    """The server has no room to send in, again and again, and is told when there is some."""
    data = random.Random(7).randbytes(SIZE)
    stand.open(grant, "tcp").write_from(0, data)
    if kind == "tcp":
        sock = socket.create_connection(("127.0.0.1", stand.server.port), timeout=20)
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect("\0" + stand.server.unix_url.removeprefix("unix://@"))
    with sock:
        client = Raw(sock)
        sock.sendall(greeting(grant))
        client.receive(REPLY.unpack(client.receive(REPLY.size))[6])
        for first in range(1, 60, 20):
            sock.sendall(b"".join(request(READ, i, SIZE) for i in range(first, first + 20)))
            for number in range(first, first + 20):
                assert REPLY.unpack(client.receive(REPLY.size))[1:4] == (READ, 0, number)
                assert client.receive(SIZE) == data
            # Small ones in between, whose replies are taken at once.
            assert client.ask(FLUSH)[0] == 0
            assert stand.control.stats().uptime > 0


def test_who_asks_without_end_does_not_keep_others_waiting(
    stand: Stand, grant: ElementGrant
) -> None:
    """Turns of several at once that are over again and again: small requests, and large reads."""
    answered = []
    pumps = []
    socks = []

    def pump(block: bytes) -> None:
        with raw(stand, grant) as greedy:
            greedy.sock.settimeout(None)
            socks.append(greedy.sock)

            def take() -> None:
                with suppress(ConnectionError):
                    while piece := greedy.sock.recv(1 << 20):
                        answered.append(len(piece))

            reader = threading.Thread(target=take)
            reader.start()
            # Gigabytes are asked for by what fits into the sockets: it is not waited for them.
            with suppress(ConnectionError):
                while True:
                    greedy.sock.sendall(block)
            reader.join(60)
            assert not reader.is_alive()

    for block in (
        b"".join(request(FLUSH, i) for i in range(1, 1000)),
        b"".join(request(READ, i, SIZE) for i in range(1, 20)),
        b"".join(request(READ, i, SIZE) for i in range(1, 20)),
    ):
        pumps.append(threading.Thread(target=pump, args=(block,)))
    for thread in pumps:
        thread.start()
    while len(socks) < len(pumps) or sum(answered) <= SIZE:
        time.sleep(0.001)
    try:
        trans = stand.open(grant, "tcp")
        for _ in range(20):
            trans.flush()
        with raw(stand, grant) as fleeting:  # closed while it waits for its turn
            fleeting.sock.sendall(b"".join(request(READ, i, SIZE) for i in range(1, 40)))
        trans.flush()
    finally:
        for sock in socks:
            sock.shutdown(socket.SHUT_RDWR)
        for thread in pumps:
            thread.join(60)
    assert not any(thread.is_alive() for thread in pumps)


def answered(stand: Stand, grant: ElementGrant, *requests: bytes) -> list[int]:
    """The numbers of requests that are sent together, in the order in which they are answered."""
    with socket.create_connection(("127.0.0.1", stand.server.port), timeout=20) as sock:
        sock.sendall(greeting(grant) + b"".join(requests))
        sock.shutdown(socket.SHUT_WR)
        found = replies(sock)
    assert all(code == 0 for _, code, _ in found)
    return [number for _, _, number in found[1:]]


LONG, SHORT = 64 * 1024 + 1, 64 * 1024


def test_short_reads_go_before_long_ones(stand: Stand, grant: ElementGrant) -> None:
    sizes = [LONG, SHORT, LONG, 8, SIZE, 0]
    reads = [request(READ, number, size) for number, size in enumerate(sizes, 1)]
    assert answered(stand, grant, *reads) == [2, 4, 6, 1, 3, 5]


@pytest.mark.parametrize("op", [WRITE, FLUSH])
def test_nothing_goes_before_another_request(stand: Stand, grant: ElementGrant, op: int) -> None:
    between = request(op, 3, 4, b"data") if op == WRITE else request(op, 3)
    short = request(READ, 2, 8), request(READ, 4, 8)
    frames = request(READ, 1, LONG), short[0], between, short[1]
    assert answered(stand, grant, *frames) == [2, 1, 3, 4]


def test_a_long_read_is_not_overtaken_for_ever(stand: Stand, grant: ElementGrant) -> None:
    shorts = [request(READ, number, 8) for number in range(2, 200)]
    order = answered(stand, grant, request(READ, 1, LONG), *shorts)
    assert order.index(1) <= 64
    assert sorted(order) == list(range(1, 200))


def test_a_short_read_does_not_wait_for_a_long_one() -> None:
    size = 64 << 20
    with MemoryServerProcess("128 MB") as process:
        tenant = process.control.create_tenant("t", 2 * size)
        grant = process.control.create_element(tenant, "m", size)
        with LibdAction("a", [grant.durl("m", "rdma_tcp")]) as action:
            trans = action.get_transport("m")
            trans.write_from(size - 5, b"short")
            long, short = np.empty(size, np.uint8), bytearray(5)
            os.kill(process.pid, signal.SIGSTOP)  # so that both are there when it goes on
            try:
                first = trans.submit(reads=[(0, long)])
                second = trans.submit(reads=[(size - 5, short)])
            finally:
                os.kill(process.pid, signal.SIGCONT)
            second.wait(timeout=30)
            assert short == b"short"
            assert not first.done  # sockets hold less than that
            first.wait(timeout=30)
            assert bytes(long[-5:]) == b"short"
            assert not long[:-5].any()


def test_reads_into_the_same_memory_do_not_confuse_the_client(stand: Stand) -> None:
    """Where answers come in another order, no header is looked for in what a read filled."""
    grant = stand.control.create_element(stand.tenant(8 * SIZE), "m", SIZE)
    trans = stand.open(grant, "tcp")
    trans.write_from(0, np.arange(SIZE, dtype=np.uint8))
    draw = random.Random(4)
    out = np.empty(SIZE, np.uint8)
    under_way = []
    for _ in range(400):
        size = draw.choice([8, 64, 4096, LONG, SIZE])
        under_way.append(trans.submit(reads=[(0, out[:size])]))
        if len(under_way) == 40:
            for done in under_way:
                done.wait(timeout=30)
            under_way.clear()
            np.testing.assert_array_equal(out[:8], np.arange(8))
