"""A client that touches memory of its tenant's arena that nobody was promised."""

from __future__ import annotations

import mmap
import os
import random
import socket
import time
from typing import Any

import pytest

from libd import ElementGrant, LibdError, StaleRefError
from tests.libd.test_requests import REPLY, REQUEST, Raw, greeting
from tests.waiting import until

Stand = Any  # conftest.py's

ATTACH = 11
MIB = 1 << 20
QUOTA = 128 * MIB
SLACK = 16 * MIB
PAGE = 4096


def arena_of(stand: Stand, grant: ElementGrant) -> mmap.mmap:
    """The arena, as a client that keeps no rules maps it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + stand.server.unix_url.removeprefix("unix://@"))
        sock.sendall(greeting(grant))
        client = Raw(sock)
        client.receive(REPLY.unpack(client.receive(REPLY.size))[6])
        sock.sendall(REQUEST.pack(ATTACH, 0, 0, 1, 0, 0, 0, 0))
        _, fds, _, _ = socket.recv_fds(sock, REPLY.size, 2)
    try:
        return mmap.mmap(fds[0], QUOTA)
    finally:
        for fd in fds:
            os.close(fd)


def touch(arena: mmap.mmap, start: int, stop: int) -> None:
    for at in range(start, stop, PAGE):
        arena[at] = 1


@pytest.fixture
def grant(stand: Stand) -> ElementGrant:
    return stand.control.create_element(stand.tenant(QUOTA), "m", MIB)


def test_what_was_not_promised_is_taken_back(stand: Stand, grant: ElementGrant) -> None:
    trans = stand.open(grant, "shm")
    data = random.Random(1).randbytes(MIB)
    trans.write_from(0, data)
    with arena_of(stand, grant) as arena:
        assert arena[:MIB] == data
        touch(arena, MIB, MIB + 3 * SLACK)

        def taken_back() -> bool:
            return stand.control.tenant_stats(grant.tenant).resident <= MIB + SLACK + 3 * PAGE

        until(taken_back)
        # A few times are no crime: it may be a mistake. (Looking at it would take the pages again.)
        out = bytearray(MIB)
        trans.read_into(0, out)
        assert out == data


def test_tiny_regions_are_no_licence(stand: Stand) -> None:
    """Each has a part in one page or two, but many lie in the same."""
    count = 20_000
    grant = stand.control.create_element(stand.tenant(QUOTA), "m", elastic=True)
    trans = stand.open(grant, "shm")
    for _ in range(count):
        trans.alloc(64)
    with arena_of(stand, grant) as arena:
        touch(arena, 0, 4 * SLACK)
        until(lambda: stand.control.tenant_stats(grant.tenant).resident <= 64 * count + SLACK)


def test_who_goes_on_is_dropped_and_nobody_else(stand: Stand, grant: ElementGrant) -> None:
    other = stand.open(stand.control.create_element(stand.tenant(), "o", 64), "shm")
    other.write_from(0, b"mine")
    trans = stand.open(grant, "shm")
    refused = stand.control.stats().refused
    with arena_of(stand, grant) as arena:

        def goes_on() -> bool:
            touch(arena, MIB, MIB + 2 * SLACK)
            return trans.write_from(0, b"x") == 0

        with pytest.raises(StaleRefError):
            until(goes_on)
    with pytest.raises(LibdError):
        stand.control.tenant_stats(grant.tenant)
    assert stand.control.stats().refused == refused + 1
    assert stand.control.stats().resident <= MIB
    out = bytearray(4)
    other.read_into(0, out)
    assert out == b"mine"


def test_what_was_promised_and_given_back_is_no_crime(stand: Stand) -> None:
    """Elements and regions that come and go, all of their bytes touched, near the quota."""
    tenant = stand.tenant(QUOTA)
    grant = stand.control.create_element(tenant, "e", elastic=True)
    trans = stand.open(grant, "shm")
    draw = random.Random(3)
    held: list[tuple[int, int]] = []
    bytes_held = 0
    block = bytes(24 * MIB)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        size = draw.randrange(1, 24 * MIB)
        while held and (bytes_held + size > QUOTA * 3 // 4 or draw.random() < 0.4):
            addr, freed = held.pop(draw.randrange(len(held)))
            trans.free(addr)
            bytes_held -= freed
        try:
            addr = trans.alloc(size, align=draw.choice([64, PAGE, 1 << 16]))
        except LibdError:
            continue
        held.append((addr, size))
        bytes_held += size
        trans.write_from(addr, memoryview(block)[:size])
    assert stand.control.tenant_stats(tenant).reserved >= bytes_held
    for addr, _ in held:
        trans.free(addr)


def test_a_tenant_that_was_dropped_is_gone_for_its_clients(
    stand: Stand, grant: ElementGrant
) -> None:
    trans = stand.open(grant, "shm")
    stand.control.drop_tenant(grant.tenant)
    with pytest.raises(StaleRefError):
        trans.write_from(0, b"x")
