"""The partition kernel against a plain reading of what it must do."""

from __future__ import annotations

import datetime
import decimal
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.errors import PlanError, UnsupportedTypeError
from operators.part_columns import layout, written_schema
from operators.partition import Partitioner, PartWritten, scatter, scatter_range
from operators.partitioning import Hash

D = decimal.Decimal


class Memory:
    """A block that is full of rubbish at first, with some behind it that must stay."""

    def __init__(self) -> None:
        self.block = bytearray()
        self.size = 0

    def allocate(self, size: int) -> memoryview:
        assert not self.block, "one block per write"
        self.size = size
        self.block = bytearray(b"\xa5" * (size + 64))
        return memoryview(self.block)

    def checked(self) -> memoryview:
        assert self.block[self.size :] == b"\xa5" * (len(self.block) - self.size)
        return memoryview(self.block)


def read_back(
    schema: pa.Schema, part: PartWritten, memory: Memory, columns: Sequence[int] | None = None
) -> pa.Table:
    """The part as `layout` finds it."""
    wanted = range(len(schema)) if columns is None else columns
    places = layout(schema.types, wanted)
    known = (part.rows, part.null_counts, part.string_bytes)
    assert places.size(*known) == part.length
    spans = places.spans(*known)
    block = memory.checked() if part.length else memoryview(b"")
    views = [block[part.offset + a : part.offset + a + n] for a, n in spans]
    narrow = pa.schema([schema[c] for c in wanted])
    batch = pa.record_batch(Capsules(narrow, places.columns(*known, spans, views)))
    batch.validate(full=True)
    return pa.Table.from_batches([batch], narrow)


class Capsules:
    def __init__(self, schema: pa.Schema, array: object) -> None:
        self.schema, self.array = schema, array

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self.schema.__arrow_c_schema__(), self.array


def run(
    data: Any, keys: Sequence[int], partitions: int
) -> tuple[list[pa.Table], list[PartWritten]]:
    memory = Memory()
    parts = scatter(data, keys, partitions, memory.allocate)
    return [read_back(written_schema(data.schema), p, memory) for p in parts], parts


TYPES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.int16(): st.integers(-(2**15), 2**15 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint8(): st.integers(0, 255),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=20),
    pa.large_string(): st.text(max_size=20),
    pa.binary(): st.binary(max_size=20),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.decimal32(7, 2): st.integers(-(10**7) + 1, 10**7 - 1).map(lambda i: D(i).scaleb(-2)),
    pa.decimal64(15, 2): st.integers(-(10**15) + 1, 10**15 - 1).map(lambda i: D(i).scaleb(-2)),
    pa.decimal128(38, 0): st.integers(-(10**27), 10**27).map(D),
    pa.null(): st.none(),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Small tables of several chunks, chunks being slices (offsets!) of longer ones."""
    types = draw(st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=4))
    schema = pa.schema([(f"c{i}", t) for i, t in enumerate(types)])
    batches = []
    for _ in range(draw(st.integers(0, 3))):
        n = draw(st.integers(0, 30))
        columns = []
        for t in types:
            values = TYPES[t] if draw(st.booleans()) else st.none() | TYPES[t]
            columns.append(pa.array(draw(st.lists(values, min_size=n, max_size=n)), t))
        batch = pa.record_batch(columns, schema=schema)
        start = draw(st.integers(0, n))
        batches.append(batch.slice(start, draw(st.integers(0, n - start))))
    return pa.Table.from_batches(batches, schema)


def rows_of(table: pa.Table) -> Counter[tuple[Any, ...]]:
    return Counter(map(tuple, zip(*table.to_pydict().values(), strict=True)))


@settings(max_examples=80, deadline=None)
@given(tables(), st.integers(1, 7), st.data())
def test_every_row_lands_once_and_equal_keys_together(
    table: pa.Table, partitions: int, data: st.DataObject
) -> None:
    positions = st.integers(0, table.num_columns - 1)
    keys = data.draw(st.lists(positions, min_size=1, max_size=2))
    parts, written = run(table, keys, partitions)
    everything: Counter[tuple[Any, ...]] = Counter()
    home: dict[tuple[Any, ...], int] = {}
    for p, part in enumerate(parts):
        everything += rows_of(part)
        for row in zip(*part.to_pydict().values(), strict=True):
            key = tuple(row[k] for k in keys)
            assert home.setdefault(key, p) == p
        assert written[p].null_counts == tuple(c.null_count for c in part.columns)
    assert everything == rows_of(table)
    if partitions > 1:  # Which partition is a matter of the values alone, not of chunks or batches.
        whole, _ = run(table.combine_chunks(), keys, partitions)
        assert whole == parts


@settings(max_examples=60, deadline=None)
@given(tables())
def test_one_partition_without_keys_is_the_table(table: pa.Table) -> None:
    (part,), (written,) = run(table, [], 1)
    assert part.to_pydict() == table.to_pydict()
    for i, column in enumerate(table.columns):
        if pa.types.is_signed_integer(column.type):
            values = [v for v in column.to_pylist() if v is not None]
            assert written.minimums[i] == min(values, default=None)
            assert written.maximums[i] == max(values, default=None)


def homes(values: Sequence[Any], type: pa.DataType, partitions: int = 64) -> list[int]:
    """The partition of each value."""
    table = pa.table({"k": pa.array(values, type), "row": pa.array(range(len(values)))})
    parts, _ = run(table, [0], partitions)
    found = {row: p for p, part in enumerate(parts) for row in part["row"].to_pylist()}
    return [found[i] for i in range(len(values))]


def test_the_hash_is_of_the_value_not_of_its_width() -> None:
    small = [-128, -1, 0, 1, 77, 127, None]
    expected = homes(small, pa.int8())
    for type in (pa.int16(), pa.int32(), pa.int64()):
        assert homes(small, type) == expected
    numbers = [None if v is None else D(v) for v in small]
    for type in (pa.decimal32(9, 0), pa.decimal64(18, 0), pa.decimal128(38, 0)):
        assert homes(numbers, type) == expected
    assert homes([0, 1, 77, 127], pa.uint8()) == expected[2:6]
    assert homes([0, 1, 77, 127], pa.uint64()) == expected[2:6]
    big = [2**63, 2**64 - 1]
    assert homes(big, pa.uint64()) == homes([D(v) for v in big], pa.decimal128(38, 0))
    cents = [D("-1.25"), D("0.00"), D("99.99"), None]
    expected = homes(cents, pa.decimal32(7, 2))
    assert homes(cents, pa.decimal64(15, 2)) == expected
    assert homes(cents, pa.decimal128(38, 2)) == expected
    texts = ["", "a", "eight by", "nine bytes", "längst", None]
    assert homes(texts, pa.string()) == homes(texts, pa.large_string())


def test_zeros_and_nans_of_floats_stand_together() -> None:
    for type in (pa.float32(), pa.float64()):
        minus, plus, nan, other = homes([-0.0, 0.0, math.nan, -math.nan], type)
        assert minus == plus
        assert nan == other
    assert homes([0.5, 1e10, None], pa.float32()) == homes([0.5, 1e10, None], pa.float64())


@pytest.mark.parametrize("partitions", [2, 7, 16, 64])
@pytest.mark.parametrize("stride", [1, 3, 100, 1 << 10, 1 << 20, 1 << 40])
def test_rows_spread_evenly(stride: int, partitions: int) -> None:
    n = 20_000
    numbers = np.arange(n) * stride
    for column in (pa.array(numbers), pa.array(numbers).cast(pa.string())):
        _, written = run(pa.table({"k": column}), [0], partitions)
        assert sum(w.rows for w in written) == n
        assert max(w.rows for w in written) < 1.3 * n / partitions
    table = pa.table({"a": numbers % (7 * stride), "b": numbers})
    _, written = run(table, [0, 1], partitions)
    assert max(w.rows for w in written) < 1.3 * n / partitions


def test_dictionaries_and_views_are_decoded() -> None:
    table = pa.table(
        {
            "d": pa.array(["x", None, "y", "x"]).dictionary_encode(),
            "v": pa.array(["a", "b" * 40, None, ""], pa.string_view()),
        }
    )
    assert written_schema(table.schema).types == [pa.string(), pa.string()]
    (part,), _ = run(table, [], 1)
    assert part.to_pydict() == table.to_pydict()


def test_readers_and_iterables_are_taken_too() -> None:
    batch = pa.record_batch({"a": [3, 1, 2]})
    memory = Memory()
    (part,) = scatter([batch, batch.slice(1)], [], 1, memory.allocate)
    assert read_back(batch.schema, part, memory)["a"].to_pylist() == [3, 1, 2, 1, 2]
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch])
    (part,) = scatter(reader, [], 1, Memory().allocate)
    assert part.rows == 3
    (part,) = scatter([], [], 1, Memory().allocate, schema=batch.schema)
    assert (part.rows, part.length, part.minimums) == (0, 0, (None,))


def test_statistics_of_dates_and_money() -> None:
    day = datetime.date(2000, 1, 1)
    table = pa.table(
        {
            "d": pa.array([day, None], pa.date32()),
            "m": pa.array([D("1.50"), D("-2.00")], pa.decimal64(15, 2)),
            "s": ["a", "b"],
        }
    )
    _, (written,) = run(table, [], 1)
    days = (day - datetime.date(1970, 1, 1)).days
    assert written.minimums == (days, -200, "a")
    assert written.maximums == (days, 150, "b")
    assert written.null_counts == (1, 0, 0)


@pytest.mark.parametrize(
    "column",
    [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))],
    ids=["list", "struct", "fixed list"],
)
def test_types_without_a_layout_are_refused_by_name(column: pa.Array) -> None:
    with pytest.raises(UnsupportedTypeError, match="'odd'"):
        scatter(pa.table({"odd": column}), [], 1, Memory().allocate)


@pytest.mark.parametrize(("keys", "partitions"), [([], 2), ([0], 0), ([1], 2), ([0], 70_000)])
def test_nonsense_is_refused(keys: list[int], partitions: int) -> None:
    with pytest.raises(PlanError):
        scatter(pa.table({"a": [1]}), keys, partitions, Memory().allocate)


@pytest.mark.parametrize("bad", ["short", "read-only"])
def test_a_block_that_breaks_its_promise_is_found_out(bad: str) -> None:
    def allocate(size: int) -> memoryview:
        whole = memoryview(bytearray(size))
        return whole[:-1] if bad == "short" else whole.toreadonly()

    with pytest.raises((ValueError, BufferError)):
        scatter(pa.table({"a": [1, 2, 3]}), [], 1, allocate)


ORDERED = [t for t in TYPES if t != pa.null()]


@st.composite
def sorted_keys(draw: st.DrawFn) -> tuple[pa.Table, list[bool], list[bool], list[int]]:
    """A table of key columns, an order, and which rows of the sorted table are boundaries."""
    types = draw(st.lists(st.sampled_from(ORDERED), min_size=1, max_size=3))
    n = draw(st.integers(1, 40))
    columns = []
    for t in types:
        # Few values, so that keys tie and the next one decides.
        pool = draw(st.lists(st.none() | TYPES[t], min_size=1, max_size=6))
        columns.append(pa.array(draw(st.lists(st.sampled_from(pool), min_size=n, max_size=n)), t))
    flags = st.lists(st.booleans(), min_size=len(types), max_size=len(types))
    cuts = draw(st.lists(st.integers(0, n - 1), max_size=6).map(sorted))
    names = [f"c{i}" for i in range(len(types))]
    return pa.table(columns, names=names), draw(flags), draw(flags), cuts


def order_of(table: pa.Table, descending: Sequence[bool], nulls_first: Sequence[bool]) -> list[int]:
    """Row numbers in order, by Python's comparisons of the stored values."""
    rows = list(range(table.num_rows))
    for name, down, first in reversed(
        list(zip(table.column_names, descending, nulls_first, strict=True))
    ):
        values = [
            v.encode() if isinstance(v, str) else v for v in table[name].to_pylist()
        ]  # Strings are compared as bytes.
        valid = [r for r in rows if values[r] is not None]
        valid.sort(key=lambda r, values=values: values[r], reverse=down)  # type: ignore[misc]
        nulls = [r for r in rows if values[r] is None]
        rows = nulls + valid if first else valid + nulls
    return rows


@settings(max_examples=80, deadline=None)
@given(sorted_keys())
def test_ranges_are_those_of_the_order(
    drawn: tuple[pa.Table, list[bool], list[bool], list[int]],
) -> None:
    table, descending, nulls_first, cuts = drawn
    order = order_of(table, descending, nulls_first)
    ordered = table.take(pa.array(order, pa.int64()))
    boundaries = ordered.take(pa.array(cuts, pa.int64())).combine_chunks()
    batch = pa.RecordBatch.from_arrays(
        [c.chunk(0) if c.num_chunks else pa.array([], c.type) for c in boundaries.columns],
        schema=table.schema,
    )
    memory = Memory()
    keys = range(table.num_columns)
    parts = scatter_range(
        table, list(keys), batch, memory.allocate, descending=descending, nulls_first=nulls_first
    )
    assert len(parts) == len(cuts) + 1
    found = [read_back(table.schema, p, memory) for p in parts]
    # Equal rows stay together; sorting each partition sorts the whole.
    again = [t.take(pa.array(order_of(t, descending, nulls_first), pa.int64())) for t in found]
    assert pa.concat_tables(again).to_pydict() == ordered.to_pydict()
    # A boundary belongs to the partition behind it.
    for i, cut in enumerate(cuts):
        behind = [row for t in again[i + 1 :] for row in t.to_pylist()]
        before = [row for t in again[: i + 1] for row in t.to_pylist()]
        assert ordered.slice(cut, 1).to_pylist()[0] in behind
        assert ordered.slice(cut, 1).to_pylist()[0] not in before


def test_ranges_of_floats_and_of_wide_decimals() -> None:
    values = [math.nan, 1.5, -0.0, 0.0, -math.inf, math.inf, None, -2.0]
    table = pa.table({"f": pa.array(values, pa.float64())})
    edge = pa.record_batch({"f": pa.array([0.0, math.inf])})
    memory = Memory()
    parts = scatter_range(table, [0], edge, memory.allocate)
    low, middle, high = (read_back(table.schema, p, memory)["f"].to_pylist() for p in parts)
    assert low == [-math.inf, -2.0]
    assert middle == [1.5, 0.0, 0.0]
    assert math.isnan(high[0])
    assert high[1:] == [math.inf, None]
    wide = [D(2) ** 100, D(-2) ** 101, D(7), None, D(2) ** 100 + 1]
    table = pa.table({"d": pa.array(wide, pa.decimal128(38, 0))})
    edge = pa.record_batch({"d": pa.array([D(2) ** 100], pa.decimal128(38, 0))})
    memory = Memory()
    parts = scatter_range(table, [0], edge, memory.allocate, nulls_first=[True])
    assert [read_back(table.schema, p, memory)["d"].to_pylist() for p in parts] == [
        [-(D(2) ** 101), D(7), None],
        [D(2) ** 100, D(2) ** 100 + 1],
    ]
    assert parts[0].minimums == (None,)


@pytest.mark.parametrize("type", [pa.int64(), pa.int32(), pa.float64(), pa.string()], ids=str)
@pytest.mark.parametrize("count", [0, 1, 63, 65, 1000])
@pytest.mark.parametrize("descending", [False, True])
def test_ranges_of_many_boundaries(type: pa.DataType, count: int, descending: bool) -> None:
    rng = np.random.default_rng(count)
    values = rng.integers(0, 5000, 20_000)
    edges = np.sort(rng.integers(0, 5000, count))
    if descending:
        expected = np.searchsorted(-edges[::-1], -values, "right")
        edges = edges[::-1]
    else:
        expected = np.searchsorted(edges, values, "right")

    def as_type(numbers: np.ndarray) -> pa.Array:
        if type == pa.string():  # Longer than what is compared at once, and of the same order.
            return pa.array([f"{n:012d}" for n in numbers], pa.string())
        return pa.array(numbers).cast(type)

    table = pa.table({"k": as_type(values), "row": np.arange(20_000)})
    batch = pa.record_batch({"k": as_type(edges)})
    memory = Memory()
    parts = scatter_range(table, [0], batch, memory.allocate, descending=[descending])
    assert len(parts) == count + 1
    for p, part in enumerate(parts):
        rows = read_back(table.schema, part, memory)["row"].to_numpy()
        assert np.array_equal(rows, np.flatnonzero(expected == p))


def test_boundaries_that_make_no_sense_are_refused() -> None:
    table = pa.table({"a": [1], "h": pa.array([1.0], pa.float16())})
    for keys, boundaries, flags in (
        ([0], pa.record_batch({"a": [2, 1]}), {}),
        ([0], pa.record_batch({"a": ["x"]}), {}),
        ([0], pa.record_batch({"a": [1], "b": [1]}), {}),
        ([0], pa.record_batch({"a": [1]}), {"descending": [True, False]}),
        ([5], pa.record_batch({"a": [1]}), {}),
    ):
        with pytest.raises(PlanError):
            scatter_range(table, keys, boundaries, Memory().allocate, **flags)
    with pytest.raises(UnsupportedTypeError, match="'h'"):
        scatter_range(table, [1], pa.record_batch({"h": table["h"].chunk(0)}), Memory().allocate)


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(1, 7), st.data())
def test_statistics_bound_what_was_written(
    table: pa.Table, partitions: int, data: st.DataObject
) -> None:
    parts, written = run(table, [0], partitions)
    for part, one in zip(parts, written, strict=True):
        for column, least, most in zip(part.columns, one.minimums, one.maximums, strict=True):
            values = [v for v in column.to_pylist() if v is not None]
            if least is None or not isinstance(values[0] if values else None, int | float | str):
                continue
            if isinstance(values[0], str):
                texts = [v.encode() for v in values]
                assert str(least).encode() <= min(texts)
                assert max(t[: len(str(most).encode())] for t in texts) <= str(most).encode()
            elif not isinstance(values[0], bool):
                # An infinity is no JSON: that end is open.
                ends = [v if math.isfinite(v) else None for v in (min(values), max(values))]
                assert [least, most] == ends


@settings(max_examples=40, deadline=None)
@given(tables(), st.data())
def test_chosen_columns_are_read_back_alone(table: pa.Table, data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.integers(0, table.num_columns - 1), unique=True))
    memory = Memory()
    (part,) = scatter(table, [], 1, memory.allocate)
    whole = read_back(table.schema, part, memory)
    got = read_back(table.schema, part, memory, wanted)
    assert got.to_pydict() == whole.select(wanted).to_pydict()


@pytest.mark.parametrize("partitions", [2, 16, 300, 5000])
@pytest.mark.parametrize("rows", [1, 100_000])
def test_many_rows_into_few_and_many_partitions(partitions: int, rows: int) -> None:
    keys = pa.array(np.arange(rows) * 7919 % 1000003)
    table = pa.table(
        {
            "k": keys,
            "i": pa.array(np.arange(rows), pa.int32()),
            "s": keys.cast(pa.string()),
            "b": pa.array(np.arange(rows) % 3 == 0),
            "n": pa.array(np.arange(rows), mask=np.arange(rows) % 5 == 0),
        }
    )
    memory = Memory()
    parts = scatter(table.to_batches(max_chunksize=70_001), [0], partitions, memory.allocate)
    seen = [read_back(table.schema, p, memory) for p in parts if p.rows]
    assert sum(p.rows for p in parts) == rows
    whole = pa.concat_tables(seen)
    assert whole.take(pc.sort_indices(whole["i"])).equals(table)
    # Rows keep their order within a partition.
    assert all(np.all(np.diff(t["i"].to_numpy()) > 0) for t in seen)


def test_several_writes_of_one_partitioner() -> None:
    schema = pa.schema([("k", pa.int64()), ("s", pa.string())])
    work = Partitioner(schema, Hash((0,), 3))
    for start in (0, 1000):
        batch = pa.record_batch(
            [pa.array(range(start, start + 1000)), pa.array(["x"] * 1000)], schema=schema
        )
        for at in range(0, 1000, 7):
            work.add(batch.slice(at, 7))
        assert work.rows == 1000
        memory = Memory()
        parts = work.write(memory.allocate)
        rows = [r for p in parts for r in read_back(schema, p, memory)["k"].to_pylist()]
        assert sorted(rows) == list(range(start, start + 1000))
        assert work.rows == 0
    keys, texts = work.distinct()
    assert keys.rows == texts.rows == 2000
    assert 1700 < keys.estimate(2000) <= 2000
    assert texts.estimate(2000) == pytest.approx(1, abs=0.1)
    with pytest.raises(PlanError, match="one schema"):
        work.add(pa.record_batch({"k": [1]}))


def test_a_buffer_of_the_columns_lives_as_long_as_they_do() -> None:
    table = pa.table({"a": [1, 2, 3], "s": ["x", None, "yy"]})
    memory = Memory()
    (part,) = scatter(table, [], 1, memory.allocate)
    column = read_back(table.schema, part, memory)["s"]
    with pytest.raises(BufferError):
        memory.block.clear()
    assert column.to_pylist() == ["x", None, "yy"]
    del column
    memory.block.clear()
