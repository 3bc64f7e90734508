"""Zones: which rows a scan of resident columns reads, and the ranges that say so."""

from __future__ import annotations

import datetime
import tracemalloc
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.resident.layout import ZONE_ROWS, ColumnSpec, Piece, TableSpec
from engine.resident.narrowing import DERIVED_ROWS, MANY_ROWS, QUICK_ROWS, Answer, narrowed
from engine.resident.needs import columns_wanted, ranges
from engine.resident.reader import (
    ResidentTable,
    Zone,
    neighbours_joined,
    select_zones,
    shared_out,
)
from libd.ref import Ref
from operators import build
from operators.errors import KernelMemoryError
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
    zones = select_zones(TableSpec(("t",), tuple(rows), {}), {})
    covered = []
    for index in range(count):
        for chunk, start, n in neighbours_joined(shared_out(zones, (index, count))):
            covered.append((chunk, start, start + n))
    covered.sort()
    joined: dict[int, int] = {}
    for chunk, start, stop in covered:
        assert joined.get(chunk, 0) == start
        joined[chunk] = stop
    assert joined == dict(enumerate(rows))


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=30),
    st.integers(1, 4),
    st.tuples(st.integers(0, 50), st.integers(0, 20)),
    st.integers(0, 15),
)
def test_copies_need_not_agree_on_what_they_leave_out(
    zones: list[tuple[int, int]], count: int, wanted: tuple[int, int], narrow: int
) -> None:
    """A copy may ask for keys that another does not find worth a question."""
    spec = table([len(zones) * ZONE_ROWS], [[(low, low + more) for low, more in zones]])
    low, high = wanted[0], sum(wanted)
    action: Any = None
    read: list[Zone] = []
    for index in range(count):
        mine = ResidentTable(spec, "", action, ["k"], (index, count), {"k": (5, None)})
        read += (mine.narrowed("k", low, high) if narrow >> index & 1 else mine).zones
    assert len(set(read)) == len(read)
    matter = select_zones(spec, {"k": (max(5, low), high)})
    assert set(matter) <= set(read)


def test_copies_share_each_range_of_a_table_in_order() -> None:
    spec = table([100 * ZONE_ROWS], [[(i * 10, i * 10 + 9) for i in range(100)]])
    action: Any = None
    for low, high in [(0, 999), (500, 599), (730, 789)]:
        copies = [ResidentTable(spec, "", action, ["k"], (i, 4)) for i in range(4)]
        rows = [copy.narrowed("k", low, high).rows // ZONE_ROWS for copy in copies]
        assert max(rows) - min(rows) <= 1
        assert sum(rows) == (high + 1 - low) // 10


def test_zones_outside_of_a_range_are_not_read() -> None:
    zones: list[tuple[int, int] | None] = [(0, 9), (10, 19), None, (20, 29)]
    spec = table([4 * ZONE_ROWS], [zones])

    def runs(column: str, low: int | None, high: int | None) -> list[tuple[int, int, int]]:
        return neighbours_joined(select_zones(spec, {column: (low, high)}))

    assert runs("k", 12, 13) == [(0, ZONE_ROWS, ZONE_ROWS)]
    assert runs("k", 19, None) == [(0, ZONE_ROWS, ZONE_ROWS), (0, 3 * ZONE_ROWS, ZONE_ROWS)]
    assert runs("k", None, 19) == [(0, 0, 2 * ZONE_ROWS)]
    assert runs("k", 50, None) == []
    assert len(runs("x", 1, 1)) == 1


class Asked:
    """Answers with some keys, and remembers whether it was asked."""

    def __init__(self, *keys: int | None) -> None:
        self.texts: list[str] = []
        self._keys = keys

    def __call__(self, text: str, reads: Mapping[str, Any], answer: Answer) -> pa.Table:
        self.texts.append(text)
        numbers = pa.array([0] * len(self._keys), pa.int32())
        return pa.table({"number": numbers, "key": pa.array(self._keys, pa.int64())})


def open_tables(rows: int, zones: list[tuple[int, int] | None]) -> dict[str, ResidentTable]:
    small = TableSpec(("d",), (100,), {})
    action: Any = None  # nothing is fetched
    return {
        "t": ResidentTable(table([rows], [zones]), "", action, ["k"]),
        "d": ResidentTable(small, "", action, ["k"]),
    }


KEYS = [("t", "k", ["d"], "select key from d")]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-50, 50), max_size=9))
def test_keys_become_a_range_and_a_set(keys: list[int | None]) -> None:
    tables = open_tables(MANY_ROWS, [])
    found = narrowed(tables, KEYS, Asked(*keys))["t"]
    known = {k for k in keys if k is not None}
    for one in (kept.keys for kept in found.kept):
        bits = np.unpackbits(one.bits, bitorder="little")
        assert {one.low + int(i) for i in np.flatnonzero(bits)} == known
    span = max(known) - min(known) if known else 0
    assert len(found.kept) <= bool(known)
    if known and not 1000 < span < 2**30:
        assert len(found.kept) == (span <= 1000)


def test_a_wide_set_is_made_piece_by_piece() -> None:
    """What it takes is the keys' own size, not a byte for each value between them."""
    rng = np.random.default_rng(5)
    keys = rng.choice(60_000_000, 200_000, replace=False) - 10_000_000
    answer = pa.table({"number": np.zeros(len(keys), np.int32), "key": keys})
    tracemalloc.start()
    (kept,) = narrowed(open_tables(MANY_ROWS, []), KEYS, lambda *_: answer)["t"].kept
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    bits = np.unpackbits(kept.keys.bits, bitorder="little")
    assert (np.flatnonzero(bits) + kept.keys.low == np.sort(keys)).all()
    assert peak < 32 << 20


@pytest.mark.parametrize("error", [KernelMemoryError("no room"), MemoryError()], ids=str)
def test_a_question_that_lacks_memory_costs_the_keys_not_the_statement(error: Exception) -> None:
    asked = []

    def ask(text: str, reads: Mapping[str, Any], answer: Answer) -> pa.Table:
        asked.append(text)
        raise error

    assert narrowed(open_tables(MANY_ROWS, []), KEYS, ask) == {}
    assert len(asked) == 1


def test_zones_and_few_rows_are_asked_about_only_if_it_pays() -> None:
    apart: list[tuple[int, int] | None] = [(0, 9), (10, 19), (20, 29)]
    mixed: list[tuple[int, int] | None] = [(0, 29)] * 3
    for rows, zones, asked in [
        (3 * ZONE_ROWS, apart, True),
        (3 * ZONE_ROWS, mixed, 3 * ZONE_ROWS >= MANY_ROWS),
        (MANY_ROWS, [], True),
        (MANY_ROWS - 1, [], False),
    ]:
        ask = Asked(12, 12)
        found = narrowed(open_tables(rows, zones), KEYS, ask)
        assert (len(ask.texts), len(found)) == (asked, asked)


class Answers:
    """Answers one set of keys after another; remembers what was asked, of how many rows."""

    def __init__(self, *answers: dict[int, range]) -> None:
        self.asked: list[tuple[str, dict[str, int]]] = []
        self._answers = iter(answers)

    def __call__(self, text: str, reads: Mapping[str, Any], answer: Answer) -> pa.Table:
        self.asked.append((text, {name: table.rows for name, table in reads.items()}))
        pairs = [(n, key) for n, keys in next(self._answers).items() for key in keys]
        numbers, keys = zip(*pairs, strict=True)
        return pa.table({"number": pa.array(numbers, pa.int32()), "key": pa.array(keys)})


def large(*zones: tuple[int, int]) -> ResidentTable:
    """A table with these zones."""
    action: Any = None
    return ResidentTable(table([len(zones) * ZONE_ROWS], [list(zones)]), "", action, ["k"])


def test_what_is_left_of_a_large_table_is_asked_next() -> None:
    zones = [(i * 100, i * 100 + 99) for i in range(2 * DERIVED_ROWS // ZONE_ROWS)]
    keys = [
        ("returns", "k", ["sales", "d"], "sold"),
        ("sales", "k", ["d"], "days"),
        ("other", "k", ["d"], "days"),
    ]
    tables = {n: large(*zones) for n in ("sales", "returns", "other")}
    ask = Answers({0: range(100, 200)}, {0: range(150, 350)})
    found = narrowed({**tables, "d": open_tables(1, [])["d"]}, keys, ask)
    assert [text.count("days") for text, _ in ask.asked] == [1, 0]  # once for both
    assert ask.asked[1][1] == {"sales": ZONE_ROWS, "d": 100}
    rows = {name: table.rows for name, table in found.items()}
    assert rows == {"sales": ZONE_ROWS, "other": ZONE_ROWS, "returns": 3 * ZONE_ROWS}


def test_no_more_is_asked_once_few_rows_are_wanted() -> None:
    spread = [(0, 9_999)] * (2 * DERIVED_ROWS // ZONE_ROWS)
    keys = [("t", "k", ["d"], "days"), ("t", "k", ["s", "d"], "sold")]
    for known, asked in [(range(9_000), 2), (range(100), 1)]:
        tables = {"t": large(*spread), "s": large(*[(0, 9)] * 3), "d": open_tables(1, [])["d"]}
        assert tables["s"].rows > QUICK_ROWS
        ask = Answers({0: known}, {0: range(5)})
        found = narrowed(tables, keys, ask)["t"]
        assert len(ask.asked) == asked
        # Most rows have one of 9,000 keys, which are not looked for; of five more, they are.
        assert found.rows_wanted == found.rows * (0.01 if asked == 1 else 5 / 10_000)
        assert len(found.kept) == 1


def test_a_large_table_may_be_asked_first() -> None:
    tables = {"t": large(*[(0, 9)] * 40), "s": large(*[(0, 9)] * 3)}
    ask = Answers({0: range(3)})
    assert narrowed(tables, [("t", "k", ["s"], "one"), ("s", "k", ["t"], "no")], ask)["t"].kept
    assert len(ask.asked) == 1


def test_what_a_question_reads_is_bounded() -> None:
    keys = [("t", "k", ["s"], "many")]
    for zones, asked in [(4_000_000 // ZONE_ROWS, 1), (4_000_000 // ZONE_ROWS + 1, 0)]:
        tables = {"t": large(*[(0, 9)] * 400), "s": large(*[(0, 9)] * zones)}
        ask = Answers({0: range(3)})
        assert len(narrowed(tables, keys, ask)) == len(ask.asked) == asked


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
