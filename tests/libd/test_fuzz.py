"""Requests that are well framed and mean anything, from clients of every kind.

`test_faults` sends frames that are no frames; here the server's books are what is attacked.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from contextlib import suppress
from typing import Any

import pytest

from libd import ElementGrant, LibdAction, MemoryServer, _core

Stand = Any  # conftest.py's

HELLO = struct.Struct("<8sHHHHQQ16s")
REQUEST = struct.Struct("<HHIQQQQQ")
SEGMENT = struct.Struct("<QQQ")
ADMIN = "the administrator's token"
TENANTS = (b"fuzz-a", b"fuzz-b")
SIZES = (
    0,
    1,
    7,
    8,
    63,
    64,
    65,
    4096,
    65535,
    65536,
    65537,
    1 << 20,
    1 << 40,
    1 << 63,
    (1 << 64) - 1,
)
READ, WRITE, READV, WRITEV, COMPARE_SWAP = 1, 2, 3, 4, 17
VERBS = (20, 21, 22)


def address(rng: random.Random) -> int:
    if rng.random() < 0.05:
        return rng.choice([rng.getrandbits(64), (1 << 64) - 1, 1 << 63, 1 << 58])
    offset = rng.choice([0, 0, 0, 8, 16, 4088, 4095, 65528, 65536, (1 << 40) - 8, (1 << 40) - 1])
    return rng.choice([0, *range(1, 24)]) << 40 | offset


def request(rng: random.Random, op: int) -> bytes:
    """A frame that keeps the connection in step."""
    size, count, flags, epoch = rng.choice(SIZES), 0, 0, rng.choice([0, 0, 0, 0, 1, 1 << 52])
    addr, body = address(rng), b""
    if op in (READ, WRITE):
        size = rng.choice([0, 1, 8, 100, 5000, size])
        body = rng.randbytes(min(size, 5000)) if op == WRITE else b""
    elif op in (READV, WRITEV):
        count = rng.choice([1, 2, 3, 40])
        sizes = [rng.choice([0, 1, 8, 64]) for _ in range(count)]
        if rng.random() < 0.2:
            sizes[-1] = rng.choice(SIZES)
        body = b"".join(SEGMENT.pack(address(rng), epoch, n) for n in sizes)
        if op == WRITEV:
            body += rng.randbytes(min(sum(sizes), 5000))
    elif op == 5:
        addr = rng.choice([64, 64, 64, 1, 4096, 1 << 30, 3, 0, 1 << 63])
        size = rng.choice([1, 64, 100, 4096, 70000, size])
        epoch = rng.choice([0, 1, 5, 20])  # a lease, in ms
        flags = rng.choice([0, 0, 0, 0, 1, 65535])
    elif op == 12:
        size = rng.choice([0, 1, 5, 20])
    elif op == COMPARE_SWAP:
        body = rng.randbytes(8)
    return frame(rng, op, flags, count, addr, epoch, size, body)


def administration(rng: random.Random, op: int) -> bytes:
    body = rng.choice(TENANTS)
    addr, size, epoch, flags = rng.randrange(40), rng.choice(SIZES), 0, 0
    if op == 32:
        size = rng.choice([1 << 20, size])
    if op == 34:
        body += b"\0" + rng.choice([b"m", b"", b"x" * 255, b"\xff\n"])
        addr, flags = rng.choice([0, 1, 5, 20]), rng.choice([0, 1])  # a lease, in ms
        epoch = rng.choice([size, 1 << 16, 1 << 62])
    if op == 40:
        size = rng.choice([0, 1, 5, 20])
    if op == 37 or (op == 39 and rng.random() < 0.5):
        body = b""
    return frame(rng, op, flags, 0, addr, epoch, size, body)


def frame(
    rng: random.Random, op: int, flags: int, count: int, addr: int, epoch: int, size: int,
    body: bytes,
) -> bytes:  # fmt: skip
    return REQUEST.pack(op, flags, count, rng.getrandbits(64), addr, epoch, size, len(body)) + body


def fuzz(server: MemoryServer, grants: list[ElementGrant], frames: int, seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    sent = 0
    while sent < frames:
        grant = rng.choice([None, "admin", *grants, *grants])
        if isinstance(grant, ElementGrant):
            token = grant.tenant.token.encode()
            kind, tenant, element, key = 2, grant.tenant.id, grant.id, grant.key
        else:
            token = ADMIN.encode() if grant else b""
            kind, tenant, element, key = 3 if grant else 1, 0, 0, bytes(16)
        greeting = HELLO.pack(
            b"SCADMEM1", _core.PROTOCOL_VERSION, kind, len(token), 0, tenant, element, key
        )
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
            sock.sendall(greeting + token)
            batch = []
            for _ in range(rng.randrange(1, 60)):
                if kind == 3:
                    batch.append(administration(rng, rng.randrange(32, 42)))
                else:
                    op = rng.choice([*range(1, 13), 5, 5, 6, 7, 12, 16, 17, *VERBS])
                    if op in (11, *VERBS) and rng.random() < 0.9:
                        continue  # these may end the connection
                    batch.append(request(rng, op))
            data = b"".join(batch)
            if rng.random() < 0.1:
                data = data[: rng.randrange(len(data) + 1)]
            sent += len(batch)
            exchange(sock, data, patient=rng.random() < 0.8)


def exchange(sock: socket.socket, data: bytes, patient: bool) -> None:
    """Send everything and read what comes; unless `patient`, hang up when it is sent."""
    sock.setblocking(False)
    with suppress(OSError):  # it may hang up at any moment
        while data or patient:
            readable, writable, _ = select.select([sock], [sock] if data else [], [], 30)
            assert readable or writable, "the server is silent"
            if readable and not sock.recv(1 << 20):
                return
            if writable:
                data = data[sock.send(data) :]
            if not data:
                sock.shutdown(socket.SHUT_WR)


def check(stand: Stand) -> None:
    """The books agree with one another."""
    until = time.monotonic() + 30
    while True:  # connections are gone, and the leases with them
        stats = stand.control.stats()
        if stats.leases == 0 and stats.connections == 1 + len(stand.actions):
            break
        assert time.monotonic() < until, stats
        time.sleep(0.005)
    shot = stand.control.snapshot()
    for name, tenant in shot.tenants.items():
        elements = [s for (t, _, _), s in shot.elements.items() if t == name]
        assert tenant.elements == len(elements)
        assert tenant.reserved == sum(s.reserved for s in elements)
        assert tenant.regions == sum(s.regions for s in elements)
        assert tenant.reserved <= tenant.peak <= tenant.quota
        assert tenant.largest_free <= tenant.free
        assert (tenant.free_blocks == 0) == (tenant.free == 0)
    assert shot.server.reserved == sum(t.reserved for t in shot.tenants.values())
    assert shot.server.reserved <= shot.server.peak <= shot.server.size
    with LibdAction("0", [f"m;rdma_tcp;url,{stand.server.tcp_url};"]) as action:
        trans = action.get_transport("m")
        trans.write_from(100, b"alive")
        out = bytearray(5)
        trans.read_into(100, out)
        assert out == b"alive"


def storm(stand: Stand, frames: int, seeds: range) -> None:
    bystander = stand.control.create_element(stand.tenant(), "bystander", 8192)
    trans = stand.open(bystander, "tcp")
    trans.write_from(0, b"\x5a" * 8192)
    for seed in seeds:
        tenant = stand.tenant(1 << 20)
        baseline = stand.control.stats().reserved
        grants = [
            stand.control.create_element(tenant, "elastic", elastic=True),
            stand.control.create_element(tenant, "fixed", 70_000),
        ]
        fuzz(stand.server, grants, frames, seed)
        check(stand)
        for name in {tenant.name, *(t.decode() for t in TENANTS)} & set(stand.control.tenants()):
            stand.control.drop_tenant(name)
        check(stand)
        assert stand.control.stats().reserved == baseline
        out = bytearray(8192)
        trans.read_into(0, out)
        assert out == b"\x5a" * 8192


def test_requests_that_mean_anything(stand: Stand) -> None:
    storm(stand, 4000, range(2333, 2336))
    operations = stand.control.stats().operations
    for name in ("alloc", "renew", "fetch_add", "compare_swap", "element_renew", "list"):
        assert operations[name] > 10  # it got that far
    assert stand.control.stats().leases_expired > 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, 20, 4))
def test_many_requests_that_mean_anything(stand: Stand, first: int) -> None:
    storm(stand, 50_000, range(first, first + 4))
