"""What is written is what is read, on every transport, and no more bytes move than must."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import remote_frame
from libd.errors import CapacityError, ScadError, StaleRefError
from operators.errors import OperatorError, PlanError, UnsupportedTypeError
from operators.part_columns import layout
from remote_frame import (
    AmbiguousColumnError,
    ColumnNotFoundError,
    FrameHandle,
    HandleError,
    StorageError,
    col,
    open_reader,
)

ROWS = 1000


def everything(rows: int = ROWS, seed: int = 1) -> pa.Table:
    """A table with a column of every kind of layout, most with nulls, in several chunks."""
    rng = np.random.default_rng(seed)
    ints = rng.integers(-100, 100, rows)
    mask = rng.random(rows) < 0.2
    words = np.array(["", "a", "héllo", "x" * 40, "tail"])[rng.integers(0, 5, rows)]
    days = [dt.date(2000, 1, 1) + dt.timedelta(days=int(i)) for i in ints]
    money = [decimal.Decimal(int(i)) / 100 for i in ints]
    columns = {
        "k": pa.array(ints, pa.int32()),
        "i8": pa.array(ints, pa.int8(), mask=mask),
        "u64": pa.array(abs(ints), pa.uint64(), mask=mask),
        "f": pa.array(ints / 7, pa.float64(), mask=mask),
        "b": pa.array(ints > 0, pa.bool_(), mask=mask),
        "s": pa.array(words, pa.string(), mask=mask),
        "ls": pa.array(words, pa.large_string()),
        "bin": pa.array([w.encode() for w in words], pa.binary()),
        "fix": pa.array([b"%04d" % abs(i) for i in ints], pa.binary(4), mask=mask),
        "d32": pa.array(money, pa.decimal32(7, 2), mask=mask),
        "d128": pa.array(money, pa.decimal128(20, 2)),
        "day": pa.array(days, pa.date32(), mask=mask),
        "ts": pa.array(ints, pa.timestamp("us"), mask=mask),
        "none": pa.nulls(rows),
    }
    whole = pa.table(columns)
    cut = rows // 3
    return pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])


def plain(rows: int = ROWS, seed: int = 1) -> pa.Table:
    """What plans have types for."""
    return everything(rows, seed).drop_columns(["fix", "none"])


def through_json(handle: dict[str, Any]) -> dict[str, Any]:
    text: dict[str, Any] = json.loads(json.dumps(handle))
    return text


def test_round_trip_of_every_layout(element: Any) -> None:
    table = everything()
    handle = through_json(remote_frame.write(table, element.transport))
    reader = open_reader(handle, element.again())
    assert reader.rows == ROWS
    got = reader.table()
    got.validate(full=True)
    assert got.equals(table)
    # Re-readable, as a stream of batches and through the capsule.
    assert reader.stream().read_all().equals(table)
    assert pa.table(reader).equals(table)
    assert pa.table(reader).equals(table)


def test_frames_have_canonical_types(element: Any) -> None:
    table = plain()
    handle = through_json(remote_frame.write(table, element.transport))
    frame = remote_frame.open(handle, element.again())
    assert frame.schema.field("ls").type == pa.string()
    assert frame.collect().schema.equals(frame.schema)
    assert frame.collect().equals(table.cast(frame.schema))
    assert pa.table(frame).equals(table.cast(frame.schema))
    computed = frame.filter(remote_frame.col("k").is_not_null())
    assert computed.collect().equals(table.cast(frame.schema))


def test_handle_knows_nulls_and_ranges(element: Any) -> None:
    handle = FrameHandle.from_json(remote_frame.write(everything(), element.transport))
    (part,) = handle.parts
    names = [f.name for f in handle.schema]
    table = everything()
    for name, nulls in zip(names, part.nulls, strict=True):
        assert nulls == table[name].null_count
    assert part.min[0] == min(table["k"].to_pylist())
    assert part.max[0] == max(table["k"].to_pylist())
    assert part.min[names.index("s")] == ""
    assert part.max[names.index("ls")] == "xxxxxxxx"
    assert part.min[names.index("fix")] is None


@pytest.mark.parametrize("kind", ["shm", "local"])
def test_mapped_reading_copies_nothing(kind: str, element: Any) -> None:
    if element.kind != kind:
        pytest.skip("another transport's turn")
    table = everything()
    handle = remote_frame.write(table, element.transport)
    action = element.again()
    transport = action.get_transport("m1", "rdma")
    before = transport.counters.bytes_read
    got = open_reader(handle, action).table()
    assert got.equals(table)
    assert transport.counters.bytes_read == before
    # Every buffer lies inside the mapping of the part.
    ((addr, size),) = transport.resolve(FrameHandle.from_json(handle).parts[0].ref)
    mapping = pa.py_buffer(transport.map(addr, size))
    buffers = [b for c in got.columns for a in c.chunks for b in a.buffers() if b is not None]
    inside = [
        mapping.address <= b.address <= mapping.address + mapping.size for b in buffers if b.size
    ]
    assert len(inside) > len(table.column_names)
    assert all(inside)


def test_mapped_views_outlive_everything_else(element: Any) -> None:
    table = everything()
    handle = remote_frame.write(table, element.transport)
    got = open_reader(handle, element.again()).table().slice(5, 10)
    assert got.equals(table.slice(5, 10))


def test_mapped_batches_see_the_element_itself(fake: Any) -> None:
    transport = fake(mappable=True)
    handle = remote_frame.write(pa.table({"a": pa.array([1, 2, 3], pa.int64())}), transport)
    got = open_reader(handle, Direct(transport)).table()
    assert transport.counters.bytes_read == transport.counters.bytes_written == 0
    (region,) = transport.regions.values()
    region[0] = 9
    assert got["a"].to_pylist() == [9, 2, 3]


class Direct:
    """An action with one transport."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def get_transport(self, name: str, type: str = "rdma", timeout: float | None = None) -> Any:
        assert name == "m1"
        return self.transport


def test_only_named_columns_are_read_and_at_once(fake: Any) -> None:
    transport = fake()
    table = everything()
    handle = remote_frame.write(table, transport)
    parsed = FrameHandle.from_json(handle)
    reader = open_reader(handle, Direct(transport), ["s", "k"])
    assert reader.schema.names == ["s", "k"]
    assert transport.counters.reads == 0  # Opening reads nothing.
    assert reader.table().equals(table.select(["s", "k"]))
    (part,) = parsed.parts
    columns = [table.column_names.index(name) for name in ("s", "k")]
    spans = layout([f.type for f in parsed.schema], columns).spans(
        part.rows, part.nulls, part.bytes
    )
    assert len(spans) == 2  # They are no neighbours.
    wanted = sum(length for _, length in spans)
    assert wanted < part.nbytes / 3
    assert transport.counters.bytes_read == wanted
    assert transport.counters.reads == 1


def test_plans_read_only_what_they_use(fake: Any) -> None:
    transport = fake()
    table = pa.table({"a": range(5000), "b": range(5000), "c": ["text"] * 5000})
    handle = remote_frame.write(table, transport)
    frame = remote_frame.open(handle, Direct(transport))
    total = frame.filter(remote_frame.col("a") >= 4990).select(remote_frame.col("a").sum())
    assert total.collect().to_pylist() == [{"a": sum(range(4990, 5000))}]
    assert transport.counters.bytes_read == 5000 * 8


def test_several_handles_are_one_frame(element: Any) -> None:
    one, two, empty = plain(), plain(77, seed=2), plain(0)
    handles = [remote_frame.write(t, element.transport) for t in (one, empty, two)]
    frame = remote_frame.open(handles, element.again())
    assert frame.collect().equals(pa.concat_tables([one, two]).cast(frame.schema))


def test_handles_may_be_parsed_already(fake: Any) -> None:
    transport = fake()
    table = pa.table({"a": [1, 2]})
    handle = FrameHandle.from_json(remote_frame.write(table, transport))
    action = Direct(transport)
    assert open_reader(handle, action).table().equals(table)
    assert open_reader([handle, handle.to_json()], action).rows == 4
    exchanged = remote_frame.exchange(table, transport, keys=[0], partitions=2)
    parts = [p for i in range(2) for p in remote_frame.partition(exchanged, i)]
    assert open_reader(parts, action).rows == 2


def test_an_empty_frame_costs_no_memory(fake: Any) -> None:
    transport = fake()
    handle = remote_frame.write(everything(0), transport)
    assert handle["parts"] == []
    assert transport.regions == {}
    got = open_reader(handle, Direct(transport)).table()
    assert got.num_rows == 0
    assert got.schema.equals(everything(0).schema)
    assert remote_frame.open(remote_frame.write(plain(0), transport), Direct(transport)).select(
        remote_frame.count()
    ).collect().to_pylist() == [{"count": 0}]


def test_rows_of_bare_nulls_have_a_region(element: Any) -> None:
    table = pa.table({"n": pa.nulls(7)})
    handle = through_json(remote_frame.write(table, element.transport))
    assert open_reader(handle, element.again()).table().equals(table)


@pytest.mark.parametrize("source", ["reader", "batch", "pandas", "polars", "dictionary", "view"])
def test_whatever_exports_arrow_can_be_written(fake: Any, source: str) -> None:
    plain = pa.table({"k": pa.array([1, 2, 2], pa.int64()), "s": ["a", "b", None]})
    data: Any = {
        "reader": lambda: plain.to_reader(),
        "batch": lambda: plain.to_batches()[0],
        "pandas": lambda: pd.DataFrame({"k": [1, 2, 2], "s": ["a", "b", None]}),
        "polars": lambda: pl.DataFrame({"k": [1, 2, 2], "s": ["a", "b", None]}),
        "dictionary": lambda: plain.set_column(1, "s", plain["s"].dictionary_encode()),
        "view": lambda: plain.set_column(1, "s", plain["s"].cast(pa.string_view())),
    }[source]()
    transport = fake()
    handle = remote_frame.write(data, transport)
    got = open_reader(handle, Direct(transport)).table()
    assert got.to_pylist() == plain.to_pylist()
    assert "dict" not in handle["schema"][1][1]


def test_unwritable_data_is_refused_and_leaves_nothing(fake: Any) -> None:
    transport = fake()
    with pytest.raises(UnsupportedTypeError, match="'l'"):
        remote_frame.write(pa.table({"l": [[1], [2]]}), transport)
    with pytest.raises(StorageError, match="list"):
        remote_frame.write([1, 2], transport)
    with pytest.raises(ColumnNotFoundError, match=r"'kk'.*did you mean 'k'"):
        remote_frame.exchange(everything(), transport, keys=["kk"], partitions=2)
    with pytest.raises(remote_frame.ExpressionError, match="list of column names"):
        remote_frame.exchange(everything(), transport, keys="k", partitions=2)
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["k", "k"])
    with pytest.raises(AmbiguousColumnError):
        remote_frame.exchange(twice, transport, keys=["k"], partitions=2)
    with pytest.raises(PlanError, match="key"):
        remote_frame.exchange(everything(), transport, keys=[], partitions=2)
    assert transport.regions == {}


@pytest.mark.parametrize("mappable", [False, True])
@pytest.mark.parametrize("what", ["alloc", "writev", "map"])
def test_a_failed_write_gives_everything_back(fake: Any, what: str, mappable: bool) -> None:
    if what == ("writev" if mappable else "map"):
        pytest.skip("this transport does not do that")
    transport = fake(mappable, limit=20_000 if what == "alloc" else 1 << 30)
    if what != "alloc":
        transport.fail = {what}
    with pytest.raises(CapacityError if what == "alloc" else ConnectionError):
        remote_frame.exchange(everything(), transport, keys=["k"], partitions=8)
    assert transport.regions == {}


def test_a_failing_source_leaves_nothing(element: Any) -> None:
    def batches() -> Any:
        yield everything(10).to_batches()[0]
        raise OperatorError("the kernel gave up")

    reader = pa.RecordBatchReader.from_batches(everything(0).schema, batches())
    before = element.transport.stat()
    with pytest.raises(OperatorError, match="gave up"):
        remote_frame.write(reader, element.transport)
    assert element.transport.stat().get("used") == before.get("used")


def test_freed_and_foreign_parts_are_refused(element: Any) -> None:
    handle = remote_frame.write(everything(), element.transport)
    ref = FrameHandle.from_json(handle).parts[0].ref
    element.transport.free(element.transport.resolve(ref)[0][0] >> 40 << 40)
    with pytest.raises(StaleRefError):
        open_reader(handle, element.again()).table()


def test_bytes_that_are_no_columns_are_refused(fake: Any) -> None:
    transport = fake()
    handle = remote_frame.write(pa.table({"s": ["abc", "de"]}), transport)
    (region,) = transport.regions.values()
    at = 0
    region[at + 8] = 77  # The last offset: more bytes than there are.
    with pytest.raises(StorageError, match="not the columns"):
        open_reader(handle, Direct(transport)).table()
    region[at + 8], region[at] = 5, 3
    with pytest.raises(StorageError, match="first offset"):
        open_reader(handle, Direct(transport)).table()


def test_readers_of_different_columns_do_not_mix(fake: Any) -> None:
    transport = fake()
    one = remote_frame.write(pa.table({"a": [1]}), transport)
    two = remote_frame.write(pa.table({"b": [1]}), transport)
    with pytest.raises(HandleError, match="other columns"):
        remote_frame.open([one, two], Direct(transport))
    with pytest.raises(HandleError, match="at least one"):
        remote_frame.open([], Direct(transport))
    with pytest.raises(ColumnNotFoundError):
        remote_frame.open(one, Direct(transport), columns=["z"])


@given(
    keys=st.lists(st.none() | st.integers(-3, 3), max_size=60),
    partitions=st.integers(1, 7),
    writers=st.integers(1, 3),
    mappable=st.booleans(),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_exchange_loses_nothing_and_keeps_keys_together(
    fake: Any, keys: list[int | None], partitions: int, writers: int, mappable: bool
) -> None:
    transport = fake(mappable)
    table = pa.table(
        {"k": pa.array(keys, pa.int32()), "row": pa.array(range(len(keys)), pa.int64())}
    )
    cuts = [w * len(keys) // writers for w in range(writers + 1)]
    shares = [table.slice(a, b - a) for a, b in pairwise(cuts)]
    handles = [
        through_json(remote_frame.exchange(s, transport, keys=["k"], partitions=partitions))
        for s in shares
    ]
    seen: Counter[tuple[int | None, int]] = Counter()
    home: dict[int | None, int] = {}
    for index in range(partitions):
        parts = remote_frame.partition(handles, index)
        assert len(parts) == writers
        for row in remote_frame.open(parts, Direct(transport)).collect().to_pylist():
            seen[row["k"], row["row"]] += 1
            assert home.setdefault(row["k"], index) == index
    assert seen == Counter(zip(keys, range(len(keys)), strict=True))
    assert len(transport.regions) <= partitions * writers


def test_importing_costs_a_worker_little() -> None:
    code = (
        "import sys, remote_frame\n"
        "heavy = {'datafusion', 'duckdb', 'sqlglot', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "remote_frame.open, remote_frame.exchange, remote_frame.RemoteFrame, remote_frame.col\n"
        "heavy = {'datafusion', 'duckdb', 'sqlglot', 'substrait', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


READ = """
import json, sys
import remote_frame
from libd import LibdAction
from remote_frame import col
durl, handle = json.load(sys.stdin)
with LibdAction("reader", [durl]) as action:
    frame = remote_frame.open(handle, action)
    got = frame.group_by("b").agg(n=col("k").count(), total=col("k").sum()).sort("b").collect()
    print(json.dumps([[str(v) for v in row.values()] for row in got.to_pylist()]))
"""


def test_another_process_reads_what_this_one_wrote(element: Any) -> None:
    if element.kind == "local":
        pytest.skip("local memory is this process's own")
    table = plain()
    handle = remote_frame.write(table, element.transport)
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps([element.durl, handle]),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    groups: dict[Any, list[int]] = {}
    for row in table.to_pylist():
        groups.setdefault(row["b"], []).append(row["k"])
    expected = [[str(b), str(len(ks)), str(sum(ks))] for b, ks in groups.items()]
    assert sorted(json.loads(done.stdout)) == sorted(expected)


@pytest.mark.parametrize("names", [["a", "a", "b"], ["a", "A", "b"], ["", "", "b"]])
def test_columns_of_one_name_keep_their_values(element: Any, names: list[str]) -> None:
    data = [pa.array([10 * i + 1, 10 * i + 2]) for i in range(3)]
    handle = remote_frame.write(pa.Table.from_arrays(data, names), element.transport)
    frame = remote_frame.open(handle, element.again())
    for one in (frame, frame.filter(remote_frame.col("b") > 0), frame.sort("b")):
        found = one.collect()
        assert found.column_names == names
        assert [c.to_pylist() for c in found.columns] == [c.to_pylist() for c in data]
    assert frame.select(remote_frame.len()).to_dict() == {"len": [2]}


def test_nanoseconds_are_stored_and_taken_exactly_or_not_at_all(element: Any) -> None:
    whole = pa.table({"x": [1, 2], "t": pa.array([-1000, 2000], pa.timestamp("ns"))})
    finer = whole.set_column(1, "t", pa.array([-1000, 2001], pa.timestamp("ns")))
    frame = remote_frame.open(remote_frame.write(whole, element.transport), element.action)
    expected = whole.set_column(1, "t", whole["t"].cast(pa.timestamp("us")))
    assert frame.collect().equals(expected)
    assert frame.sort("t").select("t", "x").collect().equals(expected.select(["t", "x"]))
    frame = remote_frame.open(remote_frame.write(finer, element.transport), element.action)
    assert frame.select(col("x").max()).to_dict() == {"x": [2]}
    for used in (frame, frame.select(col("t").max())):
        with pytest.raises(ScadError, match=r"column 't': it counts nanoseconds"):
            used.collect()
