"""Threads that share a transport, or an administrator: nobody gets what belongs to another."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libd import LibdAction, MemoryServerProcess, StaleRefError


def together(works: list[Callable[[], None]]) -> None:
    """Run them side by side; raise the first error."""
    failed: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_an_administrator_answers_several_threads() -> None:
    # A thread took the answer to what another had sent and not yet noted as sent.
    with MemoryServerProcess("64MB") as server:
        tenant = server.control.create_tenant("t", "32MB")
        before = server.control.stats().accepted

        def ask(n: int) -> None:
            for _ in range(3_000):
                if n % 2:
                    assert server.control.tenant_stats(tenant).reserved >= 0
                else:
                    server.control.stats()

        together([lambda n=n: ask(n) for n in range(4)])  # type: ignore[misc]
        assert server.control.stats().accepted == before, "nobody had to connect again"


def test_refusals_of_one_thread_do_not_reach_another() -> None:
    with MemoryServerProcess("64MB") as server:
        tenant = server.control.create_tenant("t", "32MB")
        grant = server.control.create_element(tenant.name, "m", elastic=True)
        with LibdAction("a", [grant.durl("t", "rdma_tcp")]) as action:
            transport = action.get_transport("t")
            word, gone = transport.alloc(4096), transport.alloc(1 << 20)
            transport.write_from(gone, b"x")
            transport.write_from(word, bytes(8))
            transport.free(gone)

            def read() -> None:
                into = np.zeros(1 << 20, np.uint8)
                for _ in range(3_000):
                    with pytest.raises(StaleRefError):
                        transport.read_into(gone, into)

            def add() -> None:
                for _ in range(3_000):
                    transport.fetch_add(word, 1)

            together([read, add, read, add])
            assert transport.fetch_add(word, 0) == 6_000


@pytest.mark.parametrize("stripes", [1, 3, 4])
def test_large_and_small_transfers_of_many_threads(stripes: int) -> None:
    # Two threads received on one connection, each into memory of its own.
    size, threads = 10 << 20, 6
    sizes = [64, 4096, 100_000, 300_000, (4 << 20) + 5, 5 << 20, 9 << 20]
    with MemoryServerProcess("160MB") as server:
        tenant = server.control.create_tenant("t", "100MB")
        grant = server.control.create_element(tenant.name, "m", elastic=True)
        durl = f"{grant.durl('t', 'rdma_tcp').rstrip(';')};stripes,{stripes};"
        with LibdAction("a", [durl]) as action:
            transport = action.get_transport("t")

            def work(seed: int) -> None:
                rng = random.Random(seed)
                region = transport.alloc(size)
                wanted, found = np.full(size, seed, np.uint8), np.zeros(size, np.uint8)
                transport.write_from(region, wanted)
                for i in range(60):
                    n = rng.choice(sizes)
                    at = rng.randrange(size - n)
                    if rng.random() < 0.6:
                        transport.read_into(region + at, found[:n])
                        assert np.array_equal(found[:n], wanted[at : at + n]), (seed, i, n, at)
                    else:
                        wanted[at : at + n] = (seed + 7 * i) % 251
                        transport.write_from(region + at, wanted[at : at + n])

            together([lambda n=n: work(n) for n in range(threads)])  # type: ignore[misc]


def test_a_batch_that_grows_while_it_is_taken_up() -> None:
    memory = np.arange(8, dtype=np.uint8)
    parts: list[Any] = []

    class Growing:
        @property
        def __array_interface__(self) -> dict[str, Any]:
            parts.extend([(0, memory)] * 50)
            return memory.__array_interface__

    with LibdAction("a", ["m;rdma_local;size,65536;"]) as action:
        transport = action.get_transport("m")
        for _ in range(20):
            parts[:] = [(0, Growing())] * 3
            assert transport.readv(parts) == 24


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"data": (0, False), "shape": (8,)}, "has no address"),
        ({"data": (4096, False), "shape": (-8,)}, "negative extent"),
    ],
)
def test_an_array_interface_that_makes_no_sense_is_refused(
    about: dict[str, Any], message: str
) -> None:
    class Odd:
        __array_interface__ = {"typestr": "|u1", "version": 3, **about}

    with LibdAction("a", ["m;rdma_local;size,65536;"]) as action:
        with pytest.raises(BufferError, match=message):
            action.get_transport("m").read_into(0, Odd())
