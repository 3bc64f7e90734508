"""Leases: memory of a holder that vanished comes back, and nothing else does."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from libd import (
    LibdAction,
    LibdError,
    ServerControl,
    StaleRefError,
    TransportClosedError,
)
from tests.libd.relay import relay
from tests.waiting import until

Stand = Any  # conftest.py's

ADMIN = "the administrator's token"
HERE = Path(__file__).parent


HOLDER = """
import sys
from libd import LibdAction
trans = LibdAction("0", [sys.argv[1]]).get_transport("m")
a, b, c = trans.alloc(1 << 16, lease=0.1), trans.alloc(1 << 16), trans.alloc(1 << 16, lease=0.1)
trans.renew(c)
print(a, b, c, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["shm", "tcp"])
def test_memory_of_a_killed_holder_comes_back(stand: Stand, kind: str) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 20), "m", elastic=True)
    trans = stand.open(grant, kind)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, grant.durl("m", f"rdma_{kind}")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    leased, plain, kept = (int(a) for a in holder.stdout.readline().split())
    trans.write_from(leased, b"held")
    time.sleep(0.3)  # three times the lease, and the holder lives
    out = bytearray(4)
    trans.read_into(leased, out)
    assert out == b"held"
    assert stand.control.stats().leases == 1
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    until(lambda: trans.stat()["reserved"] == 2 << 16)
    with pytest.raises(StaleRefError):
        trans.read_into(leased, out)
    trans.read_into(plain, out)
    trans.read_into(kept, out)
    stats = stand.control.stats()
    assert (stats.leases, stats.leases_expired) == (0, 1)


@pytest.mark.parametrize("kind", ["shm", "tcp"])
def test_another_holder_takes_over(stand: Stand, kind: str) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 20), "m", elastic=True)
    with LibdAction("first", [grant.durl("m", f"rdma_{kind}")]) as first:
        addr = first.get_transport("m").alloc(1000, lease=30)
        dropped = first.get_transport("m").alloc(1000, lease=0.05)
    second = stand.open(grant, kind)
    second.renew(addr, 0.05)
    until(lambda: stand.control.stats().leases == 1)
    second.write_from(addr, b"mine")
    with pytest.raises(StaleRefError):
        second.write_from(dropped, b"gone")
    second.close()
    until(lambda: stand.control.stats().leases_expired == 2)
    assert stand.control.stats().reserved == 1 << 16  # the default region


def test_a_region_that_is_freed_or_moved_takes_its_lease_along(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 20), "m", elastic=True)
    with LibdAction("0", [grant.durl("m", "rdma_tcp")]) as action:
        trans = action.get_transport("m")
        trans.free(trans.alloc(100, lease=0.05))
        assert stand.control.stats().leases == 0
        grown = trans.alloc(100, lease=0.05)
        trans.alloc(100)
        moved = trans.extend(grown, 5000)
        assert moved != grown
        assert stand.control.stats().leases == 1
    until(lambda: stand.control.stats().leases_expired == 1)
    assert stand.control.element_stats(grant.tenant, grant.id).regions == 1


def test_region_zero_is_not_leased(stand: Stand) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 4096), "tcp")
    with pytest.raises(LibdError):
        trans.renew(0, 1)
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", elastic=True), "tcp")
    addr = trans.alloc(1)
    trans.free(addr)
    with pytest.raises(StaleRefError):
        trans.renew(addr, 1)


def test_elements_of_an_administrator_that_vanishes(stand: Stand) -> None:
    tenant = stand.tenant(1 << 20)
    other = ServerControl(stand.server.tcp_url or "", ADMIN)
    leased = other.create_tenant("others", 1 << 20)
    first = other.create_element(leased, "leased", 4096, lease=0.1)
    renewed = other.create_element(leased, "renewed", 4096, lease=0.1)
    kept = other.create_element(leased, "kept", 4096, lease=0.1)
    plain = other.create_element(leased, "plain", 4096)
    trans = stand.open(first, "tcp")
    stand.control.renew_element(leased, renewed.id, 0.1)
    stand.control.renew_element(leased, kept.id)
    time.sleep(0.2)
    trans.write_from(0, b"x")
    other.close()
    until(lambda: stand.control.stats().leases_expired == 1)
    with pytest.raises(StaleRefError):
        trans.write_from(0, b"x")
    for grant in (renewed, kept, plain):
        assert stand.control.element_stats(leased, grant.id).reserved == 4096
    with pytest.raises(LibdError, match="no such thing"):
        stand.control.element_stats(leased, first.id)
    with pytest.raises(LibdError, match="lease"):
        stand.control.create_element(tenant, "m", 10, lease=-1)
    stand.control.drop_tenant(leased)
    assert stand.control.stats().leases == 0


def test_many_leases_run_out_in_any_order(stand: Stand) -> None:
    rng = random.Random(11)
    grant = stand.control.create_element(stand.tenant(1 << 22), "m", elastic=True)
    watcher = stand.open(grant, "tcp")
    with LibdAction("0", [grant.durl("m", "rdma_tcp")]) as action:
        trans = action.get_transport("m")
        regions = [trans.alloc(64, lease=rng.uniform(0.01, 0.4)) for _ in range(300)]
        for addr in rng.sample(regions, 60):
            trans.free(addr)
    until(lambda: watcher.stat()["regions"] == 0)
    stats = stand.control.stats()
    assert (stats.leases, stats.leases_expired) == (0, 240)


def test_a_region_that_expires_under_a_reader_gives_no_other_bytes(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 22), "m", elastic=True)
    reader = stand.open(grant, "tcp")
    for _ in range(20):
        with LibdAction("0", [grant.durl("m", "rdma_tcp")]) as action:
            trans = action.get_transport("m")
            addr = trans.alloc(1 << 20, lease=0.01)
            trans.write_from(addr, b"a" * (1 << 20))
            reader.resolve(trans.ref([(addr, 1)]))
        out = bytearray(1 << 20)
        try:
            while True:
                reader.read_into(addr, out)
                assert out.count(b"a") == 1 << 20
                again = reader.alloc(1 << 20)
                reader.write_from(again, b"b" * (1 << 20))
                reader.free(again)
        except (StaleRefError, ConnectionError):
            pass


def test_a_lease_survives_a_connection_that_is_lost_and_made_again(stand: Stand) -> None:
    with relay(stand.server.port) as (port, cut):
        grant = stand.control.create_element(stand.tenant(1 << 20), "m", elastic=True)
        durl = grant.durl("m", "rdma_tcp").replace(f":{stand.server.port}", f":{port}")
        with LibdAction("0", [durl]) as action:
            trans = action.get_transport("m")
            held, moved = trans.alloc(100, lease=1), trans.alloc(100, lease=1)
            trans.alloc(100)
            moved = trans.extend(moved, 5000)
            trans.write_from(held, b"held")
            for _ in range(3):
                cut()
                with suppress(TransportClosedError):
                    trans.flush()
                trans.flush()  # connected again
            time.sleep(1.5)
            out = bytearray(4)
            trans.read_into(held, out)
            assert out == b"held"
            trans.read_into(moved, out)
            assert stand.control.stats().leases == 2
        until(lambda: stand.control.stats().leases == 0)


def test_many_leases_are_taken_up_again_in_few_round_trips(stand: Stand) -> None:
    """One for each would take far longer than connecting may."""
    far_away = threading.Event()
    draw = random.Random(3)
    with relay(stand.server.port, lambda: 0.005 if far_away.is_set() else 0) as (port, cut):
        grant = stand.control.create_element(stand.tenant(1 << 22), "m", elastic=True)
        durl = grant.durl("m", "rdma_tcp").replace(f":{stand.server.port}", f":{port}")
        with LibdAction("0", [durl]) as action:
            trans = action.get_transport("m")
            live: list[int] = []
            for _ in range(6000):
                if live and draw.random() < 0.2:
                    trans.free(live.pop(draw.randrange(len(live))))
                else:
                    live.append(trans.alloc(64, lease=3))
            for addr in live[::7]:
                trans.renew(addr, None)
            far_away.set()
            cut()
            with suppress(TransportClosedError):
                trans.flush()
            trans.flush()  # connected again
            far_away.clear()
            time.sleep(4)
            assert stand.control.stats().regions == len(live) + 1  # the default region, too
            assert stand.control.stats().leases == len(live) - len(live[::7])
            for addr in draw.sample(live, 50):
                trans.write_from(addr, b"held")
        until(lambda: stand.control.stats().regions == len(live[::7]) + 1)
