"""Remote arrays on real transports, at their edges, and when things fail."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libd.errors import CapacityError, LibdError, StaleRefError
from remote_array import (
    ArrayError,
    ArrayHandleError,
    BudgetError,
    PinConflictError,
    RemoteArray,
    SelectionError,
)
from remote_array.spans import MAX_SPAN, MIN_SPAN, choose_span

SPAN = MIN_SPAN
FRAME = SPAN + SPAN // 8 // 8  # a span of 8-byte elements with its bitmap


def grid(rows: int = 300, columns: int = 200) -> np.ndarray:
    return np.arange(rows * columns, dtype=np.float64).reshape(rows, columns)


def test_round_trip_between_elements(element: Any) -> None:
    data = grid()
    array = RemoteArray.from_array(element.transport, data, budget=4 * FRAME, span=SPAN)
    array[10:20, ::3] = -1
    data[10:20, ::3] = -1
    handle = json.loads(json.dumps(array.handle()))
    other = RemoteArray.open(handle, element.again(), budget=4 * FRAME, span=SPAN)
    assert other.shape == (300, 200)
    assert other.dtype == np.float64
    assert other.nbytes == data.nbytes
    assert len(other) == 300
    np.testing.assert_array_equal(np.asarray(other), data)
    np.testing.assert_array_equal(np.asarray(other, dtype=np.int64), data.astype(np.int64))
    # What one writes the other one sees, once flushed and refreshed.
    other[5] = 7
    other.flush()
    array.refresh()
    np.testing.assert_array_equal(array[5], np.full(200, 7.0))
    array.close()
    other.close()


def test_mapped_arrays_copy_nothing(element: Any) -> None:
    if element.kind == "tcp":
        pytest.skip("tcp does not map")
    data = grid()
    array = RemoteArray.from_array(element.transport, data)
    before = element.transport.counters.bytes_read
    with array.pin(np.s_[3:290, 1::2], writable=True) as view:
        np.testing.assert_array_equal(view, data[3:290, 1::2])
        view[0, 0] = 123
    other = RemoteArray.open(array.handle(), element.again())
    assert other[3, 1] == 123
    assert array.local_bytes == other.local_bytes == 0
    assert array.counters.bytes_in == array.counters.bytes_out == 0
    assert element.transport.counters.bytes_read == before
    assert np.asarray(array, copy=False)[3, 1] == 123
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(array, copy=False)[0, 0] = 1


WRITE = """
import json, sys
from libd import LibdAction
from remote_array import RemoteArray
durl, handle = json.load(sys.stdin)
with LibdAction("writer", [durl]) as action, RemoteArray.open(handle, action) as array:
    array[::2] = array[::2] + 1
"""


def test_another_process_writes(element: Any) -> None:
    if element.kind == "local":
        pytest.skip("local memory is this process's own")
    array = RemoteArray.create(element.transport, (1000,), np.int32, fill=5)
    subprocess.run(
        [sys.executable, "-c", WRITE],
        input=json.dumps([element.durl, array.handle()]),
        text=True,
        check=True,
        timeout=60,
    )
    array.refresh()
    assert set(array[::2].tolist()) == {6}
    assert set(array[1::2].tolist()) == {5}


def test_write_back_touches_only_what_was_written(element: Any) -> None:
    """Two elements share an array and write every other element each: none is lost."""
    made = RemoteArray.create(element.transport, (40_000,), np.int16, fill=0)
    one, two = (
        RemoteArray.open(made.handle(), element.again(), budget="1 MB", span=SPAN) for _ in "ab"
    )
    assert one[...].sum() == two[...].sum() == 0  # Both have all of it in their caches.
    one[::2] = 1
    two[1::2] = 2
    with two.pin(np.s_[10_001:10_002], writable=True) as view:
        view[0] = 3
    one.flush()
    two.flush()
    made.refresh()
    expected = np.tile(np.array([1, 2], np.int16), 20_000)
    expected[10_001] = 3
    np.testing.assert_array_equal(made[...], expected)


@pytest.mark.parametrize("dtype", ["bool", "i1", "u2", "f2", "i4", "u8", "f8", "c8", "longdouble"])
def test_dtypes(fake: Any, dtype: str) -> None:
    array = RemoteArray.create(fake(), (50, 3), dtype, fill=1)
    assert array.handle()["dtype"] == np.dtype(dtype).name
    array[::7] = 0
    expected = np.ones((50, 3), dtype)
    expected[::7] = 0
    got = RemoteArray.open(array.handle(), array._transport)[...]
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["O", "U4", "datetime64[s]", ">f8", "nonsense"])
def test_dtypes_that_are_refused(fake: Any, dtype: str) -> None:
    transport = fake()
    with pytest.raises(ArrayHandleError, match="dtype"):
        RemoteArray.create(transport, 3, dtype)
    assert not transport.regions


@pytest.mark.parametrize("mappable", [False, True])
@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (5, 0), (7,), (2, 3, 4)])
def test_shapes(fake: Any, shape: tuple[int, ...], mappable: bool) -> None:
    array = RemoteArray.create(fake(mappable), shape, np.int64, fill=3)
    np.testing.assert_array_equal(array[...], np.full(shape, 3))
    array[...] = 4
    with array.pin() as view:
        assert view.shape == shape
    np.testing.assert_array_equal(np.asarray(array), np.full(shape, 4))
    if shape == (2, 3, 4):
        assert array[1, ..., 2].shape == (3,)
    array.close()


def test_bad_indices(fake: Any) -> None:
    array = RemoteArray.create(fake(), (4, 5), fill=0)
    for key, message in [
        (4, "out of range"),
        ((0, -6), "out of range"),
        ((0, 0, 0), "3 indices"),
        ((..., ...), "one ellipsis"),
        ([1, 2], "supported"),
        (np.array([True] * 4), "masks"),
        (True, "masks"),
        (None, "supported"),
        ("a", "supported"),
        (slice(0, 4, 0), "zero"),
        (slice("a"), "cannot index"),
    ]:
        for use in (
            array.__getitem__,
            lambda k: array.__setitem__(k, 1),
            lambda k: enter(array, k),
        ):
            with pytest.raises(SelectionError, match=message):
                use(key)
    with pytest.raises(ValueError, match="broadcast"):
        array[0] = np.zeros(4)


def enter(array: RemoteArray, key: Any, **kwargs: Any) -> Any:
    manager = array.pin(key, **kwargs)
    return manager, manager.__enter__()


def test_budget_is_hard(fake: Any) -> None:
    transport = fake()
    with pytest.raises(BudgetError, match="at least"):
        RemoteArray.from_array(transport, grid(), budget=FRAME - 1, span=SPAN)
    assert not transport.regions
    array = RemoteArray.from_array(transport, grid(), budget=3 * FRAME + 10, span=SPAN)
    np.testing.assert_array_equal(array[...], grid())
    assert 2 * FRAME < array.local_bytes <= 3 * FRAME
    with pytest.raises(BudgetError, match="neighbouring"):
        enter(array, ...)
    first = enter(array, np.s_[:10])
    second = enter(array, np.s_[150:160])
    with pytest.raises(BudgetError, match="2 are"):
        enter(array, np.s_[290:])
    # Plain access goes on with the frame that is never pinned.
    np.testing.assert_array_equal(array[...], grid())
    array[250] = -1
    assert array[250].sum() == -200
    for manager, _ in (first, second):
        manager.__exit__(None, None, None)
    # The views are still alive, and with them the pins.
    with pytest.raises(BudgetError):
        enter(array, np.s_[290:])
    del first, second, manager
    with array.pin(np.s_[290:]) as view:
        np.testing.assert_array_equal(view, grid()[290:])


@pytest.mark.parametrize("span", [MIN_SPAN // 2, MAX_SPAN * 2, MIN_SPAN + 8, 0])
def test_spans_are_powers_of_two_within_bounds(fake: Any, span: int) -> None:
    with pytest.raises(BudgetError, match="power of two"):
        RemoteArray.create(fake(), 10, span=span)


def test_span_follows_the_budget() -> None:
    assert choose_span(1 << 20, 1 << 30) == MIN_SPAN
    assert choose_span(16 << 20, 1 << 30) == 1 << 20
    assert choose_span(1 << 40, 1 << 40) == MAX_SPAN
    assert choose_span(1 << 40, 100_000) <= 2 * MIN_SPAN


def test_a_view_is_never_overwritten_later(fake: Any) -> None:
    """The frames of a view that outlives its block are not used for other spans."""
    data = grid(2000, 100)
    array = RemoteArray.from_array(fake(), data, budget=5 * FRAME, span=SPAN)
    with array.pin(np.s_[100:200]) as view:
        part = view[5:9, ::2]
    del view
    for start in range(0, 2000, 50):
        np.testing.assert_array_equal(array[start : start + 50], data[start : start + 50])
    np.testing.assert_array_equal(part, data[105:109, ::2])
    array.close()
    np.testing.assert_array_equal(part, data[105:109, ::2])


def test_pins_share_and_conflict(fake: Any) -> None:
    data = grid(2000, 100)
    array = RemoteArray.from_array(fake(), data, budget=12 * FRAME, span=SPAN)
    rows = SPAN // 800
    with array.pin(np.s_[: 3 * rows], writable=True) as big:
        with array.pin(np.s_[rows : 2 * rows]) as small:
            assert np.shares_memory(big, small)
            big[rows + 1] = 5
            assert small[1, 0] == 5
        with pytest.raises(PinConflictError, match="release"):
            enter(array, np.s_[2 * rows : 5 * rows])
        assert array[rows + 1, 3] == 5
    del big, small
    with array.pin(np.s_[2 * rows : 5 * rows]) as moved:
        np.testing.assert_array_equal(moved, data[2 * rows : 5 * rows])
    array.close()


def test_pins_move_dirty_spans(fake: Any) -> None:
    """Spans that were cached one by one, dirty, come together for a larger pin."""
    data = grid(1000, 100)
    transport = fake()
    array = RemoteArray.from_array(transport, data, budget=6 * FRAME, span=SPAN)
    rows = SPAN // 800
    for start in (3, 1, 2, 0):
        array[start * rows + 5] = start
        data[start * rows + 5] = start
    fetched = array.counters.misses
    with array.pin(np.s_[: 4 * rows]) as view:
        np.testing.assert_array_equal(view, data[: 4 * rows])
    assert array.counters.misses - fetched <= 4
    array.flush()
    np.testing.assert_array_equal(RemoteArray.open(array.handle(), transport)[...], data)


def test_counters_tell_hits_from_misses(fake: Any) -> None:
    transport = fake()
    array = RemoteArray.from_array(transport, grid(), budget=20 * FRAME, span=SPAN)
    reads = transport.counters.reads
    array[...]
    spans = -(-array.nbytes // SPAN)
    assert (array.counters.hits, array.counters.misses) == (0, spans)
    assert array.counters.bytes_in == array.nbytes
    assert transport.counters.reads == reads + 1  # One vectored read.
    array[...]
    array[5:10] = 1
    assert array.counters.misses == spans
    assert array.counters.hits == spans + 1
    array.flush()
    assert (array.counters.writebacks, array.counters.bytes_out) == (1, 5 * 200 * 8)
    array.flush()
    assert (array.counters.writebacks, array.counters.evictions) == (1, 0)


def test_whole_spans_are_not_fetched_to_be_overwritten(fake: Any) -> None:
    array = RemoteArray.create(fake(), (100_000,), fill=None, budget=3 * FRAME, span=SPAN)
    array[...] = 3
    assert array.counters.bytes_in == 0
    array.flush()
    assert array.counters.bytes_out == array.nbytes
    assert array[...].sum() == 300_000


@pytest.mark.parametrize("what", ["readv", "writev", "flush"])
def test_a_failing_transport_loses_nothing(fake: Any, what: str) -> None:
    transport = fake()
    data = grid()
    array = RemoteArray.from_array(transport, data, budget=3 * FRAME, span=SPAN)
    array[0] = data[0] = -5
    transport.fail = {what}
    actions: dict[str, Callable[[], Any]] = {
        "readv": lambda: array[200:],
        "writev": lambda: array[...],
        "flush": array.flush,
    }
    with pytest.raises(ConnectionError):
        actions[what]()
    transport.fail = set()
    np.testing.assert_array_equal(array[...], data)
    array.close()
    (region,) = transport.regions.values()
    assert np.frombuffer(region).reshape(data.shape)[0, 0] == -5


def test_writable_pins_survive_flush_and_refresh(fake: Any) -> None:
    transport = fake()
    array = RemoteArray.create(transport, (100, 100), fill=0, budget=4 * FRAME, span=SPAN)
    with array.pin(np.s_[::2], writable=True) as view:
        view[0] = 1
        array.flush()
        view[1] = 2
        array.refresh()
        view[2] = 3
        with pytest.raises(ArrayError, match="writable pin"):
            array.close()
    with pytest.raises(ValueError, match="read-only"):
        view[3] = 4
    array.close()
    (region,) = transport.regions.values()
    assert np.frombuffer(region).reshape(100, 100)[:6, 0].tolist() == [1, 0, 2, 0, 3, 0]


def test_what_is_written_counts_also_if_the_block_fails(fake: Any) -> None:
    array = RemoteArray.create(fake(), 10, fill=0, budget=FRAME, span=SPAN)

    def write_and_fail() -> None:
        with array.pin(writable=True) as view:
            view[:] = 1
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail()
    array.refresh()
    assert array[...].sum() == 10


def test_read_only_pins_cannot_be_written_and_write_nothing(fake: Any) -> None:
    transport = fake()
    array = RemoteArray.create(transport, 10, fill=0)
    writes = transport.counters.writes
    with array.pin() as view, pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    array.flush()
    assert transport.counters.writes == writes


def test_closed_and_freed(element: Any) -> None:
    array = RemoteArray.create(element.transport, (10,), fill=1)
    handle = array.handle()
    with array:
        array[0] = 2
    for use in (lambda: array[0], array.flush, lambda: array.counters):
        with pytest.raises(ArrayError, match="closed"):
            use()
    array.close()
    assert "closed" in repr(array)
    again = RemoteArray.open(handle, element.again())
    assert again[0] == 2
    again.free()
    with pytest.raises(StaleRefError):
        RemoteArray.open(handle, element.again())


@pytest.mark.parametrize("close", ["close", "with", "not"])
def test_free_gives_the_bytes_back(element: Any, close: str) -> None:
    before = element.transport.stat()["reserved"]
    array = RemoteArray.create(element.transport, (1000,), fill=1)
    assert element.transport.stat()["reserved"] > before
    if close == "close":
        array.close()
    elif close == "with":
        with array:
            array[0] = 2
    array.free()
    assert element.transport.stat()["reserved"] == before
    array.free()
    array.close()
    with pytest.raises(ArrayError, match="closed"):
        array[0]


def test_free_after_somebody_else_did(element: Any) -> None:
    array = RemoteArray.create(element.transport, (1000,), fill=1)
    RemoteArray.open(array.handle(), element.again()).free()
    array.close()
    other = RemoteArray.create(element.transport, (1000,), fill=7)
    with pytest.raises(StaleRefError):
        array.free()
    assert other[999] == 7


def test_a_free_that_failed_can_be_tried_again(fake: Any) -> None:
    transport = fake()
    array = RemoteArray.create(transport, (10,), fill=1)
    transport.fail = {"free"}
    with pytest.raises(ConnectionError):
        array.free()
    transport.fail = set()
    array.free()
    assert not transport.regions


def test_no_room_and_bad_shapes(element: Any, fake: Any) -> None:
    with pytest.raises(CapacityError):
        RemoteArray.create(element.transport, (1 << 30,))
    with pytest.raises(ArrayError, match="negative"):
        RemoteArray.create(element.transport, (-1,))
    transport = fake()
    with pytest.raises(ArrayError, match="one number"):
        RemoteArray.create(transport, 4, fill=[1, 2])
    with pytest.raises(LibdError, match="size"):
        RemoteArray.create(transport, 4, budget="12 XB")
    transport.fail = {"writev"}
    with pytest.raises(ConnectionError):
        RemoteArray.from_array(transport, np.ones(5))
    assert not transport.regions


BAD: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("kind", lambda d: d.update(kind="frame"), "kind"),
    ("version", lambda d: d.update(version=9), "version"),
    ("dtype", lambda d: d.update(dtype="object"), "dtype"),
    ("shape", lambda d: d.update(shape=[10, -1]), "shape"),
    ("shape text", lambda d: d.update(shape="10"), "shape"),
    ("too large", lambda d: d.update(shape=[11]), "88 bytes"),
    ("parts", lambda d: d.update(parts=[]), "one part"),
    ("ref", lambda d: d["parts"][0]["ref"].pop("epoch"), r"parts\[0\].ref"),
    ("missing", lambda d: d.pop("shape"), "shape"),
    ("extra", lambda d: d.update(extra=1), "extra"),
]


@pytest.mark.parametrize(("damage", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_damaged_handles(fake: Any, damage: Callable[[Any], Any], message: str) -> None:
    transport = fake()
    handle = json.loads(json.dumps(RemoteArray.create(transport, 10).handle()))
    RemoteArray.open(handle, transport)
    damage(handle)
    with pytest.raises(ArrayHandleError, match=message):
        RemoteArray.open(handle, transport)


def test_threads_share_an_array(fake: Any) -> None:
    array = RemoteArray.create(fake(), (8, 20_000), np.int64, fill=0, budget=12 * FRAME, span=SPAN)

    def work(row: int) -> None:
        for k in range(20):
            array[row, k::20] = row + 1
            with array.pin(np.s_[row, :10]) as view:
                assert view[0] == row + 1
            del view

    threads = [threading.Thread(target=work, args=(row,)) for row in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal(array[...], np.repeat(np.arange(1, 9), 20_000).reshape(8, -1))
