"""Frames that are written and read in pieces: bounded memory, parts as they come, many writers."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import remote_frame
from libd.errors import CapacityError
from operators.errors import OperatorError, PlanError
from operators.partitioning import Hash, Ranges
from remote_frame import (
    FrameHandle,
    FrameWriter,
    HandleError,
    HandleStream,
    StorageError,
    open_reader,
)
from remote_frame import windows as windows_module
from remote_frame.handle import ExchangeHandle, load_handle
from remote_frame.reader import FrameReader

KIB = 1024


class Direct:
    """An action with one transport."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def get_transport(self, name: str, type: str = "rdma", timeout: float | None = None) -> Any:
        assert name == "m1"
        return self.transport


def numbers(rows: int, start: int = 0) -> pa.Table:
    values = np.arange(start, start + rows)
    return pa.table(
        {
            "k": values,
            "s": pa.array([f"row {v}" for v in values], pa.string()),
            "n": pa.array(values, mask=values % 3 == 0),
        }
    )


def write_all(writer: FrameWriter, table: pa.Table, rows: int) -> Any:
    with writer:
        for batch in table.to_batches(max_chunksize=rows):
            writer.write(batch)
        return writer.finish()


def test_what_exceeds_the_budget_becomes_parts(element: Any) -> None:
    table = numbers(20_000)
    writer = FrameWriter(element.transport, table.schema, Hash((0,), 3), budget=128 * KIB)
    handle = write_all(writer, table, 500)
    assert isinstance(handle, ExchangeHandle)
    assert all(len(parts) > 3 for parts in handle.partitions)
    assert handle.rows == table.num_rows
    for parts in handle.partitions:
        assert max(part.nbytes for part in parts) < 128 * KIB
    again = load_handle(json.loads(json.dumps(handle.to_json())))
    assert isinstance(again, ExchangeHandle)
    reader = open_reader(again.whole(), element.again())
    assert reader.table().sort_by("k").equals(table)
    # Rows keep their order within a partition.
    for index in range(3):
        keys = open_reader(again.partition(index), element.again()).table()["k"].to_numpy()
        assert np.all(np.diff(keys) > 0)


def test_a_batch_larger_than_the_budget_is_cut(fake: Any) -> None:
    transport = fake()
    table = numbers(20_000).combine_chunks()
    handle = write_all(FrameWriter(transport, table.schema, budget=64 * KIB), table, 1 << 30)
    assert max(len(region) for region in transport.regions.values()) < 64 * KIB
    assert open_reader(handle, Direct(transport)).table().equals(table)


@pytest.mark.parametrize("mappable", [False, True])
def test_small_results_cost_one_region_and_a_part_each(fake: Any, mappable: bool) -> None:
    transport = fake(mappable)
    handle = load_handle(remote_frame.exchange(numbers(1000), transport, ["k"], 8))
    assert isinstance(handle, ExchangeHandle)
    assert [len(parts) for parts in handle.partitions] == [1] * 8
    assert len(transport.regions) == 1
    assert transport.counters.writes == (0 if mappable else 1)


@pytest.mark.parametrize("mappable", [False, True])
def test_a_source_that_fails_late_leaves_nothing(fake: Any, mappable: bool) -> None:
    transport = fake(mappable)
    most = 0

    def batches() -> Any:
        nonlocal most
        for start in range(0, 50_000, 1000):
            yield numbers(1000, start).to_batches()[0]
            most = max(most, len(transport.regions))
        raise OperatorError("the kernel gave up")

    reader = pa.RecordBatchReader.from_batches(numbers(0).schema, batches())
    with pytest.raises(OperatorError, match="gave up"):
        remote_frame.exchange(reader, transport, ["k"], 2, budget=64 * KIB)
    assert most > 10
    assert transport.regions == {}


def test_an_element_that_fills_up_midway_is_left_empty(fake: Any) -> None:
    transport = fake(limit=300 * KIB)
    with pytest.raises(CapacityError):
        remote_frame.write(numbers(50_000), transport, budget=64 * KIB)
    assert transport.regions == {}


def test_a_writer_that_is_left_is_aborted(fake: Any) -> None:
    transport = fake()
    with FrameWriter(transport, numbers(0).schema) as writer:
        writer.write(numbers(100).to_batches()[0])
        writer.flush()
        assert len(transport.regions) == 1
    assert transport.regions == {}


@given(
    rows=st.lists(st.integers(0, 60), max_size=8),
    partitions=st.integers(1, 5),
    budget=st.sampled_from([1, 500, 4000, 1 << 20]),
    mappable=st.booleans(),
    columns=st.permutations(["k", "s", "n"]).flatmap(
        lambda names: st.integers(1, 3).map(lambda count: names[:count])
    ),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_budget_and_any_columns_give_the_same_rows(
    fake: Any,
    rows: list[int],
    partitions: int,
    budget: int,
    mappable: bool,
    columns: list[str],
) -> None:
    transport = fake(mappable)
    table = pa.concat_tables([numbers(n, 1000 * i) for i, n in enumerate(rows)] or [numbers(0)])
    handle = remote_frame.exchange(table, transport, ["k"], partitions, budget=budget)
    parts = [p for i in range(partitions) for p in remote_frame.partition(handle, i)]
    got = open_reader(parts, Direct(transport), columns)
    assert got.rows == table.num_rows
    assert got.schema.names == columns
    whole = open_reader(parts, Direct(transport), ["k", *columns]).table()
    order = pc.sort_indices(whole.column(0))
    assert whole.take(order).select(list(range(1, 1 + len(columns)))).equals(table.select(columns))
    assert got.table().num_rows == table.num_rows
    assert transport.pending == 0


def test_a_sort_is_shared_by_ranges(element: Any) -> None:
    table = numbers(9000).take(pa.array(np.random.default_rng(3).permutation(9000)))
    edges = pa.record_batch({"n": pa.array([6001, 3001])})
    handle = remote_frame.exchange_ranges(
        table, element.transport, ["n"], edges, descending=[True], budget=64 * KIB
    )
    pieces = [
        open_reader(remote_frame.partition(handle, i), element.again()).table() for i in range(3)
    ]
    assert min(pieces[0]["n"].drop_null().to_pylist()) > 6001
    assert max(pieces[1]["n"].drop_null().to_pylist()) == 6001
    assert pieces[2]["n"].null_count == table["n"].null_count
    assert sum(p.num_rows for p in pieces) == 9000
    with pytest.raises(PlanError, match="boundaries have types"):
        FrameWriter(element.transport, table.schema, Ranges((0,), pa.record_batch({"k": ["x"]})))


# Reading


def test_small_parts_are_read_together(fake: Any) -> None:
    for mappable in (False, True):
        transport = fake(mappable)
        table = numbers(6000)
        with FrameWriter(transport, table.schema) as writer:
            for batch in table.to_batches(max_chunksize=10):
                writer.write(batch)
                writer.flush()
            handle = writer.finish()
        assert len(handle.parts) == 600
        reads = transport.counters.reads
        (batch,) = open_reader(handle, Direct(transport)).batches()
        assert pa.Table.from_batches([batch]).equals(table)
        assert transport.counters.reads <= reads + 1


def test_large_and_small_parts_keep_their_order(fake: Any) -> None:
    for mappable in (False, True):
        transport = fake(mappable)
        sizes = [5, 3000, 7, 9, 2048, 4000, 1, 1]
        tables = [numbers(n, 10_000 * i) for i, n in enumerate(sizes)]
        handles = [remote_frame.write(t, transport) for t in tables]
        reader = open_reader(handles, Direct(transport))
        assert reader.table().equals(pa.concat_tables(tables))
        assert [b.num_rows for b in reader.batches()] == [5, 3000, 16, 2048, 4000, 2]


def test_the_next_window_is_on_its_way_and_no_more(fake: Any) -> None:
    transport = fake()
    size = 3 << 20  # Two do not fit into a window.
    tables = [pa.table({"a": np.full(size // 8, i)}) for i in range(5)]
    handle = [remote_frame.write(t, transport) for t in tables]
    most = []
    for number, batch in enumerate(open_reader(handle, Direct(transport)).batches()):
        assert batch["a"][0].as_py() == number
        most.append(transport.pending)
    assert most == [1, 1, 1, 1, 0]
    batches = open_reader(handle, Direct(transport)).batches()
    next(batches)
    assert transport.pending == 1
    batches.close()
    assert transport.pending == 0  # Nothing arrives in memory that is gone.


def test_a_kernel_gets_no_more_than_it_lets_go(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = fake()
    handles = [remote_frame.write(numbers(3000, 3000 * i), transport) for i in range(12)]
    monkeypatch.setattr("remote_frame.windows._WINDOW", 1)  # A window for each part.
    monkeypatch.setattr("remote_frame.windows._IN_FLIGHT", 250 * KIB)
    held: list[pa.RecordBatch] = []
    most = 0

    def let_go() -> None:
        while not done.wait(0.01):
            held.clear()

    done = threading.Event()
    thread = threading.Thread(target=let_go)
    thread.start()
    rows = 0
    for batch in open_reader(handles, Direct(transport)).arrow_stream(["k", "s"]).batches():
        rows += batch.num_rows
        held.append(batch)
        most = max(most, sum(b.nbytes for b in held))
        del batch
    done.set()
    thread.join()
    assert rows == 36_000
    assert most < 500 * KIB
    # Where as many wait as may, the next one does not.
    with contextlib.ExitStack() as taken:
        while windows_module._MAY_WAIT.acquire(blocking=False):
            taken.callback(windows_module._MAY_WAIT.release)
        reader = open_reader(handles, Direct(transport)).arrow_stream(["k", "s"])
        assert reader.table().num_rows == 36_000
    # One that lets go of nothing gets everything all the same.
    monkeypatch.setattr("remote_frame.windows._PATIENCE", 0.01)
    reader = open_reader(handles, Direct(transport)).arrow_stream(["k", "s"])
    assert reader.table().num_rows == 36_000


@pytest.mark.timeout(30)
def test_a_part_that_goes_when_the_next_is_there_is_not_waited_for(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DuckDB lets go of a batch when it has the next one. If that counted as holding on, each would
    # cost the reader's patience.
    transport = fake()
    handles = [remote_frame.write(numbers(3000, 3000 * i), transport) for i in range(12)]
    monkeypatch.setattr("remote_frame.windows._WINDOW", 1)
    monkeypatch.setattr("remote_frame.windows._IN_FLIGHT", 1 * KIB)
    monkeypatch.setattr("remote_frame.windows._PATIENCE", 3600.0)
    rows = 0
    kept: pa.RecordBatch | None = None
    for batch in open_reader(handles, Direct(transport)).arrow_stream(["k", "s"]).batches():
        kept = batch
        rows += kept.num_rows
    assert rows == 36_000


@pytest.mark.parametrize("mappable", [False, True])
def test_a_closed_reader_leaves_no_views(fake: Any, mappable: bool) -> None:
    transport = fake(mappable)
    handle = remote_frame.write(numbers(10_000), transport)
    stream = open_reader(handle, Direct(transport)).stream()
    batch = stream.read_next_batch()
    (region,) = transport.regions.values()
    if mappable:
        with pytest.raises(BufferError):
            region.clear()
    stream.close()
    del stream, batch
    gc.collect()
    region.clear()


def test_parts_are_read_while_others_are_written(element: Any) -> None:
    table = numbers(6000)
    handles = HandleStream()
    seen: list[int] = []
    more = threading.Event()

    def read() -> None:
        action = element.again()
        reader = FrameReader(handles, lambda name: action.get_transport(name, "rdma"))
        for batch in reader.batches():
            seen.append(batch.num_rows)
            more.set()

    thread = threading.Thread(target=read)
    thread.start()
    with FrameWriter(element.transport, table.schema, on_parts=handles.append) as writer:
        writer.write(table.slice(0, 3000).to_batches()[0])
        writer.flush()
        # Two windows before the first is given out, over transports that copy.
        writer.write(table.slice(3000, 2500).to_batches()[0])
        writer.flush()
        if element.kind == "shm":
            assert more.wait(30)
        writer.write(table.slice(5500).to_batches()[0])
        writer.finish()
    handles.close()
    thread.join(30)
    assert not thread.is_alive()
    assert sum(seen) == 6000
    whole = FrameReader(handles, lambda name: element.transport)
    assert whole.rows == 6000
    assert whole.table().equals(table)


def test_a_stream_of_handles_ends_with_its_error(fake: Any) -> None:
    transport = fake()
    one = FrameHandle.from_json(remote_frame.write(numbers(10), transport))
    stream = HandleStream([one])
    reader = FrameReader(stream, lambda name: transport)
    stream.close(StorageError("the writer died"))
    with pytest.raises(StorageError, match="died"):
        reader.table()
    with pytest.raises(HandleError, match="closed"):
        stream.append(one)
    closed = HandleStream()
    closed.close()
    with pytest.raises(HandleError, match="at least one"):
        FrameReader(closed, lambda name: transport)
    odd = FrameHandle.from_json(remote_frame.write(pa.table({"x": [1]}), transport))
    mixed = HandleStream([one, odd])
    mixed.close()
    with pytest.raises(HandleError, match="other columns"):
        FrameReader(mixed, lambda name: transport).table()


def test_ten_thousand_columns(fake: Any) -> None:
    transport = fake(mappable=True)
    table = pa.table({f"c{i}": [i, None] for i in range(10_000)})
    handle = remote_frame.exchange(table, transport, ["c0"], 2)
    parts = [p for i in range(2) for p in remote_frame.partition(handle, i)]
    got = open_reader(parts, Direct(transport), ["c9999", "c0", "c5000"]).table()
    assert sorted(got.to_pylist(), key=str) == [
        {"c9999": 9999, "c0": 0, "c5000": 5000},
        {"c9999": None, "c0": None, "c5000": None},
    ]
    assert open_reader(parts, Direct(transport)).table().num_columns == 10_000


WRITE = """
import json, sys
import numpy as np
import pyarrow as pa
import remote_frame
from libd import LibdAction
durl, number = json.load(sys.stdin)
rows = 30_000
values = np.arange(number * rows, (number + 1) * rows)
table = pa.table({"k": values, "s": pa.array([f"row {v}" for v in values])})
with LibdAction("writer", [durl]) as action:
    transport = action.get_transport("m1", "rdma")
    print(json.dumps(remote_frame.exchange(table, transport, ["k"], 4, budget=1 << 18)))
"""


def test_many_processes_write_into_one_element(element: Any) -> None:
    if element.kind == "local":
        pytest.skip("local memory is this process's own")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for number, writer in enumerate(writers):
            assert writer.stdin is not None
            writer.stdin.write(json.dumps([element.durl, number]))
            writer.stdin.close()
        handles = []
        for writer in writers:
            assert writer.stdout is not None
            handles.append(json.loads(writer.stdout.read()))
            assert writer.wait(60) == 0
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    # No two parts share a byte, and every row is there once.
    taken = sorted(
        (p.ref.region, *p.ref.extents[0])
        for h in handles
        for parts in load_handle(h).partitions  # type: ignore[union-attr]
        for p in parts
    )
    for (region, start, length), (other, behind, _) in pairwise(taken):
        assert region != other or start + length <= behind
    keys: list[int] = []
    for index in range(4):
        table = open_reader(remote_frame.partition(handles, index), element.again()).table()
        assert table["s"].to_pylist() == [f"row {k}" for k in table["k"].to_pylist()]
        keys += table["k"].to_pylist()
    assert sorted(keys) == list(range(120_000))
