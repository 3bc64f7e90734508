"""Zones: which rows a scan of resident columns reads, and the ranges that say so."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from engine.resident.layout import ZONE_ROWS, ColumnSpec, Piece, TableSpec
from engine.resident.needs import columns_wanted, ranges
from engine.resident.reader import select_zones
from libd.ref import Ref
from operators import build
from operators.expr import Exists
from operators.rel import Filter, ParquetSource, Rel

SOURCE = ParquetSource("t", ("t.parquet",))
SCHEMA = pa.schema(
    [("k", pa.int32()), ("m", pa.decimal32(7, 2)), ("d", pa.date32()), ("s", pa.string())]
)


def table(rows: list[int], zones: list[list[tuple[int, int] | None]]) -> TableSpec:
    pieces = tuple(
        Piece(Ref("resident", 1, 1, [(0, 0), (0, 64)]), 0, 64, 0, tuple(z)) for z in zones
    )
    return TableSpec(("t",), tuple(rows), {"k": ColumnSpec("int32", pieces)})


@given(st.lists(st.integers(1, 5 * ZONE_ROWS), max_size=5), st.integers(1, 4))
def test_shares_are_disjoint_and_together_everything(rows: list[int], count: int) -> None:
    spec = TableSpec(("t",), tuple(rows), {})
    covered = []
    for index in range(count):
        for chunk, start, n in select_zones(spec, {}, (index, count)):
            covered.append((chunk, start, start + n))
    covered.sort()
    joined: dict[int, int] = {}
    for chunk, start, stop in covered:
        assert joined.get(chunk, 0) == start
        joined[chunk] = stop
    assert joined == dict(enumerate(rows))


def test_zones_outside_of_a_range_are_not_read() -> None:
    zones: list[tuple[int, int] | None] = [(0, 9), (10, 19), None, (20, 29)]
    spec = table([4 * ZONE_ROWS], [zones])
    assert select_zones(spec, {"k": (12, 13)}, (0, 1)) == [(0, ZONE_ROWS, ZONE_ROWS)]
    assert select_zones(spec, {"k": (19, None)}, (0, 1)) == [
        (0, ZONE_ROWS, ZONE_ROWS),
        (0, 3 * ZONE_ROWS, ZONE_ROWS),
    ]
    assert select_zones(spec, {"k": (None, 19)}, (0, 1)) == [(0, 0, 2 * ZONE_ROWS)]
    assert select_zones(spec, {"k": (50, None)}, (0, 1)) == []
    assert len(select_zones(spec, {"x": (1, 1)}, (0, 1))) == 1


def scan() -> Rel:
    return build.scan(SOURCE, SCHEMA)


def where(name: str, function: str, value: object) -> Filter:
    rel = scan()
    return build.filter(rel, build.call(function, build.col(rel.schema, name), build.lit(value)))


def test_ranges_of_conditions() -> None:
    assert ranges(where("k", "equal", 5), SOURCE) == {"k": (5, 5)}
    assert ranges(where("k", "greater", 5), SOURCE) == {"k": (5, None)}
    assert ranges(where("k", "not_equal", 5), SOURCE) == {}
    day = datetime.date(1969, 12, 31)
    assert ranges(where("d", "less_equal", day), SOURCE) == {"d": (None, -1)}
    assert ranges(where("m", "equal", Decimal("1.50")), SOURCE) == {"m": (150, 150)}
    assert ranges(where("s", "equal", "x"), SOURCE) == {}


def test_ranges_hold_for_all_scans_of_a_table() -> None:
    both = build.join(where("k", "equal", 5), where("k", "equal", 9), on=[(0, 0)])
    assert ranges(both, SOURCE) == {"k": (5, 9)}
    assert ranges(build.join(where("k", "equal", 5), scan(), on=[(0, 0)]), SOURCE) == {}


def test_ranges_hold_for_all_readers_of_a_scan() -> None:
    filtered = where("k", "equal", 5)
    assert isinstance(filtered, Filter)
    for one, other in ((filtered, filtered.input), (filtered.input, filtered)):
        assert ranges(build.join(one, other, on=[(0, 0)]), SOURCE) == {}
    column = build.col(filtered.schema, "k")
    third = build.filter(filtered.input, build.call("equal", column, build.lit(9)))
    assert ranges(build.join(filtered, third, on=[(0, 0)]), SOURCE) == {"k": (5, 9)}
    asked = build.filter(filtered, Exists(pa.bool_(), filtered.input))
    assert ranges(asked, SOURCE) == {}
    assert ranges(build.filter(filtered, Exists(pa.bool_(), filtered)), SOURCE) == {"k": (5, 5)}


def test_columns_that_are_wanted() -> None:
    plan = build.scan(SOURCE, SCHEMA, ["d"])
    assert columns_wanted([plan]) == {("t.parquet",): {"d": pa.date32()}}
    counted = build.aggregation(build.scan(SOURCE, SCHEMA, []), [], [build.aggregate("count")])
    assert columns_wanted([counted]) == {("t.parquet",): {"k": pa.int32()}}
