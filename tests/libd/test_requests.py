"""Requests by hand: what a client that is not ours may send to the atomic and lease operations."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from libd import ElementGrant, LibdError, _core
from tests.waiting import until

Stand = Any  # conftest.py's

HELLO = struct.Struct("<8sHHHHQQ16s")
REQUEST = struct.Struct("<HHIQQQQQ")
REPLY = struct.Struct("<HHiQQQQ")
READ, WRITE, ALLOC, FREE, EXTEND, RENEW, FETCH_ADD, COMPARE_SWAP = 1, 2, 5, 6, 7, 12, 16, 17
OK, BOUNDS, CAPABILITY, STALE, UNSUPPORTED, PROTOCOL, INVALID = 0, 4, 5, 6, 8, 9, 12
MOST = (1 << 64) - 1
TCP_REPAIR = 19


def greeting(grant: ElementGrant, key: bytes | None = None) -> bytes:
    """What a client of the element says first, with another key if one is given."""
    token = grant.tenant.token.encode()
    return HELLO.pack(
        b"SCADMEM1", _core.PROTOCOL_VERSION, 2, len(token), 0, grant.tenant.id, grant.id,
        grant.key if key is None else key,
    ) + token  # fmt: skip


class Raw:
    """A connection to an element that sends whatever it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.number = sock, 0

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self.sock.recv(size - len(data))):
            data += piece
        return data

    def ask(
        self, op: int, addr: int = 0, epoch: int = 0, size: int = 0, payload: bytes = b"",
        flags: int = 0,
    ) -> tuple[int, int, int]:  # fmt: skip
        """Code, a, b of the reply."""
        self.number += 1
        frame = REQUEST.pack(op, flags, 0, self.number, addr, epoch, size, len(payload))
        self.sock.sendall(frame + payload)
        magic, what, code, number, a, b, length = REPLY.unpack(self.receive(REPLY.size))
        assert (magic, what, number) == (0x5343, op, self.number)
        assert len(self.receive(length)) == length
        return code, a, b

    def swap(self, addr: int, expected: int, fresh: int, epoch: int = 0) -> tuple[int, int, int]:
        return self.ask(COMPARE_SWAP, addr, epoch, expected, struct.pack("<Q", fresh))


@contextmanager
def raw(stand: Stand, grant: ElementGrant) -> Iterator[Raw]:
    with socket.create_connection(("127.0.0.1", stand.server.port), timeout=20) as sock:
        sock.sendall(greeting(grant))
        client = Raw(sock)
        reply = REPLY.unpack(client.receive(REPLY.size))
        assert reply[2] == 0
        client.receive(reply[6])
        yield client


@pytest.fixture
def grant(stand: Stand) -> ElementGrant:
    return stand.control.create_element(stand.tenant(1 << 20), "m", 4096)


@pytest.fixture
def elastic(stand: Stand) -> ElementGrant:
    return stand.control.create_element(stand.tenant(1 << 20), "e", elastic=True)


def word_operations(client: Raw) -> list[Callable[[int, int], tuple[int, int, int]]]:
    return [
        lambda addr, epoch: client.ask(FETCH_ADD, addr, epoch, 1),
        lambda addr, epoch: client.swap(addr, 0, 1, epoch),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_words_outside_of_the_region(stand: Stand, grant: ElementGrant, which: int) -> None:
    with raw(stand, grant) as client:
        operation = word_operations(client)[which]
        for addr in (
            4096, 4089, 4088 + 8, 1 << 30, (1 << 40) - 8, (1 << 40) - 1, 1 << 63, MOST, MOST - 7,
        ):  # fmt: skip
            assert operation(addr, 0)[0] == BOUNDS, addr
        for addr in (1, 4, 7, 4087):
            assert operation(addr, 0)[0] == INVALID, addr
        assert operation(0, 12345)[0] == STALE
        assert operation(4088, 0)[:2] == (OK, 0)
    out = bytearray(4096)
    stand.open(grant, "tcp").read_into(0, out)
    assert out == bytes(4088) + b"\1" + bytes(7)


def test_words_wrap_around(stand: Stand, grant: ElementGrant) -> None:
    with raw(stand, grant) as client:
        assert client.ask(FETCH_ADD, 8, size=MOST)[:2] == (OK, 0)
        assert client.ask(FETCH_ADD, 8, size=2)[:2] == (OK, MOST)
        assert client.swap(8, 0, 5)[:2] == (OK, 1)  # not what was expected
        assert client.swap(8, 1, 1 << 63)[:2] == (OK, 1)
        assert client.ask(FETCH_ADD, 8, size=1 << 63)[:2] == (OK, 1 << 63)
        assert client.ask(FETCH_ADD, 8, size=0)[:2] == (OK, 0)


def test_regions_of_others_are_neither_freed_nor_grown_nor_held(
    stand: Stand, elastic: ElementGrant
) -> None:
    """The server itself refuses, whatever the client knows or leaves out."""
    other = stand.control.create_element(elastic.tenant, "other", elastic=True)
    beyond = stand.control.create_element(stand.tenant(1 << 20), "e", elastic=True)
    with raw(stand, elastic) as owner:
        _, region, epoch = owner.ask(ALLOC, addr=64, size=4096)
        at = region << 40
        with raw(stand, other) as sibling, raw(stand, beyond) as stranger:
            for known in (epoch, 0):
                for op, size in ((FREE, 0), (EXTEND, 8192), (RENEW, 1), (RENEW, 0)):
                    assert sibling.ask(op, at, known, size)[0] == CAPABILITY, op
                    assert stranger.ask(op, at, known, size)[0] in (BOUNDS, STALE), op
                    # Nor what is in no region of anybody.
                    for nowhere in (77 << 40, ((1 << 18) - 1) << 40, 1 << 63, MOST):
                        assert sibling.ask(op, nowhere, known, size)[0] in (BOUNDS, STALE), op
        assert owner.ask(READ, at, epoch, 8)[0] == OK
        assert owner.ask(FREE, at, epoch)[0] == OK


@pytest.mark.parametrize("which", [0, 1])
def test_words_of_others_and_of_the_dead(stand: Stand, elastic: ElementGrant, which: int) -> None:
    other = stand.control.create_element(elastic.tenant, "other", elastic=True)
    with raw(stand, elastic) as client, raw(stand, other) as stranger:
        code, region, epoch = client.ask(ALLOC, addr=64, size=4096)
        assert code == OK
        at = region << 40
        assert word_operations(client)[which](at + 16, epoch)[0] == OK
        assert word_operations(stranger)[which](at, epoch)[0] == CAPABILITY
        assert word_operations(stranger)[which](at, 0)[0] == CAPABILITY
        assert stranger.ask(RENEW, at, epoch, 1)[0] == CAPABILITY
        assert word_operations(client)[which](at, epoch + 1)[0] == STALE
        assert client.ask(FREE, at, epoch)[0] == OK
        assert word_operations(client)[which](at, epoch)[0] == STALE
        assert client.ask(RENEW, at, epoch, 1)[0] == STALE
        assert word_operations(client)[which](at + (1 << 40), 0)[0] == BOUNDS  # never was


def test_renewing_nonsense(stand: Stand, grant: ElementGrant, elastic: ElementGrant) -> None:
    with raw(stand, elastic) as client:
        _, region, epoch = client.ask(ALLOC, addr=64, size=100)
        at = region << 40
        assert client.ask(RENEW, at + 101, epoch, 1)[0] == BOUNDS
        assert client.ask(RENEW, at, epoch + 1, 1)[0] == STALE
        for addr in (0, 5 << 40, 1 << 63, MOST):
            assert client.ask(RENEW, addr, 0, 1)[0] == BOUNDS
        assert stand.control.stats().leases == 0
        assert client.ask(RENEW, at, epoch, MOST)[0] == OK  # half a billion years
        assert stand.control.stats().leases == 1
        assert client.ask(RENEW, at, epoch, 0)[0] == OK
        assert client.ask(RENEW, at, epoch, 0)[0] == OK
        assert stand.control.stats().leases == 0
    with raw(stand, grant) as client:
        assert client.ask(RENEW, 0, 0, 1)[0] == INVALID


def test_a_lease_that_is_very_long_does_not_keep_others(
    stand: Stand, elastic: ElementGrant
) -> None:
    with raw(stand, elastic) as client:
        for ms in (MOST, 1 << 53, 1 << 31, 20):
            assert client.ask(ALLOC, addr=64, size=100, epoch=ms)[0] == OK
    until(lambda: stand.control.stats().leases_expired == 1)
    assert stand.control.stats().leases == 3
    assert stand.control.element_stats(elastic.tenant, elastic.id).regions == 3


@pytest.mark.parametrize("flags", [1, 2, 3, 65535])
def test_regions_for_a_device_that_is_not_there(
    stand: Stand, elastic: ElementGrant, flags: int
) -> None:
    with raw(stand, elastic) as client:
        code = client.ask(ALLOC, addr=64, size=4096, epoch=1000, flags=flags)[0]
        assert code == (UNSUPPORTED if flags == 1 else INVALID)
        assert stand.control.stats().leases == 0
    assert stand.control.element_stats(elastic.tenant, elastic.id).reserved == 0


def test_bounds_that_wrap(stand: Stand, elastic: ElementGrant) -> None:
    with raw(stand, elastic) as client:
        _, region, epoch = client.ask(ALLOC, addr=64, size=4096)
        at = region << 40
        for addr, size in (
            (at, 4097), (at + 4096, 1), (at + 1, MOST), (at + 8, MOST - 7), (at + (1 << 40) - 1, 2),
            (at, MOST), (at, (1 << 64) - at),
        ):  # fmt: skip
            assert client.ask(READ, addr, 0, size)[0] != OK
            assert client.ask(WRITE, addr, 0, size, b"????")[0] != OK
        assert client.ask(EXTEND, at, epoch, MOST)[0] != OK
        assert client.ask(ALLOC, addr=64, size=MOST)[0] != OK
        assert client.ask(ALLOC, addr=1 << 63, size=1)[0] == INVALID
        assert client.ask(READ, at, epoch, 4096)[0] == OK  # and in step
    assert stand.control.element_stats(elastic.tenant, elastic.id).reserved == 4096


def test_two_tenants_guess_each_others_regions(stand: Stand) -> None:
    """Whatever address and epoch a tenant asks for, it is answered from its own arena."""
    rng = random.Random(2333)
    mine, theirs = (
        stand.control.create_element(stand.tenant(1 << 20), n, elastic=True) for n in "ab"
    )
    with raw(stand, mine) as one, raw(stand, theirs) as two:
        regions = []
        for i in range(40):  # more than the guesser has
            _, region, epoch = two.ask(ALLOC, addr=64, size=64)
            assert two.ask(WRITE, region << 40, epoch, 64, b"\xee" * 64)[0] == OK
            if i < 10:
                assert one.ask(ALLOC, addr=64, size=64)[0] == OK
            regions.append((region, epoch))
        before = stand.control.snapshot()
        for _ in range(1000):
            region, epoch = rng.choice(regions)
            addr = region << 40 | rng.choice([0, 8, 64])
            op = rng.choice([READ, WRITE, FREE, EXTEND, RENEW, FETCH_ADD, COMPARE_SWAP])
            payload = {WRITE: b"!" * 8, COMPARE_SWAP: bytes(8)}.get(op, b"")
            code, _, _ = one.ask(op, addr, epoch, 8, payload)
            assert code in (STALE, BOUNDS)
        after = stand.control.snapshot()
        for region, epoch in regions:
            assert two.ask(FETCH_ADD, region << 40, epoch, 0)[:2] == (OK, 0xEEEEEEEEEEEEEEEE)
        assert {k: s.reserved for k, s in before.elements.items()} == {
            k: s.reserved for k, s in after.elements.items()
        }


def test_capabilities_that_are_guessed(stand: Stand, grant: ElementGrant) -> None:
    rng = random.Random(7)
    other = stand.control.create_element(stand.tenant(), "secret", 4096)
    wrong = [rng.randbytes(16) for _ in range(50)]
    wrong += [other.key[:i] + bytes([other.key[i] ^ 1]) + other.key[i + 1 :] for i in range(16)]
    for key in [*wrong, grant.key, bytes(16)]:
        with socket.create_connection(("127.0.0.1", stand.server.port), timeout=20) as sock:
            sock.sendall(greeting(other, key))
            assert REPLY.unpack(sock.recv(REPLY.size, socket.MSG_WAITALL))[2] == CAPABILITY
            assert sock.recv(1) == b""


def test_a_host_that_vanishes_lets_its_lease_run(stand: Stand, elastic: ElementGrant) -> None:
    """Without a FIN: the server notices by itself (keepalive, 5 s), and the memory comes back."""
    with raw(stand, elastic) as client:
        assert client.ask(ALLOC, addr=64, size=4096, epoch=1)[0] == OK
        try:
            # A socket under repair is closed without a word to the other side.
            client.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except PermissionError:
            pytest.skip("closing a connection without a FIN needs CAP_NET_ADMIN")
        connections = stand.control.stats().connections
        time.sleep(0.3)  # nothing is left unacknowledged, so that only keepalive can notice
        client.sock.close()
        assert stand.control.stats().connections == connections  # nothing was said
        until(lambda: stand.control.stats().leases_expired == 1, 60)
    assert stand.control.element_stats(elastic.tenant, elastic.id).reserved == 0


@pytest.mark.parametrize("align", [64, 256, 1024, 4096])
def test_a_region_that_moves_stays_aligned(stand: Stand, align: int) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 22), "m", elastic=True)
    trans = stand.open(grant, "shm")
    trans.alloc(64)
    addr, size = trans.alloc(100, align=align), 100
    for step in range(6):
        behind = _address(trans.map(addr, 1)) + (size + 63) // 64 * 64
        while _address(trans.map(trans.alloc(64), 1)) != behind:
            pass  # until one is in the way of growing in place
        trans.write_from(addr, bytes([step]) * size)
        moved = trans.extend(addr, size * 2)
        assert moved != addr
        view = trans.map(moved, size)
        assert _address(view) % align == 0
        assert bytes(view) == bytes([step]) * size
        addr, size = moved, size * 2
    with pytest.raises(LibdError):
        trans.extend(addr, size - 1)


def _address(view: memoryview) -> int:
    import numpy as np

    return int(np.frombuffer(view, np.uint8).ctypes.data)


# ---- draining -----------------------------------------------------------------------------------


def test_a_write_that_has_begun_is_finished(stand: Stand, grant: ElementGrant) -> None:
    data = random.Random(1).randbytes(4096)
    view = stand.open(grant, "shm").map(0, 4096)
    with raw(stand, grant) as client, raw(stand, grant) as idle:
        client.sock.sendall(REQUEST.pack(WRITE, 0, 0, 1, 0, 0, 4096, 4096) + data[:1000])
        until(lambda: stand.control.element_stats(grant.tenant, grant.id).bytes_written > 0)
        stand.server.drain(60)
        assert idle.sock.recv(1) == b""  # nothing of it was under way
        assert not stand.server.over(0)
        client.sock.sendall(data[1000:] + REQUEST.pack(READ, 0, 0, 2, 0, 0, 1, 0))
        assert REPLY.unpack(client.receive(REPLY.size))[2:4] == (OK, 1)
        assert client.sock.recv(1) == b""  # what came after is not begun
        assert bytes(view) == data
        assert stand.server.over(30)
