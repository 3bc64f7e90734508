"""`scad_scan`: Arrow batches in memory, as DuckDB sees them."""

from __future__ import annotations

import datetime
import decimal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import build
from operators.duckdb import Kernel, lower
from operators.duckdb.extension import ScanTable
from operators.rel import InputSource


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel.open(2, 500_000_000) as k:
        yield k


def through(kernel: Kernel, table: pa.Table) -> pa.Table:
    plan = build.scan(InputSource("t"), table.schema)
    return kernel.table(lower(plan), {"t": table})


def money(digits: int, scale: int) -> st.SearchStrategy[decimal.Decimal]:
    most, wide = 10**digits - 1, decimal.Context(prec=60)
    return st.integers(-most, most).map(lambda n: decimal.Decimal(n).scaleb(-scale, wide))


COLUMNS = {
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-128, 127),
    pa.int16(): st.integers(-(2**15), 2**15 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.date32(): st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)),
    pa.timestamp("us"): st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)),
    pa.string(): st.text(max_size=20),
    pa.binary(): st.binary(max_size=20),
    pa.decimal32(4, 1): money(4, 1),
    pa.decimal32(9, 2): money(9, 2),
    pa.decimal64(18, 3): money(18, 3),
    pa.decimal128(30, 5): money(30, 5),
}


@pytest.mark.parametrize("type", COLUMNS, ids=str)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_value_comes_back(kernel: Kernel, type: pa.DataType, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | COLUMNS[type], max_size=40))
    skipped = data.draw(st.integers(0, len(values)))
    array = pa.array(values, type)
    # Offsets that are no multiple of 8: bits have to be shifted.
    table = pa.table({"v": pa.chunked_array([array.slice(skipped), array], type)})
    assert through(kernel, table)["v"].to_pylist() == values[skipped:] + values


def test_more_rows_than_a_vector_and_a_morsel(kernel: Kernel) -> None:
    n = 300_001
    numbers = pa.array([None if i % 7 == 0 else i for i in range(n)], pa.int32())
    texts = pa.array([f"a rather long text {i % 1000}" for i in range(n)])
    table = pa.table({"n": numbers, "t": texts}).slice(3)
    plan = build.scan(InputSource("t"), table.schema)
    total = build.aggregation(
        plan,
        [],
        [
            build.aggregate("count"),
            build.aggregate("sum", build.col(plan.schema, "n")),
            build.aggregate("min", build.col(plan.schema, "t")),
        ],
    )
    (row,) = kernel.table(lower(total), {"t": table}).to_pylist()
    expected = sum(i for i in range(3, n) if i % 7)
    assert list(row.values()) == [n - 3, expected, "a rather long text 0"]


def test_the_optimizer_knows_the_rows(kernel: Kernel) -> None:
    table = pa.table({"a": range(12_345)})
    scanned = ScanTable(table.schema, table.to_batches())
    text = kernel._connection.execute(f"EXPLAIN FROM scad_scan({scanned.id})").fetchall()[0][1]
    assert "12,345 rows" in text
    scanned.close()


def test_a_number_that_is_no_table_is_an_error(kernel: Kernel) -> None:
    table = pa.table({"a": [1]})
    scanned = ScanTable(table.schema, table.to_batches())
    number = scanned.id
    scanned.close()
    assert scanned.id == 0
    for wrong in (number, 0, -1, 2**62):
        with pytest.raises(duckdb.Error, match="no table of that number"):
            kernel._connection.execute(f"FROM scad_scan({wrong})")


def test_loading_the_extension_leaves_nothing_that_a_kill_could_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    table = pa.table({"a": [1]})
    scanned = ScanTable(table.schema, table.to_batches())
    with Kernel.open(1, 500_000_000) as fresh:
        rows = fresh._connection.execute(f"FROM scad_scan({scanned.id})").fetchall()
    scanned.close()
    assert rows == [(1,)]


def test_a_statement_keeps_its_batches(kernel: Kernel) -> None:
    table = pa.table({"a": [f"kept for the statement {i}" for i in range(10_000)]})
    scanned = ScanTable(table.schema, table.to_batches())
    result = kernel._connection.execute(f"FROM scad_scan({scanned.id})")
    scanned.close()
    del table
    assert result.fetchone() == ("kept for the statement 0",)
    assert len(result.fetchall()) == 9_999


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["x"]).dictionary_encode(),
        pa.array([[1]]),
        pa.nulls(1),
        pa.array(["x"], pa.string_view()),
        pa.array([1], pa.timestamp("s")),
    ],
    ids=lambda a: str(a.type),
)
def test_types_that_are_not_scanned_are_refused(array: pa.Array) -> None:
    table = pa.table({"v": array})
    with pytest.raises(TypeError, match="type"):
        ScanTable(table.schema, table.to_batches())


@pytest.mark.parametrize(
    ("type", "shown"),
    [
        (pa.int8(), ("-3", "90")),
        (pa.int16(), ("-3", "90")),
        (pa.int32(), ("-3", "90")),
        (pa.int64(), ("-3", "90")),
        (pa.date32(), ("1969-12-29", "1970-04-01")),
    ],
    ids=str,
)
@pytest.mark.parametrize("nulls", [False, True])
def test_the_optimizer_knows_ranges(
    kernel: Kernel, type: pa.DataType, shown: tuple[str, str], nulls: bool
) -> None:
    table = pa.table({"x": pa.array([5, 90, -3] + [None] * nulls, type), "y": [1.5] * (3 + nulls)})
    scanned = ScanTable(table.schema, table.to_batches(), [(-3, 90), None])
    query = f"SELECT stats(x), stats(y), x FROM scad_scan({scanned.id})"
    known, unknown, _ = kernel._connection.execute(query).fetchall()[0]
    assert f"Min: {shown[0]}, Max: {shown[1]}" in known
    assert ("Has Null: true" in known) == nulls
    assert "Min: " not in unknown or "NULL" in unknown
    scanned.close()


def test_a_perfect_hash_join_has_the_same_rows(kernel: Kernel) -> None:
    big = pa.table({"k": pa.array([None, *range(-5, 200_000)], pa.int64())})
    small = pa.table({"key": pa.array(range(1000), pa.int32()), "v": pa.array(range(1000))})
    one = ScanTable(big.schema, big.to_batches(), [(-5, 199_999)])
    two = ScanTable(small.schema, small.to_batches(), [(0, 999), (0, 999)])
    query = f"SELECT count(*), sum(v) FROM scad_scan({one.id}) JOIN scad_scan({two.id}) ON k = key"
    assert kernel._connection.execute(query).fetchall() == [(1000, 499_500)]
    one.close()
    two.close()


@st.composite
def kept(draw: st.DrawFn) -> tuple[list[int | None], list[tuple[int, list[bool]]]]:
    """Numbers, and sets of numbers: the first of each, and which from it on are in."""
    near = st.integers(-70, 70)
    values = draw(st.lists(st.none() | near | st.integers(-128, 127), max_size=60))
    sets = draw(st.lists(st.tuples(near, st.lists(st.booleans(), max_size=90)), max_size=3))
    return values, sets


def packed(bits: list[bool]) -> npt.NDArray[np.uint8]:
    return np.packbits(np.array(bits, bool), bitorder="little")


KEYS = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("type", COLUMNS, ids=str)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_rows_of_a_key_come_as_without_one(
    kernel: Kernel, key: pa.DataType, type: pa.DataType, data: st.DataObject
) -> None:
    keys, sets = data.draw(kept())
    values = data.draw(st.lists(st.none() | COLUMNS[type], min_size=len(keys), max_size=len(keys)))
    skipped = data.draw(st.integers(0, len(keys)))
    whole = pa.table({"k": pa.array(keys, key), "v": pa.array(values, type)})
    table = pa.concat_tables([whole.slice(skipped), whole])
    query = "SELECT v, k FROM scad_scan({})"
    plain = ScanTable(table.schema, table.to_batches())
    picked = ScanTable(table.schema, table.to_batches())
    for low, bits in sets:
        picked.keep(0, low, packed(bits))

    def inside(k: int | None) -> bool:
        return k is not None and all(
            0 <= k - low < len(bits) and bits[k - low] for low, bits in sets
        )

    every = kernel._connection.execute(query.format(plain.id)).fetchall()
    expected = [row for row in every if not sets or inside(row[1])]
    assert kernel._connection.execute(query.format(picked.id)).fetchall() == expected
    picked.close()
    plain.close()


@pytest.mark.parametrize("every", [1, 3, 1000, 200_000, 10**6])
def test_few_rows_of_many_are_found(kernel: Kernel, every: int) -> None:
    n = 400_001
    keys = np.arange(n, dtype=np.int64)
    table = pa.table({"k": keys, "t": [f"the text of row {i}" for i in range(n)]})
    scanned = ScanTable(table.schema, table.to_batches())
    scanned.keep(0, 5, np.packbits((keys + 5) % every == 0, bitorder="little"))
    query = f"SELECT k, t FROM scad_scan({scanned.id}) ORDER BY k"
    expected = [(i, f"the text of row {i}") for i in range(5, n) if i % every == 0]
    assert kernel._connection.execute(query).fetchall() == expected
    assert kernel._connection.execute(
        f"SELECT count(*) FROM scad_scan({scanned.id})"
    ).fetchall() == [(len(expected),)]
    scanned.close()


@pytest.mark.parametrize("low", [-(2**63), 2**63 - 64])
def test_keys_at_the_ends_of_their_type(kernel: Kernel, low: int) -> None:
    numbers = [low, low + 1, low + 63, -(2**63), 2**63 - 1, 0, -1, None]
    table = pa.table({"k": pa.array(numbers, pa.int64())})
    scanned = ScanTable(table.schema, table.to_batches())
    scanned.keep(0, low, packed([True, False] + [True] * 62))
    rows = kernel._connection.execute(f"FROM scad_scan({scanned.id})").fetchall()
    inside = [k for k in numbers if k is not None and 0 <= k - low < 64 and k != low + 1]
    assert [k for (k,) in rows] == inside
    scanned.close()


def test_only_integers_have_keys_to_keep() -> None:
    table = pa.table({"d": pa.array([1.5]), "k": [1]})
    scanned = ScanTable(table.schema, table.to_batches())
    for column in (0, 2, -1):
        with pytest.raises(ValueError, match="no keys"):
            scanned.keep(column, 0, packed([True]))
    scanned.close()
    with pytest.raises(ValueError, match="no keys"):
        scanned.keep(1, 0, packed([True]))
