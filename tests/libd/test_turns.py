"""The server's loop: bytes that come in any portions, ends behind them, turns that are over."""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from libd import ElementGrant, _core
from tests.libd.test_requests import HELLO, READ, REPLY, REQUEST, WRITE, Raw, raw

Stand = Any  # conftest.py's

FLUSH = 9
INPUT = 4096  # bytes that a connection buffers
SIZE = 1 << 20


@pytest.fixture
def grant(stand: Stand) -> ElementGrant:
    return stand.control.create_element(stand.tenant(8 * SIZE), "m", SIZE)


def request(op: int, number: int, size: int = 0, payload: bytes = b"") -> bytes:
    return REQUEST.pack(op, 0, 0, number, 0, 0, size, len(payload)) + payload


def greeting(grant: ElementGrant) -> bytes:
    token = grant.tenant.token.encode()
    hello = HELLO.pack(
        b"SCADMEM1", _core.PROTOCOL_VERSION, 2, len(token), 0, grant.tenant.id, grant.id, grant.key
    )
    return hello + token


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
