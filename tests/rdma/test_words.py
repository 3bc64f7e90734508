"""Words that the device changes, and the rule that nobody else does."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from libd import LibdError, StaleRefError, Transport, UnsupportedError
from tests.libd.test_shared_words import COUNTER

Stand = Any  # conftest.py's
TOP = (1 << 64) - 1

REGION_COUNTER = COUNTER.replace("(0, 3)", "(at, 3)").replace("(8, ", "(at + 8, ").replace(
    "for i in", "at = int(sys.argv[2])\nfor i in"
)  # fmt: skip


@pytest.fixture
def trans(stand: Stand) -> Transport:
    grant = stand.control.create_element(stand.tenant(), "m", 1 << 16, elastic=True)
    opened: Transport = stand.open(grant, "uverbs")
    return opened


def test_the_devices_own_words(trans: Transport) -> None:
    at = trans.alloc(64, atomics="nic")
    trans.write_from(at, bytes(64))
    assert trans.fetch_add(at, 5) == 0
    assert trans.fetch_add(at, -6) == 5
    assert trans.fetch_add(at, 1) == TOP
    assert trans.compare_swap(at + 56, 0, TOP) == 0
    assert trans.compare_swap(at + 56, 0, 1) == TOP
    trans.write_from(at + 8, (77).to_bytes(8, "little"))
    assert trans.fetch_add(at + 8, 0) == 77
    trans.flush()
    out = bytearray(8)
    trans.read_into(at + 56, out)
    assert int.from_bytes(out, "little") == TOP
    assert trans.counters.atomics == 6
    for addr in (at + 1, at + 60):
        with pytest.raises(LibdError):
            trans.fetch_add(addr)
    trans.free(at)
    with pytest.raises(StaleRefError):
        trans.fetch_add(at)


def test_the_devices_words_are_nobody_elses(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 1 << 16, elastic=True)
    trans, tcp, shm = (stand.open(grant, kind) for kind in ("uverbs", "tcp", "shm"))
    at = trans.alloc(64, atomics="nic")
    for other in (tcp, shm):
        with pytest.raises(UnsupportedError, match="fence"):
            other.fetch_add(at)
        with pytest.raises(UnsupportedError, match="fence"):
            other.compare_swap(at, 0, 1)
        again = other.alloc(64, atomics="nic")  # whoever allocates it
        trans.write_from(again, bytes(8))
        assert trans.fetch_add(again, 1) == 0


def test_a_window_has_no_device_words(stand: Stand) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 1 << 16), "uverbs")
    with pytest.raises(UnsupportedError):
        trans.alloc(64, atomics="nic")


def test_growing_keeps_the_domain(trans: Transport) -> None:
    at = trans.alloc(64, atomics="nic")
    trans.write_from(at, bytes(64))
    trans.fetch_add(at, 3)
    trans.alloc(64)
    moved = trans.extend(at, 8192)
    assert moved != at
    assert trans.fetch_add(moved, 0) == 3


def test_threads_count_together_on_the_device(trans: Transport) -> None:
    at = trans.alloc(64, atomics="nic")
    trans.write_from(at, bytes(64))

    def work() -> None:
        for _ in range(100):
            trans.fetch_add(at, 3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trans.fetch_add(at, 0) == 1200


@pytest.mark.parametrize("domain", ["nic", "cpu"])
def test_processes_count_together(stand: Stand, domain: Any) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 1 << 16, elastic=True)
    trans = stand.open(grant, "uverbs")
    at = trans.alloc(64, atomics=domain)
    trans.write_from(at, bytes(64))
    trans.flush()
    kinds = ["uverbs"] * 3 if domain == "nic" else ["uverbs", "tcp", "shm"]
    code = REGION_COUNTER.replace("1500", "300")
    counters = [
        subprocess.Popen([sys.executable, "-c", code, grant.durl("m", f"rdma_{kind}"), str(at)])
        for kind in kinds
    ]
    try:
        assert [c.wait(280) for c in counters] == [0] * 3
    finally:
        for counter in counters:
            counter.kill()
            counter.wait()
    assert trans.fetch_add(at, 0) == 3 * 300 * 3
    assert trans.fetch_add(at + 8, 0) == 300 * 3
