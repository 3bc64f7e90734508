"""Data at the edges: skew, nothing, nulls, limits of types. Every answer beside DuckDB's."""

from __future__ import annotations

import datetime as dt
import decimal
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import DataError, SqlError
from libd.errors import ScadError
from operators.errors import KernelError

JOINS = [
    "select a.id, b.id from a join b on a.k = b.k",
    "select a.id, b.id from a left join b on a.k = b.k",
    "select a.id, b.id from a right join b on a.k = b.k",
    "select a.id, b.id from a full join b on a.k = b.k",
    "select id from a where exists (select 1 from b where b.k = a.k)",
    "select id from a where not exists (select 1 from b where b.k = a.k)",
    "select id from a where k in (select k from b)",
    "select id from a where k not in (select k from b)",
    "select id from a where k not in (select k from b where k is not null)",
    "select a.id, b.id from a join b on a.k is not distinct from b.k",
    "select a.id, b.id from a left join b on a.k is not distinct from b.k",
    "select a.id, b.id from a join b on a.k = b.k and a.v <> b.v",
    "select a.id, b.id from a full join b on a.k = b.k and a.v < b.v",
    "select count(*) from a, b",
]
GROUPINGS = [
    "select k, count(*), count(v), sum(v), min(v), max(v), avg(v) from a group by k",
    "select count(*), count(k), count(distinct k), sum(v), avg(v), min(k), max(k) from a",
    "select distinct k from a",
    "select k, count(distinct v), sum(distinct v) from a group by k",
    "select k, v, count(*), grouping(k), grouping(v) from a group by rollup (k, v)",
    "select k, v, count(*) from a group by cube (k, v)",
    "select k, v, sum(id) from a group by grouping sets ((k), (v), ())",
    "select k, count(*) from a group by k having count(*) > 2",
    "select k, stddev_samp(v), median(v) from a group by k",
]
WINDOWS = [
    "select id, row_number() over (partition by k order by id) from a",
    "select id, rank() over (order by v), dense_rank() over (order by k, v) from a",
    "select id, sum(v) over (partition by k), count(*) over (partition by k) from a",
    "select id, sum(v) over (partition by k order by id rows between 2 preceding and current row) "
    "from a",
    "select id, lag(v) over (partition by k order by id), max(v) over () from a",
]
SETS = [
    "select k from a union select k from b",
    "select k from a union all select k from b",
    "select k, v from a intersect select k, v from b",
    "select k, v from a except select k, v from b",
]
ORDERED = [
    "select id, k from a order by k, id limit 7",
    "select id, k from a order by k desc nulls first, id desc",
    "select k, id from a order by k nulls first, id limit 5 offset 3",
]


def keyed(keys: Sequence[Any], type: pa.DataType, *, first: int = 0) -> pa.Table:
    """A table with these keys, an id that numbers its rows, and small values with nulls."""
    count = len(keys)
    return pa.table(
        {
            "id": pa.array(range(first, first + count), pa.int32()),
            "k": pa.array(keys, type),
            "v": pa.array([None if i % 7 == 3 else i % 5 for i in range(count)], pa.int64()),
        }
    )


def check_all(
    differential: Any, left: pa.Table, right: pa.Table, *, only: Sequence[str] = ()
) -> None:
    differential.add("a", left)
    differential.add("b", right)
    for query in only or [*JOINS, *GROUPINGS, *WINDOWS, *SETS]:
        differential.check(query, copies=[3])
    for query in [] if only else ORDERED:
        differential.check(query, copies=[3], ordered=True)


# -- skew, nothing, nulls -------------------------------------------------------------------------


def test_skew(differential: Any) -> None:
    """One key holds 90 % of the rows, on both sides."""
    rng = random.Random(1)
    left = [5 if rng.random() < 0.9 else rng.randrange(30) for _ in range(150)]
    right = [5 if rng.random() < 0.9 else rng.randrange(30) for _ in range(60)]
    check_all(differential, keyed(left, pa.int32()), keyed(right, pa.int32(), first=1000))


SIDES: dict[str, list[Any]] = {
    "empty": [],
    "nulls": [None] * 9,
    "mixed": [1, None, 2, 2, None, 3, 4, 1],
    "one": [2],
}


@pytest.mark.parametrize("right", SIDES)
@pytest.mark.parametrize("left", ["empty", "nulls", "mixed"])
def test_nothing_and_nulls(differential: Any, left: str, right: str) -> None:
    """Empty inputs, keys that are all NULL: every kind of join, group by, window, set operation."""
    only = [*JOINS, *SETS] if right != "empty" else ()
    check_all(
        differential,
        keyed(SIDES[left], pa.int32()),
        keyed(SIDES[right], pa.int32(), first=100),
        only=only,
    )


@pytest.mark.parametrize(
    "type", [pa.string(), pa.decimal128(9, 2), pa.date32(), pa.float64(), pa.bool_()], ids=str
)
def test_all_null_keys_of_every_type(differential: Any, type: pa.DataType) -> None:
    nulls = keyed([None] * 7, type)
    check_all(differential, nulls, nulls, only=[*JOINS[:5], *GROUPINGS[:4], WINDOWS[0], *SETS[:3]])


def test_a_filter_that_leaves_nothing(differential: Any) -> None:
    """Empty partitions: rows are there, none come through."""
    differential.add("a", keyed(range(50), pa.int32()))
    differential.add("b", keyed(range(50), pa.int32()))
    for query in [
        "select a.k, count(*) from a join b on a.k = b.k where a.v > 100 group by a.k",
        "select count(*), sum(a.v) from a join b on a.k = b.k where a.v > 100",
        "select k, sum(v) over (partition by k) from a where v > 100",
        "select a.k, b.k from a full join (select * from b where v > 100) b on a.k = b.k",
        "select k from a where v > 100 union all select k from b where v > 100",
        "select k from a where k > (select max(k) from b where v > 100)",
    ]:
        differential.check(query)


# -- names ----------------------------------------------------------------------------------------


def test_duplicate_names_in_results(differential: Any) -> None:
    differential.add("a", keyed([1, 2, 2, 3], pa.int32()))
    differential.add("b", keyed([2, 3, 4], pa.int32()))
    for query in [
        "select a.k, b.k, a.id, b.id from a join b on a.k = b.k",
        "select * from a join b on a.k = b.k",
        "select k, k, k from a",
        "select k as x, v as x from a order by id",
        "select count(*), count(*) from a",
        "select k as v, v as k from a",
        'select k as "K", k as "k" from a',
        "select sum(v), sum(v) from a group by k, k",
    ]:
        ours = differential.check(query)
        assert len(ours.column_names) == len(differential.ours(query).column_names)


def test_names_with_every_character(differential: Any) -> None:
    names = [
        "naïve",
        "列",
        "\u0441_\u044e\u043d\u0438",
        "🦆",
        'quo"te',
        "apo'strophe",
        "back\\slash",
        "a b",
        "",
        "%s{}",
    ]
    names = [n for n in names if n]
    table = pa.table({n: pa.array([i, None, i + 1]) for i, n in enumerate(names)})
    differential.add("tablé 表", table)
    for n in names:
        quoted = '"' + n.replace('"', '""') + '"'
        differential.check(
            f'select {quoted}, count(*) as {quoted} from "tablé 表" group by {quoted}', copies=[3]
        )
    differential.check(
        'select * from "tablé 表" x join "tablé 表" y on x."列" = y."列"', copies=[3]
    )


# -- decimals -------------------------------------------------------------------------------------

LARGEST = Decimal("9" * 38)


@pytest.mark.parametrize("scale", [0, 2, 10, 37, 38])
def test_widest_decimals(differential: Any, scale: int) -> None:
    unit = Decimal(1).scaleb(-scale)
    with decimal.localcontext(prec=60):
        most = LARGEST * unit
        keys = [most, -most, unit, -unit, Decimal(0), None, most]
    type = pa.decimal128(38, scale)
    table = keyed(keys, type)
    check_all(
        differential,
        table,
        table,
        only=[
            *JOINS[:5],
            "select k, count(*) from a group by k",
            "select min(k), max(k), count(distinct k) from a",
            "select distinct k from a",
            SETS[0],
            "select k from a order by k desc nulls last, id",
            "select id, rank() over (order by k) from a",
        ],
    )


@pytest.mark.parametrize(
    ("type", "value"),
    [
        (pa.decimal128(38, 0), LARGEST),
        (pa.decimal128(38, 2), Decimal("9" * 36 + ".99")),
        (pa.decimal128(38, 0), LARGEST.copy_negate()),
    ],
    ids=["whole", "fraction", "negative"],
)
def test_sums_that_overflow(differential: Any, type: pa.DataType, value: Decimal) -> None:
    """Within a copy, between copies, in a window: where DuckDB says so, we do."""
    differential.add("a", keyed([value] * 6, type), row_group_size=1)
    for query in ["select sum(k) from a", "select v, sum(k) from a group by v"]:
        try:
            differential.theirs(query)
        except Exception:
            with pytest.raises(ScadError, match=r"verflow|range"):
                differential.ours(query)
        else:
            differential.check(query)


def test_sums_near_the_limit(differential: Any) -> None:
    half = (10**38 - 1) // 2
    data = keyed(
        [Decimal(half), Decimal(half), Decimal(-half), Decimal(1)] * 2, pa.decimal128(38, 0)
    )
    differential.add("a", data, row_group_size=1)
    for query in [
        "select sum(k) from a where id < 2",
        "select sum(k), avg(k) from a where id < 4",
        "select v, sum(k) from a group by v",
    ]:
        differential.check(query)


def test_decimals_narrow_and_wide_together(differential: Any) -> None:
    for name, type in {"a": pa.decimal128(5, 2), "b": pa.decimal128(20, 4)}.items():
        differential.add(
            name, keyed([Decimal("1.50"), Decimal("-999.99"), Decimal(0), None, Decimal(7)], type)
        )
    for query in [*JOINS, *SETS]:
        differential.check(query, copies=[3])


def test_integers_at_their_limits(differential: Any) -> None:
    most = 2**63 - 1
    differential.add("a", keyed([most, -most - 1, most, 0, None], pa.int64()))
    for query in [
        "select sum(k), avg(k), min(k), max(k) from a",
        "select k, sum(k) from a group by k",
    ]:
        differential.check(query)
    differential.check_failure("select k + 1 from a", ScadError, "(?i)overflow|out of range")


# -- types that meet ------------------------------------------------------------------------------

MEETING = {
    "int32-int64": (
        pa.int32(),
        pa.int64(),
        [1, 2, -3, None, 2**31 - 1],
        [1, -3, 2**40, None, 2**31 - 1],
    ),
    "int32-decimal": (
        pa.int32(),
        pa.decimal128(12, 2),
        [1, 2, -3, None],
        [Decimal(1), Decimal("2.5"), Decimal(-3), None],
    ),
    "int64-decimal": (
        pa.int64(),
        pa.decimal128(12, 2),
        [1, 2, -3, None],
        [Decimal(1), Decimal("2.5"), Decimal(-3), None],
    ),
    "int32-varchar": (pa.int32(), pa.string(), [1, 2, -3, None], ["1", "02", " -3", None]),
    "int32-double": (pa.int32(), pa.float64(), [1, 0, -3, None], [1.0, -0.0, -3.5, float("nan")]),
    "decimal-double": (
        pa.decimal128(9, 2),
        pa.float64(),
        [Decimal("1.5"), Decimal(0), None],
        [1.5, -0.0, float("nan")],
    ),
    "date-timestamp": (
        pa.date32(),
        pa.timestamp("us"),
        [dt.date(1970, 1, 1), dt.date(1960, 2, 29), None],
        [dt.datetime(1970, 1, 1), dt.datetime(1960, 2, 29, 1), None],
    ),
    "date-varchar": (
        pa.date32(),
        pa.string(),
        [dt.date(1970, 1, 1), None],
        ["1970-01-01", "2000-02-29"],
    ),
    "int8-int64": (pa.int8(), pa.int64(), [1, -128, 127, None], [1, -128, 127, 128]),
}


@pytest.mark.parametrize("pair", MEETING)
def test_keys_of_two_types(differential: Any, pair: str) -> None:
    one, other, left, right = MEETING[pair]
    differential.add("a", keyed(left * 3, one))
    differential.add("b", keyed(right * 2, other, first=100))
    differential.add("c", keyed(left, one, first=200))
    for query in [*JOINS, *SETS[:2]]:
        try:
            differential.theirs(query)
        except Exception:  # types that DuckDB does not bring together
            with pytest.raises(ScadError):
                differential.ours(query)
        else:
            differential.check(query, copies=[3])
    differential.check(
        "select a.id, b.id, c.id from a join b on a.k = b.k join c on c.k = b.k", copies=[3]
    )


def test_a_string_that_is_no_number(differential: Any) -> None:
    differential.add("a", keyed([1, 2], pa.int32()))
    differential.add("b", keyed(["1", "two"], pa.string()))
    differential.check_failure("select count(*) from a join b on a.k = b.k", KernelError, "two")


# -- strings --------------------------------------------------------------------------------------


def test_strings_of_a_megabyte(differential: Any) -> None:
    long = ["x" * (1 << 20), "x" * ((1 << 20) - 1) + "y", "é" * (1 << 19), "", None]
    differential.add("a", keyed(long * 2, pa.string()), row_group_size=3)
    differential.add("b", keyed(long[1:], pa.string(), first=100))
    for query in [
        JOINS[0], JOINS[3], JOINS[5],
        "select k, count(*) from a group by k",
        "select min(k), max(k), sum(length(k)) from a",
        SETS[0],
    ]:  # fmt: skip
        differential.check(query, copies=[3])
    differential.check("select id, k from a order by k, id limit 3", ordered=True, copies=[3])


UNICODE = [
    "z", "Z", "a", "A", "ä", "a\u0308", "é", "e\u0301", "ß", "ss", "ñ", "Ω", "я", "列", "表",
    "\U0001f986",    "", " ", "\u200b", "a\u0000b", "\uffff", "\U0010ffff", None,
]  # fmt: skip


def test_unicode_keys_and_their_order(differential: Any) -> None:
    """Order is by code point, also between copies; composed and decomposed letters differ."""
    check_all(
        differential,
        keyed(UNICODE * 3, pa.string()),
        keyed(UNICODE[::2], pa.string(), first=100),
        only=[*JOINS[:8], *[g for g in GROUPINGS if "median" not in g], *WINDOWS[:2], *SETS],
    )
    for query in [*ORDERED, "select upper(k), lower(k), length(k), id from a order by k, id"]:
        differential.check(query, copies=[3], ordered=True)
    differential.check("select k from a where k like '_' or k like 'a%' or k > 'ä'", copies=[3])
    differential.check("select k from a where k = '列' or k in ('ß', '\U0001f986')", copies=[3])


# -- dates and times ------------------------------------------------------------------------------

DATES = [
    dt.date(1, 1, 1), dt.date(1582, 10, 15), dt.date(1899, 12, 31), dt.date(1969, 12, 31),
    dt.date(1970, 1, 1), dt.date(1900, 2, 28), dt.date(2000, 2, 29), dt.date(9999, 12, 31), None,
]  # fmt: skip


def test_dates_before_1970_and_far_ones(differential: Any) -> None:
    check_all(
        differential,
        keyed(DATES * 2, pa.date32()),
        keyed(DATES[1:], pa.date32(), first=100),
        only=[
            *JOINS[:8], *GROUPINGS[:3], *WINDOWS[:2], *SETS,
            "select extract(year from k), extract(month from k), extract(day from k) from a",
            "select k + 1, k - 1, k - date '1970-01-01' from a where k < date '9000-01-01' "
            "and k > date '1000-01-01'",
            "select id from a where k < date '1970-01-01'",
            "select id from a where k between date '1582-01-01' and date '1969-12-31'",
        ],
    )  # fmt: skip
    for query in ORDERED:
        differential.check(query, copies=[3], ordered=True)


def test_times_before_1970(differential: Any) -> None:
    times = [
        dt.datetime(1969, 12, 31, 23, 59, 59, 999999), dt.datetime(1970, 1, 1),
        dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59), None,
    ]  # fmt: skip
    check_all(
        differential,
        keyed(times * 2, pa.timestamp("us")),
        keyed(times[1:], pa.timestamp("us"), first=100),
        only=[*JOINS[:6], *GROUPINGS[:3], *SETS],
    )
    for query in ORDERED:
        differential.check(query, copies=[3], ordered=True)


# -- floats ---------------------------------------------------------------------------------------


def floats(float_of: Any) -> list[float | None]:
    """Zeros and NaNs of both signs, infinities, the smallest and the largest number."""
    return [
        0.0, -0.0, float("nan"), -float("nan"), float_of(0x7FF8000000000001),
        float_of(0xFFF0000000000001), float("inf"), -float("inf"),
        5e-324, -5e-324, 1.7976931348623157e308, 1.0, None,
    ]  # fmt: skip


NAN_IN_FILES = [
    "select n from {} where f = 'nan'",
    "select n from {} where f > 4",
    "select n from {} where f >= 10",
    "select n from {} where f > 'nan'",
    "select n from {} where f >= 'nan'",
    "select n from {} where f <> 1",
    "select n from {} where f in ('nan', 1)",
    "select n from {} where f between 10 and 'nan'",
    "select n from {} where not f <= 10",
    "select n from {} where f is not distinct from 'nan'",
    "select n from {} where f < 3 and f > 0",
    "select max(f), min(f), count(f) from {}",
    "select n, f from {} order by f desc nulls last, n limit 3",
    "select a.n, b.n from {} a join (select f, n from {} where f > 4) b on a.f = b.f",
    "select n from {} where f in (select f from {} where n = 2)",
]


@pytest.mark.parametrize("kernel", ["duckdb", "polars"])
@pytest.mark.parametrize("type", [pa.float32(), pa.float64()], ids=str)
def test_nan_is_found_in_files(differential: Any, type: pa.DataType, kernel: str) -> None:
    """Bounds in footers leave NaN out. DuckDB 1.5.5 is wrong of files, not of its own tables."""
    values = [1.0, 2.0, float("nan"), 3.0, 5.0, -0.0, float("nan"), None]
    data = pa.table({"f": pa.array(values, type), "n": range(8)})
    differential.add("t", data, row_group_size=4)
    differential.duck.register("given", data)
    differential.duck.execute("create table own as from given")
    for text in NAN_IN_FILES:
        ours = differential.ours(text.replace("{}", "t"), 2, kernel=kernel)
        theirs = differential.theirs(text.replace("{}", "own"))
        differential.same(ours, theirs, ordered=False, said=text)


def test_nan_and_zeros_as_keys(differential: Any, float_of: Any) -> None:
    values = floats(float_of)
    check_all(
        differential,
        keyed(values * 3, pa.float64()),
        keyed(values, pa.float64(), first=100),
        only=[*JOINS[:8], JOINS[9], *GROUPINGS[:5], *WINDOWS[:2], *SETS],
    )
    for query in ORDERED:
        differential.check(query, copies=[3], ordered=True)
    differential.check("select min(k), max(k) from a")
    differential.check("select v, min(k), max(k), count(distinct k) from a group by v")
    differential.check("select id from a where k = 'nan' or k = 0 or k > 1e308", copies=[3])


def test_single_precision_too(differential: Any, float_of: Any) -> None:
    values = [0.0, -0.0, float("nan"), float("inf"), 1.5, None]
    check_all(
        differential,
        keyed(values * 3, pa.float32()),
        keyed(values, pa.float64(), first=100),
        only=[*JOINS[:8], *GROUPINGS[:4], *SETS[:2]],
    )


# -- many -----------------------------------------------------------------------------------------


def wide(columns: int) -> pa.Table:
    return pa.table({f"c{i}": pa.array([i, i + 1, None], pa.int32()) for i in range(columns)})


@pytest.mark.parametrize("columns", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_many_columns(differential: Any, columns: int) -> None:
    differential.add("w", wide(columns))
    last = columns - 1
    differential.check(f"select c{last}, count(*) from w group by c{last}", copies=[2])
    differential.check("select * from w order by c0", copies=[2], broadcast_bytes=0.0, ordered=True)
    sums = ", ".join(f"sum(c{i})" for i in range(0, columns, 10))
    differential.check(f"select {sums} from w", copies=[2], broadcast_bytes=0.0)


@pytest.mark.parametrize("groups", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_many_row_groups(differential: Any, groups: int) -> None:
    """Row groups of one row each. What DuckDB 1.5.5 takes for a file grows with their square: here
    a minute of CPU for each share of a hundred thousand.
    """
    data = keyed([i % 97 for i in range(groups)], pa.int32())
    differential.add("a", data, row_group_size=1)
    differential.check("select k, count(*), sum(v) from a group by k", copies=[3])


@pytest.mark.parametrize("files", [500, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_many_files(differential: Any, files: int) -> None:
    folder = differential.folder / "many"
    folder.mkdir()
    for i in range(files):
        pq.write_table(keyed([i % 7, None], pa.int32(), first=2 * i), folder / f"{i:06}.parquet")
    differential.catalog.register("many", folder)
    differential.duck.execute(f"create view many as from '{folder}/*.parquet'")
    differential.check("select k, count(*), sum(v), max(id) from many group by k", copies=[3])


@pytest.mark.parametrize("partitions", [32, pytest.param(320, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_many_parts(differential: Any, partitions: int) -> None:
    """An exchange of many writers and many readers, most parts of a row or none."""
    differential.add("a", keyed([i % 50 for i in range(400)], pa.int32()), row_group_size=10)
    differential.check(
        "select k, count(*), median(v) from a group by k", copies=[partitions], broadcast_bytes=0.0
    )


# -- files that are not what they should be -------------------------------------------------------


def test_columns_that_differ_only_in_case_are_refused(differential: Any) -> None:
    path = differential.folder / "case.parquet"
    pq.write_table(pa.table({"a": [1], "A": [2]}), path)
    with pytest.raises(DataError, match="several columns are called 'A'"):
        differential.catalog.register("case", path)


def test_ambiguous_names_are_refused(differential: Any) -> None:
    differential.add("a", keyed([1], pa.int32()))
    differential.check_failure("select k from a, a as b", SqlError, "(?i)ambiguous")


def test_joins_that_nest_without_parentheses(differential: Any) -> None:
    differential.add("a", keyed([1, 2, 3, None], pa.int32()))
    differential.add("b", keyed([2, 3, 3], pa.int32(), first=100))
    for query in [
        "select a.id, b.id, c.id from a join b join a c on b.k = c.k on a.k = b.k",
        "select a.id, b.id, c.id from a left join b left join a c on b.k = c.k + 1 on a.k = b.k",
        "select a.id, d.id from a join b on a.k = b.k join b c join a d on c.k = d.k on a.k = c.k",
    ]:
        differential.check(query, copies=[2])
