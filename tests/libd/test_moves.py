"""A region that moves when it is extended loses no write that was acknowledged."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from libd import ElementGrant, LibdError
from tests.libd.test_requests import (
    ALLOC,
    BOUNDS,
    EXTEND,
    FREE,
    OK,
    REPLY,
    REQUEST,
    STALE,
    raw,
    until,
)

Stand = Any  # conftest.py's


@pytest.mark.parametrize("kind", ["shm", "tcp"])
def test_writes_while_a_region_moves(stand: Stand, kind: str) -> None:
    size = 1 << 25
    grant = stand.control.create_element(stand.tenant(4 * size), "m", elastic=True)
    owner, writer = stand.open(grant, kind), stand.open(grant, kind)
    for _ in range(5):
        addr = owner.alloc(size)
        owner.write_from(addr, bytes(8))
        behind = owner.alloc(64)  # so that it cannot grow where it is
        writer.resolve(owner.ref([(addr, 8)]))
        written, began = [0], threading.Event()

        def work(at: int = addr, last: list[int] = written, go: threading.Event = began) -> None:
            number = 1
            try:
                while True:
                    writer.write_from(at, number.to_bytes(8, "little"))
                    last[0] = number
                    number += 1
                    if number == 100:
                        go.set()
            except LibdError:
                return

        thread = threading.Thread(target=work)
        thread.start()
        assert began.wait(30)
        moved = owner.extend(addr, size + (1 << 20))
        thread.join(30)
        assert moved != addr
        out = bytearray(8)
        owner.read_into(moved, out)
        # One that was refused may be in the copy, too; none that was acknowledged is missing.
        assert int.from_bytes(out, "little") in (written[0], written[0] + 1)
        owner.free(moved)
        owner.free(behind)


def end(stand: Stand, which: str, grant: ElementGrant) -> None:
    if which == "element":
        stand.control.drop_element(grant.tenant, grant.id)
    elif which == "tenant":
        stand.control.drop_tenant(grant.tenant)


@pytest.mark.parametrize("which", ["nothing", "element", "tenant", "connection"])
def test_what_may_happen_while_a_region_moves(stand: Stand, which: str) -> None:
    """Whenever it happens: the move ends well or with an error, and leaves nothing behind."""
    size = 1 << 25
    before = stand.control.stats()
    for _ in range(8):
        grant = stand.control.create_element(stand.tenant(4 * size), "m", elastic=True)
        with raw(stand, grant) as client, raw(stand, grant) as beside:
            _, region, epoch = client.ask(ALLOC, 64, size=size)
            assert client.ask(ALLOC, 64, size=64)[0] == OK
            client.sock.sendall(REQUEST.pack(EXTEND, 0, 0, 9, region << 40, epoch, size + 64, 0))
            if which == "connection":
                client.sock.close()
            else:
                assert beside.ask(FREE, 5 << 40)[0] in (BOUNDS, STALE)
                end(stand, which, grant)
                reply = REPLY.unpack(client.receive(REPLY.size))
                assert reply[3] == 9
                assert reply[2] in ((OK,) if which == "nothing" else (OK, STALE))
                if which == "nothing":
                    assert client.ask(FREE, reply[4] << 40, reply[5])[0] == OK
                    assert client.ask(FREE, region << 40, epoch)[0] == STALE
        if which in ("nothing", "connection"):
            until(lambda g=grant: stand.control.tenant_stats(g.tenant).regions <= 2)  # type: ignore[misc]
            stand.control.drop_tenant(grant.tenant)
        elif which == "element":
            assert stand.control.tenant_stats(grant.tenant).reserved == 0
    until(
        lambda: stand.control.stats().reserved == before.reserved
    )  # a dropped tenant's goes in turns
    assert stand.control.stats().regions == before.regions


def test_others_are_served_while_regions_move(stand: Stand) -> None:
    size = 1 << 25
    grant = stand.control.create_element(stand.tenant(8 * size), "m", elastic=True)
    with raw(stand, grant) as one, raw(stand, grant) as two, raw(stand, grant) as third:
        movers = []
        for client in (one, two):
            _, region, epoch = client.ask(ALLOC, 64, size=size)
            assert client.ask(ALLOC, 64, size=64)[0] == OK
            movers.append((client, region, epoch))
        for client, region, epoch in movers:
            client.sock.sendall(REQUEST.pack(EXTEND, 0, 0, 9, region << 40, epoch, size + 64, 0))
        for _ in range(100):
            assert third.ask(FREE, 1 << 50)[0] == BOUNDS
        for client, _, _ in movers:
            assert REPLY.unpack(client.receive(REPLY.size))[2] == OK
