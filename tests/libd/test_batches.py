"""Batches and atomic words: the same semantics on every transport."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libd import (
    BoundsError,
    LibdError,
    StaleRefError,
    Transport,
    TransportClosedError,
    UnsupportedError,
)

Maker = Callable[..., Transport]


def test_a_batch_reads_and_writes(make: Maker) -> None:
    trans = make()
    data = np.arange(1000, dtype=np.uint32)
    done = trans.submit(writes=[(0, b"head"), (64, data)])
    assert done.wait() == 4 + data.nbytes
    assert done.done
    assert done.poll()
    assert done.wait() == done.bytes == 4 + data.nbytes
    head, out = bytearray(4), np.empty_like(data)
    assert trans.submit(reads=[(64, out), (0, head)]).wait() == done.bytes
    np.testing.assert_array_equal(out, data)
    assert head == b"head"
    counters = trans.counters
    assert (counters.reads, counters.writes) == (2, 2)
    assert counters.bytes_read == counters.bytes_written == done.bytes


def test_reads_and_writes_in_one_batch(make: Maker) -> None:
    trans = make()
    trans.write_from(0, b"old")
    out = bytearray(3)
    assert trans.submit(reads=[(0, out)], writes=[(100, b"new")]).wait() == 6
    assert out == b"old"
    trans.read_into(100, out)
    assert out == b"new"


def test_an_empty_batch_is_done(make: Maker) -> None:
    done = make().submit()
    assert done.done
    assert done.wait() == 0


def test_empty_segments_among_others(make: Maker) -> None:
    trans = make()
    outs = [bytearray(n) for n in (0, 5, 0, 0, 7, 0)]
    trans.write_from(0, b"0123456789ab")
    addresses = [0, 0, 5, 5, 5, 12]
    trans.submit(reads=list(zip(addresses, outs, strict=True)), writes=[(50, b"")]).wait()
    assert b"".join(bytes(o) for o in outs) == b"0123456789ab"


@pytest.mark.parametrize("depth", [1, 2, 16, 64])
def test_a_sliding_window(make: Maker, depth: int) -> None:
    trans = make(1 << 20)
    data = np.random.default_rng(depth).integers(0, 256, 1 << 20, dtype=np.uint8)
    trans.write_from(0, data)
    rng = np.random.default_rng(1)
    window: list[tuple[Any, int, Any]] = []
    for _ in range(500):
        if len(window) == depth:
            done, at, out = window.pop(int(rng.integers(0, depth)))
            assert done.wait() == len(out)
            np.testing.assert_array_equal(out, data[at : at + len(out)])
        at, size = int(rng.integers(0, 1 << 19)), int(rng.integers(0, 20000))
        out = np.empty(size, np.uint8)
        window.append((trans.submit(reads=[(at, out)]), at, out))
    for done, at, out in window:
        done.wait()
        np.testing.assert_array_equal(out, data[at : at + len(out)])


def test_large_batches_both_ways(make: Maker) -> None:
    """More than the sockets hold, in both directions at once: nobody waits for the other."""
    size = 12 << 20
    trans = make(2 * size)
    data = np.random.default_rng(3).integers(0, 256, size, dtype=np.uint8)
    trans.write_from(0, data)
    outs = [np.empty(size, np.uint8) for _ in range(3)]
    batches = []
    for out in outs:
        batches.append(trans.submit(writes=[(size, data)], reads=[(0, out)]))
    trans.flush()
    assert all(b.done for b in batches)
    for batch, out in zip(batches, outs, strict=True):
        assert batch.wait() == 2 * size
        np.testing.assert_array_equal(out, data)
    out = np.empty(size, np.uint8)
    trans.read_into(size, out)
    np.testing.assert_array_equal(out, data)


def test_flush_waits_for_dropped_batches(make: Maker) -> None:
    trans = make(1 << 20)
    for i in range(300):
        trans.submit(writes=[(i * 1000, bytes([i % 256]) * 1000)])
    trans.flush()
    out = bytearray(300_000)
    trans.read_into(0, out)
    assert all(out[i * 1000 : i * 1000 + 1000] == bytes([i % 256]) * 1000 for i in range(300))


def test_what_a_batch_moves_stays_alive_and_is_let_go(make: Maker) -> None:
    trans = make(1 << 20)
    array = np.full(1 << 16, 7, np.uint8)
    gone = weakref.ref(array)
    done = trans.submit(writes=[(0, array)])
    del array
    gc.collect()
    done.wait()
    assert gone() is None
    out = bytearray(1 << 16)
    trans.read_into(0, out)
    assert out == b"\7" * (1 << 16)
    done = trans.submit(reads=[(0, out)])
    done.wait()
    out.clear()  # refused while a buffer is exported


def test_dropped_completions_do_not_pile_up(make: Maker) -> None:
    trans = make()
    arrays = []
    for i in range(500):
        array = np.full(10, i % 256, np.uint8)
        arrays.append(weakref.ref(array))
        trans.submit(writes=[(i, array)])
        del array
    trans.flush()
    assert not any(a() is not None for a in arrays)


def test_a_bad_range_is_the_batchs_error(make: Maker) -> None:
    trans = make(4096)
    for reads, writes in (
        ([(4090, bytearray(7))], []),
        ([(0, bytearray(1))], [(4096, b"x")]),
        ([((1 << 64) - 4, bytearray(8))], []),
        ([], [((1 << 40) - 1, b"xy")]),
        ([(3 << 40, bytearray(1))], []),
    ):
        with pytest.raises(BoundsError):
            trans.submit(reads=reads, writes=writes).wait()
    assert trans.submit(writes=[(4090, b"123456")]).wait() == 6


def test_errors_are_raised_each_time_they_are_asked_for(make: Maker) -> None:
    trans = make(1 << 16, True)
    addr = trans.alloc(100)
    trans.read_into(addr, bytearray(1))
    trans.free(addr)
    try:
        done = trans.submit(reads=[(addr, bytearray(10))])
    except StaleRefError:
        return  # known at once here
    for _ in range(2):
        with pytest.raises(StaleRefError):
            done.wait()
    assert done.poll()


def test_one_batch_fails_and_its_neighbours_do_not(make: Maker) -> None:
    trans = make(1 << 20, True)
    good, bad = trans.alloc(100_000), trans.alloc(100_000)
    data = np.arange(25_000, dtype=np.uint32)
    trans.write_from(good, data)
    trans.write_from(bad, data)
    trans.free(bad)
    outs = [np.empty_like(data) for _ in range(20)]
    batches: list[Any] = []
    for i, out in enumerate(outs):
        try:
            batches.append(trans.submit(reads=[(bad if i % 3 == 1 else good, out)]))
        except StaleRefError:
            batches.append(None)
    for i, batch in enumerate(batches):
        if i % 3 == 1:
            if batch is not None:
                with pytest.raises(StaleRefError):
                    batch.wait()
        else:
            assert batch.wait() == data.nbytes
            np.testing.assert_array_equal(outs[i], data)


@pytest.mark.parametrize("bad", [b"read-only", 5, object(), None])
def test_unsuitable_buffers_start_nothing(make: Maker, bad: Any) -> None:
    trans = make()
    out = bytearray(4)
    with pytest.raises((BufferError, TypeError)):
        trans.submit(reads=[(0, out), (0, bad)])
    out.clear()  # it was let go
    with pytest.raises((BufferError, TypeError, ValueError)):
        trans.submit(reads=[(0, np.zeros((8, 8))[:, 0])])


class Interface:
    """Memory that only ``__array_interface__`` leads to."""

    def __init__(self, array: Any, readonly: bool = False) -> None:
        self._array = array
        about = dict(array.__array_interface__)
        about["data"] = (about["data"][0], readonly)
        self.__array_interface__ = about


def test_array_interface(make: Maker) -> None:
    trans = make()
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    trans.write_from(8, Interface(array, readonly=True))  # type: ignore[arg-type]
    out = np.zeros_like(array)
    trans.read_into(8, Interface(out))  # type: ignore[arg-type]
    np.testing.assert_array_equal(out, array)
    out[:] = 0
    trans.submit(reads=[(8, Interface(out))]).wait()  # type: ignore[list-item]
    np.testing.assert_array_equal(out, array)
    with pytest.raises(BufferError, match="read-only"):
        trans.read_into(8, Interface(out, readonly=True))  # type: ignore[arg-type]
    with pytest.raises(BufferError, match="contiguous"):
        trans.write_from(8, Interface(out[:, :, 1]))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", [lambda array: array, Interface], ids=["buffer", "interface"])
def test_fortran_order(make: Maker, wrap: Callable[[Any], Any]) -> None:
    trans = make()
    array = np.asfortranarray(np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    trans.write_from(8, wrap(array))
    plain = np.zeros(24, np.int32)
    trans.read_into(8, plain)
    np.testing.assert_array_equal(plain, array.ravel(order="K"))  # as it lies in memory
    out = np.zeros_like(array)
    assert out.flags.f_contiguous
    assert not out.flags.c_contiguous
    trans.submit(reads=[(8, wrap(out))]).wait()
    np.testing.assert_array_equal(out, array)
    with pytest.raises((BufferError, ValueError), match="contiguous"):
        trans.write_from(8, wrap(out[:, 1:]))


def test_read_with_out(make: Maker) -> None:
    trans = make()
    trans.write_from(100, b"abcdef")
    out = bytearray(10)
    trans.read(6, 100, 2, out=out)
    assert out == b"\0\0abcdef\0\0"
    with pytest.raises(BoundsError):
        trans.read(6, 100, 5, out=out)
    with pytest.raises((BufferError, TypeError)):
        trans.read(1, 0, out=b"xx")  # type: ignore[arg-type]


def test_threads_share_one_transport(make: Maker) -> None:
    trans = make(1 << 20)
    wrong: list[object] = []

    def work(index: int) -> None:
        rng = np.random.default_rng(index)
        base = index << 17
        try:
            for _ in range(30):
                data = rng.integers(0, 256, 30_000, dtype=np.uint8)
                writes = [(base + i * 3000, data[i * 3000 : i * 3000 + 3000]) for i in range(10)]
                batches = [trans.submit(writes=[w]) for w in writes]
                for i in rng.permutation(10):
                    batches[int(i)].wait()
                out = np.empty_like(data)
                if index % 2:
                    trans.read_into(base, out)
                else:
                    batch = trans.submit(reads=[(base, out)])
                    while not batch.poll():
                        pass
                if not np.array_equal(out, data):
                    wrong.append(index)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_threads_wait_for_the_same_batch(make: Maker) -> None:
    trans = make(1 << 22)
    for _ in range(20):
        done = trans.submit(reads=[(0, np.empty(1 << 22, np.uint8))])
        results: list[int] = []
        threads = [
            threading.Thread(target=lambda d=done, r=results: r.append(d.wait())) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [1 << 22] * 4
    assert trans.counters.bytes_read == 20 << 22


def test_asyncio(make: Maker) -> None:
    trans = make(1 << 22)
    data = np.random.default_rng(5).integers(0, 256, 1 << 20, dtype=np.uint8)

    async def copy(index: int) -> bool:
        out = np.empty_like(data)
        assert await trans.submit(writes=[(index << 20, data)]) == data.nbytes
        assert await trans.submit(reads=[(index << 20, out)]) == data.nbytes
        return bool(np.array_equal(out, data))

    async def main() -> list[bool]:
        return await asyncio.gather(*(copy(i) for i in range(4)))

    for _ in range(3):  # an event loop each
        assert asyncio.run(main()) == [True] * 4


def test_asyncio_raises(make: Maker) -> None:
    trans = make(1 << 16, True)
    addr = trans.alloc(8)
    trans.free(addr)

    async def main() -> None:
        with pytest.raises(StaleRefError):
            await trans.submit(reads=[(addr, bytearray(8))])

    asyncio.run(main())


def test_asyncio_and_a_thread_on_one_transport(make: Maker) -> None:
    trans = make(1 << 20)
    stop = threading.Event()

    def churn() -> None:
        out = bytearray(1000)
        while not stop.is_set():
            trans.read_into(0, out)

    async def main() -> int:
        moved = 0
        for _ in range(200):
            moved += await trans.submit(reads=[(0, bytearray(500))])
        return moved

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        assert asyncio.run(asyncio.wait_for(main(), 60)) == 100_000
    finally:
        stop.set()
        thread.join()


def test_closing_ends_batches(make: Maker) -> None:
    trans = make(1 << 22)
    batches = [trans.submit(reads=[(0, np.empty(1 << 22, np.uint8))]) for _ in range(8)]
    trans.close()
    for batch in batches:
        with contextlib.suppress(TransportClosedError):
            assert batch.wait() == 1 << 22
        assert batch.done
    with pytest.raises(TransportClosedError, match="closed"):
        trans.submit(reads=[(0, bytearray(1))])


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_mix_of_batches_equals_a_bytearray(make: Maker, data: st.DataObject) -> None:
    size = 8192
    trans = make(size)
    model = bytearray(size)
    piece = st.tuples(st.integers(0, size), st.integers(0, 600))
    for _ in range(data.draw(st.integers(1, 6))):
        writes = []
        taken = np.zeros(size, bool)
        for at, n in data.draw(st.lists(piece, max_size=5)):
            n = min(n, size - at)
            if taken[at : at + n].any():
                continue
            taken[at : at + n] = True
            writes.append((at, data.draw(st.binary(min_size=n, max_size=n))))
        trans.submit(writes=writes).wait()
        for at, content in writes:
            model[at : at + len(content)] = content
        reads = [
            (at, bytearray(min(n, size - at))) for at, n in data.draw(st.lists(piece, max_size=5))
        ]
        trans.submit(reads=reads).wait()
        for at, out in reads:
            assert out == model[at : at + len(out)]


# ---- atomic words ------------------------------------------------------------------------------


def test_fetch_add_and_compare_swap(make: Maker) -> None:
    trans = make(4096)
    assert trans.fetch_add(8) == 0
    assert trans.fetch_add(8, 41) == 1
    assert trans.fetch_add(8, -2) == 42
    assert trans.compare_swap(8, 39, 1 << 63) == 40
    assert trans.compare_swap(8, 40, (1 << 64) - 1) == 40
    assert trans.fetch_add(8, 1) == (1 << 64) - 1
    assert trans.fetch_add(8, 0) == 0
    out = bytearray(24)
    trans.read_into(0, out)
    assert out == bytes(24)
    assert trans.counters.atomics == 7


def test_words_are_seen_by_reads_and_the_other_way_round(make: Maker) -> None:
    trans = make(4096)
    trans.write_from(64, (77).to_bytes(8, "little"))
    assert trans.fetch_add(64, 3) == 77
    out = bytearray(8)
    trans.read_into(64, out)
    assert int.from_bytes(out, "little") == 80


@pytest.mark.parametrize("addr", [1, 4, 7, 4095])
def test_words_are_aligned(make: Maker, addr: int) -> None:
    trans = make(4096)
    with pytest.raises(LibdError):
        trans.fetch_add(addr)
    with pytest.raises(LibdError):
        trans.compare_swap(addr, 0, 1)


@pytest.mark.parametrize(
    "addr", [4096, 4089, (1 << 40) - 8, (1 << 64) - 8, 77 << 40, ((1 << 18) - 1) << 40, 1 << 63]
)
def test_words_outside_are_refused(make: Maker, addr: int) -> None:
    trans = make(4096)
    with pytest.raises((BoundsError, LibdError)):
        trans.fetch_add(addr)
    with pytest.raises((BoundsError, LibdError)):
        trans.compare_swap(addr, 0, 1)
    assert trans.fetch_add(0) == 0


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1])
def test_numbers_that_fit_no_word(make: Maker, value: int) -> None:
    trans = make()
    with pytest.raises(BoundsError):
        trans.fetch_add(0, value)
    with pytest.raises(BoundsError):
        trans.compare_swap(0, value, 0)


def test_words_of_a_freed_region(make: Maker) -> None:
    trans = make(1 << 16, True)
    addr = trans.alloc(64)
    trans.free(addr)
    with pytest.raises(StaleRefError):
        trans.fetch_add(addr)


def test_threads_count_together(make: Maker) -> None:
    trans = make()

    def work() -> None:
        for _ in range(200):
            trans.fetch_add(0)
            while True:
                seen = trans.fetch_add(8, 0)
                if trans.compare_swap(8, seen, seen + 2) == seen:
                    break

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (trans.fetch_add(0, 0), trans.fetch_add(8, 0)) == (1600, 3200)


def test_who_changes_words_is_fixed_when_they_are_allocated(make: Maker, kind: str) -> None:
    if kind == "uverbs":
        pytest.skip("tests/rdma has the device's own words")
    trans = make(1 << 16, True)
    with pytest.raises(UnsupportedError):
        trans.alloc(64, atomics="nic")
    with pytest.raises(LibdError):
        trans.alloc(64, atomics="gpu")  # type: ignore[arg-type]
    assert trans.stat()["reserved"] == 0


def test_leases_are_taken_and_kept(make: Maker) -> None:
    trans = make(1 << 16, True)
    addr = trans.alloc(64, lease=0.2)
    trans.write_from(addr, b"held")
    trans.renew(addr, 5)
    trans.renew(addr)
    out = bytearray(4)
    trans.read_into(addr, out)
    assert out == b"held"
    for bad in (0, -1, 1e10):
        with pytest.raises(LibdError):
            trans.alloc(64, lease=bad)
    trans.free(addr)
    with pytest.raises(StaleRefError):
        trans.renew(addr)
