"""Random expressions, aggregates and windows: Polars answers as DuckDB does, or both raise."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Literal

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import currently_in_test_context, given, settings
from hypothesis import note as hypothesis_note
from hypothesis import strategies as st

from operators import build
from operators.duckdb import Kernel, lower
from operators.errors import KernelError, PlanError, UnsupportedPlan
from operators.expr import Aggregate, Call, Expr, FrameBound, Lit, SortKey, Window
from operators.polars.expressions import Writer
from operators.polars.types import NAMES, polars_type
from operators.rel import InputSource
from operators.rewrite import columns_used
from operators.schema import Schema
from operators.types import HUGEINT, canonical, decimal

D382 = decimal(38, 2)
TYPES = {
    "k": pa.int32(),
    "i8": pa.int8(),
    "i32": pa.int32(),
    "i64": pa.int64(),
    "u8": pa.uint8(),
    "hg": HUGEINT,
    "d72": decimal(7, 2),
    "d94": decimal(9, 4),
    "d183": decimal(18, 3),
    "d382": D382,
    "f": pa.float64(),
    "f4": pa.float32(),
    "u64": pa.uint64(),
    "b": pa.bool_(),
    "s": pa.string(),
    "dt": pa.date32(),
    "ts": pa.timestamp("us"),
}
SCHEMA = Schema.from_arrow(pa.schema(list(TYPES.items())))
SCOPE: dict[str, Any] = {}
for _statement in NAMES.values():
    exec(_statement, SCOPE)


def _integers(type: pa.DataType) -> st.SearchStrategy[int]:
    signed = pa.types.is_signed_integer(type)
    high = 2 ** (type.bit_width - signed) - 1
    low = -high - 1 if signed else 0
    small = st.integers(max(low, -4), min(high, 6))
    return st.one_of(small, small, st.integers(low, high), st.sampled_from([low, high]))


def _decimals(type: pa.DataType) -> st.SearchStrategy[Decimal]:
    most = 10**type.precision - 1
    raw = st.one_of(
        st.integers(-300, 300), st.integers(-most, most), st.sampled_from([most, -most])
    )
    return raw.map(lambda n: Decimal((n < 0, [int(c) for c in str(abs(n))], -type.scale)))


def values(type: pa.DataType) -> st.SearchStrategy[Any]:
    """Nasty values of a type, NULL left out."""
    if pa.types.is_integer(type):
        return _integers(type)
    if pa.types.is_decimal(type):
        return _decimals(type)
    if pa.types.is_floating(type):
        if pa.types.is_float32(type):
            return st.one_of(st.sampled_from([0.0, -0.0, 1.5, math.nan]), st.floats(width=32))
        nasty = [0.0, -0.0, 1.0, 2.5, -1.5, 1.005, 1e300, 5e-324, math.nan, math.inf, -math.inf]
        return st.one_of(st.sampled_from(nasty), st.floats())
    if pa.types.is_boolean(type):
        return st.booleans()
    if pa.types.is_date(type):
        days = st.integers(-30_000, 30_000).map(
            lambda n: datetime.date(1970, 1, 1) + datetime.timedelta(n)
        )
        return st.one_of(st.sampled_from(DATES), days, st.dates(*ERA))
    if pa.types.is_timestamp(type):
        return st.one_of(
            st.sampled_from([datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)]),
            st.datetimes(*(datetime.datetime(d.year, 1, 1) for d in ERA)),
        )
    return st.one_of(st.sampled_from(STRINGS), st.text(max_size=4))


# Python's own dates end at the years 1 and 9999, which sums may leave.
ERA = datetime.date(200, 1, 1), datetime.date(9800, 1, 1)
DATES = [datetime.date(1960, 2, 29), datetime.date(2000, 1, 31), datetime.date(2000, 12, 31)]
STRINGS = ["", "a", "ab", "a%b", "A_b", "héllo", "日本語", "a\nb", "Unknown x", " a ", "\\", "a.c"]


@st.composite
def tables(draw: st.DrawFn, used: set[int]) -> pa.Table:
    """Rows with nasty values in the `used` columns, NULLs in the others."""
    rows = draw(st.integers(0, 7))
    columns = []
    for i, (name, type) in enumerate(TYPES.items()):
        if i in used:
            cell = values(type) if name != "k" else st.integers(0, 1)
            cells = draw(st.lists(st.none() | cell, min_size=rows, max_size=rows))
        else:
            cells = [None] * rows
        columns.append(pa.array(cells, type))
    return pa.table(columns, names=list(TYPES))


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel.open(1, 500_000_000) as k:
        yield k


@pytest.fixture(scope="module")
def plain() -> Iterator[Kernel]:
    """A kernel that computes expressions as they were written."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("PRAGMA disable_optimizer")
        yield Kernel(connection)


# Both answers


def note(text: str) -> None:
    """Say it beside a random example that fails."""
    if currently_in_test_context():
        hypothesis_note(text)


Rows = list[tuple[Any, ...]] | Literal["too long", "narrow"] | None


def asked(kernel: Kernel, plan: Any, data: pa.Table) -> Rows:
    """DuckDB's answer, None where it raises."""
    try:
        table = kernel.table(lower(plan), {"t": data})
    except KernelError as error:
        note(f"DuckDB: {error}")
        # A literal has the type of its neighbour there, which the IR does not say.
        return "narrow" if "of INT8" in str(error) else None
    rows = list(zip(*(c.to_pylist() for c in table.columns), strict=True))
    # What DuckDB can compute but not hold in a decimal of 38 digits is as good as an error.
    return None if any(_too_long(v) for row in rows for v in row) else rows


def _too_long(value: Any) -> bool:
    return isinstance(value, Decimal) and len(value.as_tuple().digits) > 38


def frame(data: pa.Table) -> pl.LazyFrame:
    wide = [
        c.cast(pa.decimal128(c.type.precision, c.type.scale)) if pa.types.is_decimal(c.type) else c
        for c in data.columns
    ]
    return pl.DataFrame(pa.table(wide, names=data.column_names)).lazy()


# Where Polars may raise and DuckDB need not: that has a little more than 38 digits for what comes
# between, and does not try what no row needs, constants and operands of a NULL among it.
LENIENT = (
    *("doesn't fit Decimal(38, ", "addition in sum", "addition in cum_sum", "decimal round"),
    *("failed in column 'scalar'", "failed in column 'literal'", "conversion from `decimal[38,"),
)


def collected(lazy: pl.LazyFrame, types: Sequence[pa.DataType]) -> Rows:
    """Polars' answer, None where it raises; its types are those that `polars_type` says."""
    flags = pl.QueryOptFlags(comm_subexpr_elim=False)
    try:
        table = lazy.collect(engine="streaming", optimizations=flags)
    except (pl.exceptions.ComputeError, pl.exceptions.InvalidOperationError) as error:
        note(f"Polars: {type(error).__name__} {error}")
        if any(text in str(error) for text in LENIENT):
            return "too long"
        if "conversion from" in str(error):
            return None
        raise
    assert table.dtypes == [eval(polars_type(t), SCOPE) for t in types]
    return table.rows()


def source(text: str) -> pl.Expr:
    note(text)
    found = eval(text, SCOPE)
    assert isinstance(found, pl.Expr)
    return found


def same(left: Any, right: Any, tolerance: float = 0.0, absolute: float = 0.0) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right or math.isclose(left, right, rel_tol=tolerance, abs_tol=absolute)
    return type(left) is type(right) and bool(left == right)


def alike(left: Rows, right: Rows, tolerance: float = 0.0, absolute: float = 0.0) -> bool:
    if left == "too long":
        return True  # DuckDB has a little more than 38 digits for what comes between
    if right == "narrow":
        return True
    if left is None or right is None:
        return left is None and right is None
    return len(left) == len(right) and all(
        same(x, y, tolerance, absolute)
        for a, b in zip(left, right, strict=True)
        for x, y in zip(a, b, strict=True)
    )


def scan(data: pa.Table) -> Any:
    return build.scan(InputSource("t"), data.schema)


def writer() -> Writer:
    return Writer(SCHEMA.names, SCHEMA.types)


def col(name: str) -> Expr:
    return build.col(SCHEMA, name)


# Random expressions


def leaf(names: Sequence[str], constants: bool = True) -> st.SearchStrategy[Expr]:
    columns = st.sampled_from(names).map(col)
    if not constants:
        return columns
    literals = st.sampled_from(names).flatmap(
        lambda n: (st.none() | values(TYPES[n])).map(lambda v: Lit(canonical(TYPES[n]), v))
    )
    return st.one_of(columns, columns, literals)


NUMBERS = ["k", "i8", "i32", "i64", "u8", "hg", "d72", "d94", "d183", "d382", "f", "f4", "u64"]
CASTS = [
    *(TYPES[n] for n in NUMBERS),
    *(decimal(5, 1), decimal(15, 4), decimal(38, 3), pa.int16(), pa.string()),
]
COMPARE = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
COMPARE += ["is_distinct_from", "is_not_distinct_from"]


@st.composite
def numbers(draw: st.DrawFn, depth: int) -> Expr:
    # DuckDB folds constants in types of its own choice: none stands alone here.
    if depth == 0:
        return draw(leaf(NUMBERS, constants=False))
    a = draw(numbers(draw(st.integers(0, depth - 1))))
    b = draw(st.one_of(leaf(NUMBERS), numbers(depth - 1)))
    match draw(st.integers(0, 9)):
        case 0 | 1 | 2:
            return build.call(draw(st.sampled_from(["add", "subtract", "multiply"])), a, b)
        case 3:
            name = draw(st.sampled_from(["divide", "integer_divide", "modulo"]))
            return build.call(name, a, b)
        case 4:
            return build.call(draw(st.sampled_from(["negate", "abs", "ceil", "floor"])), a)
        case 5:
            return build.call("round", a, build.lit(draw(st.integers(0, 3))))
        case 6:
            return build.cast(a, draw(st.sampled_from(CASTS[:-1])))
        case 7:
            name = draw(st.sampled_from(["coalesce", "nullif", "greatest", "least"]))
            return build.call(name, a, b)
        case 8:
            other = draw(st.sampled_from([b, None]))
            return build.case([(draw(conditions(depth - 1)), a)], other)
        case _:
            name = draw(
                st.sampled_from(["bitwise_and", "bitwise_or", "bitwise_xor", "shift_right"])
            )
            wide, bits = draw(leaf(["i32", "i64", "i8", "u8"])), build.lit(draw(st.integers(0, 6)))
            return build.call(name, wide, bits)


@st.composite
def texts(draw: st.DrawFn, depth: int) -> Expr:
    if depth == 0:
        return draw(leaf(["s"], constants=False))
    a, b = draw(texts(depth - 1)), draw(st.one_of(leaf(["s"]), texts(depth - 1)))
    match draw(st.integers(0, 7)):
        case 0:
            start, length = draw(st.integers(-4, 4)), draw(st.integers(0, 4))
            return build.call("substring", a, build.lit(start), build.lit(length))
        case 1:
            return build.call("substring", a, build.lit(draw(st.integers(-4, 4))))
        case 2:
            name = draw(st.sampled_from(["left", "right"]))
            return build.call(name, a, build.lit(draw(st.integers(0, 3))))
        case 3:
            return build.call("concat_operator", a, b)
        case 4:
            return build.call("concat", a, b, draw(leaf(["i32", "d72", "b"])))
        case 5:
            return build.call(draw(st.sampled_from(["coalesce", "nullif", "greatest"])), a, b)
        case 6:
            return build.case([(draw(conditions(depth - 1)), a)], draw(st.sampled_from([b, None])))
        case _:
            return build.cast(draw(leaf(["i8", "i64", "d72", "hg", "d382", "b"])), pa.string())


INTERVALS = [(1, 0, 0), (-13, 5, 0), (0, 30, 0), (0, -90, 3_000_000), (0, 0, -5_000_000_000)]


@st.composite
def moments(draw: st.DrawFn, depth: int) -> Expr:
    if depth == 0:
        return draw(leaf(["dt", "ts"], constants=False))
    a = draw(moments(depth - 1))
    match draw(st.integers(0, 4)):
        case 0:
            return build.call(draw(st.sampled_from(["add", "subtract"])), col("dt"), build.lit(30))
        case 1:
            months, days, nanoseconds = draw(st.sampled_from(INTERVALS))
            span = Lit(pa.month_day_nano_interval(), (months, days, nanoseconds))
            return build.call(draw(st.sampled_from(["add", "subtract"])), a, span)
        case 2:
            units = ["year", "quarter", "month", "week", "day"]
            return build.call("date_trunc", build.lit(draw(st.sampled_from(units))), a)
        case 3:
            return build.cast(a, draw(st.sampled_from([pa.date32(), pa.timestamp("us")])))
        case _:
            return build.call("coalesce", a, draw(moments(depth - 1)))


PARTS = ["year", "quarter", "month", "week", "day", "day_of_week", "iso_day_of_week", "day_of_year"]
PATTERNS = ["a%", "%b", "%a%", "a_b", "%", "", "a", "a%b", "_", "a!%%", "%.c", "%o x", "__", "a!!"]


@st.composite
def conditions(draw: st.DrawFn, depth: int) -> Expr:
    if depth == 0:
        return draw(leaf(["b"], constants=False))
    lower_ = draw(st.integers(0, depth - 1))
    match draw(st.integers(0, 8)):
        case 0 | 1:
            pair = draw(st.sampled_from([numbers, texts, moments]))
            name = draw(st.sampled_from(COMPARE))
            kinds = {"numbers": NUMBERS, "texts": ["s"], "moments": ["dt", "ts"]}
            other = draw(st.one_of(pair(0), leaf(kinds[pair.__name__])))
            sides = draw(st.permutations([draw(pair(lower_)), other]))
            return build.call(name, *sides)
        case 2:
            name = draw(st.sampled_from(["and", "or"]))
            return build.call(name, draw(conditions(lower_)), draw(conditions(0)))
        case 3:
            return build.call("not", draw(conditions(lower_)))
        case 4:
            kind = draw(st.sampled_from([*NUMBERS, "s", "dt", "ts", "b"]))
            some = st.none() | values(TYPES[kind])
            options = draw(st.lists(some, min_size=1, max_size=3))
            other = TYPES[draw(st.sampled_from([kind, "i64"]))] if kind == "i8" else TYPES[kind]
            listed = [Lit(canonical(other if v in (0, 1) else TYPES[kind]), v) for v in options]
            return build.in_list(col(kind), listed)
        case 5:
            pattern = draw(st.sampled_from(PATTERNS))
            escape = [build.lit("!")] if "!" in pattern else []
            return build.call("like", draw(texts(lower_)), build.lit(pattern), *escape)
        case 6:
            name = draw(st.sampled_from(["starts_with", "ends_with", "contains"]))
            return build.call(name, draw(texts(lower_)), draw(leaf(["s"])))
        case 7:
            name = draw(st.sampled_from(["is_null", "is_not_null"]))
            return build.call(name, draw(numbers(lower_)))
        case _:
            return build.call(
                "greater", build.call(draw(st.sampled_from(PARTS)), col("dt")), Lit(pa.int32(), 3)
            )


LONG = pytest.mark.parametrize(
    "long", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "many"]
)


def examples(count: int, *, long: bool) -> Any:
    """As many examples, the same in every run; in the long tests ten times as many new ones."""
    return settings(max_examples=10 * count if long else count, deadline=None, derandomize=not long)


@st.composite
def expressions(draw: st.DrawFn) -> Expr:
    kind = draw(st.sampled_from([numbers, numbers, texts, moments, conditions]))
    try:
        found = draw(kind(draw(st.integers(1, 3))))
    except PlanError:
        return draw(leaf(NUMBERS))
    part = draw(st.sampled_from([None, None, *PARTS]))
    if part is not None and pa.types.is_temporal(found.type):
        return build.call(part, found)
    return found


@LONG
def test_random_expressions(kernel: Kernel, plain: Kernel, long: bool) -> None:
    @examples(300, long=long)
    @given(st.data(), expressions())
    def check(drawn: st.DataObject, expr: Expr) -> None:
        try:
            text = writer().write(expr)
        except UnsupportedPlan as reason:
            note(str(reason))
            return
        data = drawn.draw(tables(set(columns_used(expr))))
        lazy = frame(data).with_columns(found=source(text)).select("found")
        plan = build.project(scan(data), [expr])
        theirs, mine = asked(kernel, plan, data), collected(lazy, [expr.type])
        if not alike(mine, theirs):
            # DuckDB 1.5.5's rewriting of expressions is wrong at times: it adds the constants of
            # k + (-1) + (-2147483648) though k is NULL, and makes comparisons of date_trunc with a
            # constant false where its argument is NULL. As they were written it computes them well.
            theirs = asked(plain, plan, data)
        assert alike(mine, theirs), theirs

    check()


# Random aggregates


DEVIATIONS = ["stddev_samp", "stddev_pop", "var_samp", "var_pop"]


@st.composite
def aggregates(draw: st.DrawFn) -> Aggregate:
    function = draw(
        st.sampled_from(
            ["count", "sum", "sum", "avg", "min", "max", draw(st.sampled_from(DEVIATIONS))]
        )
    )
    kept = draw(st.one_of(st.none(), conditions(1)))
    if function == "count" and draw(st.booleans()):
        return build.aggregate("count", filter=kept)
    names = NUMBERS if function not in ("count", "min", "max") else list(TYPES)
    if function in DEVIATIONS:
        names = ["k", "i8", "u8", "i32", "d72"]
    columns = leaf(names, constants=False)
    arg = draw(st.one_of(columns, numbers(1) if function == "sum" else columns))
    distinct = draw(st.booleans()) and function in ("count", "sum", "min", "max")
    return build.aggregate(function, arg, distinct=distinct, filter=kept)


def ordered(rows: Rows) -> Rows:
    """Groups in the order of their keys, which are None, 0 and 1."""
    return sorted(rows, key=lambda r: -1 if r[0] is None else r[0]) if type(rows) is list else rows


@LONG
def test_random_aggregates(kernel: Kernel, long: bool) -> None:
    @examples(300, long=long)
    @given(st.data(), aggregates(), st.booleans())
    def check(drawn: st.DataObject, measure: Aggregate, grouped: bool) -> None:
        try:
            text = writer().aggregate(measure, grouped=grouped)
        except UnsupportedPlan as reason:
            note(str(reason))
            return
        keys = [col("k")] if grouped else []
        parts = [*keys, *measure.args, *([measure.filter] if measure.filter is not None else [])]
        data = drawn.draw(tables({i for part in parts for i in columns_used(part)}))
        theirs = asked(kernel, build.aggregation(scan(data), keys, [measure]), data)
        lazy = frame(data)
        found = source(text).alias("found")
        lazy = lazy.group_by("k").agg(found) if grouped else lazy.select(found)
        mine = collected(lazy, [*(k.type for k in keys), measure.type])
        if grouped:
            mine, theirs = ordered(mine), ordered(theirs)
        if measure.function == "avg" and theirs is None:
            return  # HUGEINT cannot hold the sum
        if measure.function == "sum" and mine is None and isinstance(measure.args[0], Call):
            return  # DuckDB adds constants once for all rows, and is asked where Polars raises
        tolerance = _tolerance(measure.function, measure.type)
        absolute = 0.0
        if measure.function == "sum" and tolerance:
            # What is left where large terms cancel is no more exact than they are.
            total = asked(kernel, build.aggregation(scan(data), [], [magnitudes(measure)]), data)
            absolute = tolerance * (total[0][0] or 0.0) if type(total) is list else 0.0
        assert alike(mine, theirs, tolerance, absolute), theirs

    check()


def magnitudes(measure: Aggregate) -> Aggregate:
    """The sum of what a sum adds, without its signs."""
    return build.aggregate("sum", build.call("abs", *measure.args), filter=measure.filter)


def _tolerance(function: str, type: pa.DataType) -> float:
    """How far sums of floats may be apart: they add in different orders."""
    return 1e-12 if pa.types.is_floating(type) and function not in ("min", "max") else 0.0


# Random windows


@st.composite
def keys(draw: st.DrawFn, least: int) -> list[SortKey]:
    names = draw(
        st.lists(st.sampled_from([n for n in TYPES if n != "b"]), min_size=least, max_size=2)
    )
    return [
        build.sort_key(col(n), descending=draw(st.booleans()), nulls_first=draw(st.booleans()))
        for n in names
    ]


Frame = tuple[Literal["rows", "range"], FrameBound, FrameBound]
WHOLE: Frame = ("rows", FrameBound("unbounded"), FrameBound("unbounded"))
RUNNING: Frame = ("rows", FrameBound("unbounded"), FrameBound("current"))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    function = draw(
        st.sampled_from(
            ["rank", "dense_rank", "row_number", "lag", "lead", "sum", "avg", "count", "min", "max"]
        )
    )
    parts = [col(n) for n in draw(st.lists(st.sampled_from(["k", "b", "s", "f"]), max_size=2))]
    if function in ("rank", "dense_rank"):
        return build.window(function, partition_by=parts, order_by=draw(keys(1)))
    # Rows that tie come in any order: the last key is unique.
    order = [
        *draw(keys(0)),
        build.sort_key(build.col(NUMBERED, "n"), descending=draw(st.booleans())),
    ]
    if function == "row_number":
        return build.window(function, partition_by=parts, order_by=order)
    arg = draw(leaf([n for n in NUMBERS if n != "f"] + ["f"], constants=False))
    if function in ("lag", "lead"):
        args = [arg, *draw(st.sampled_from([[], [build.lit(2)], [build.lit(0)]]))]
        return build.window(function, *args, partition_by=parts, order_by=order)
    args = [arg] if function != "count" or draw(st.booleans()) else []
    if draw(st.booleans()):
        return build.window(function, *args, partition_by=parts, order_by=order, frame=RUNNING)
    order = order if draw(st.booleans()) else []
    frame_ = WHOLE if order else draw(st.sampled_from([None, WHOLE]))
    return build.window(function, *args, partition_by=parts, order_by=order, frame=frame_)


NUMBERED = Schema.from_arrow(pa.schema([*TYPES.items(), ("n", pa.int64())]))


@LONG
def test_random_windows(kernel: Kernel, long: bool) -> None:
    @examples(300, long=long)
    @given(st.data(), windows(), st.booleans())
    def check(drawn: st.DataObject, window: Window, knows_nulls: bool) -> None:
        data = drawn.draw(tables(set(columns_used(window))))
        data = data.append_column("n", pa.array(range(len(data)), pa.int64()))
        nullable = [c.null_count > 0 for c in data.columns] if knows_nulls else None
        try:
            text = Writer(NUMBERED.names, NUMBERED.types, nullable).window(window)
        except UnsupportedPlan as reason:
            note(str(reason))
            return
        plan = build.project(scan(data), [build.col(NUMBERED, "n"), window])
        theirs = asked(kernel, build.sort(plan, [build.sort_key(build.col(plan.schema, 0))]), data)
        lazy = frame(data).with_columns(found=source(text)).select("n", "found").sort("n")
        if window.function == "avg" and theirs is None:
            return  # HUGEINT cannot hold the sum
        if window.function == "sum" and theirs is None and window.args[0].type in (HUGEINT, D382):
            return  # nor one of those in DuckDB's tree of sums, though it may hold all of them
        tolerance = _tolerance(window.function, window.type)
        if window.function in ("lag", "lead"):
            tolerance = 0.0
        assert alike(collected(lazy, [pa.int64(), window.type]), theirs, tolerance), theirs

    check()


# What random ones would rarely hit


def written(expr: Expr) -> str:
    return writer().write(expr)


def call(name: str, *args: Any) -> Expr:
    return build.call(name, *(a if isinstance(a, Expr) else build.lit(a) for a in args))


@pytest.mark.parametrize(
    ("expr", "right"),
    [
        (call("add", call("add", col("k"), -1), Lit(pa.int32(), -(2**31))), None),
        (
            call("equal", call("date_trunc", "year", col("dt")), datetime.date(1960, 2, 29)),
            None,
        ),
    ],
)
def test_duckdb_rewrites_some_wrongly(
    kernel: Kernel, plain: Kernel, expr: Expr, right: object
) -> None:
    """As long as it does, `test_random_expressions` has to forgive it."""
    data = pa.Table.from_pylist([dict.fromkeys(TYPES)], pa.schema([*TYPES.items()]))
    plan = build.project(scan(data), [expr])
    mine = collected(
        frame(data).with_columns(found=source(writer().write(expr))).select("found"), [expr.type]
    )
    assert mine == asked(plain, plan, data) == [(right,)]
    assert asked(kernel, plan, data) != [(right,)]


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (call("equal", col("i32"), 2000), 'pl.col("i32") == 2000'),
        (
            call(
                "and", call("less", col("i32"), 3), call("or", col("b"), call("is_null", col("s")))
            ),
            '(pl.col("i32") < 3) & (pl.col("b") | pl.col("s").is_null())',
        ),
        (call("not", call("equal", col("s"), 'a"b')), '~(pl.col("s") == "a\\"b")'),
        (call("multiply", col("d72"), col("i32")), '(pl.col("d72") * pl.col("i32"))'),
        (
            call("multiply", col("d72"), col("d94")),
            '(pl.col("d72").cast(pl.Decimal(38, 6)) * pl.col("d94"))',
        ),
        (
            call("add", col("i32"), col("i32")),
            '(pl.col("i32").cast(pl.Int64) + pl.col("i32")).cast(pl.Int32)',
        ),
        (call("coalesce", col("i32"), 0), 'pl.col("i32").fill_null(0)'),
        (
            build.case([(col("b"), col("i32"))], build.lit(0)),
            'pl.when(pl.col("b")).then(pl.col("i32")).otherwise(0)',
        ),
        (
            build.in_list(col("i32"), [build.lit(1), build.lit(2)]),
            'pl.col("i32").is_in([1, 2])',
        ),
        (call("like", col("s"), "Unknown%"), 'pl.col("s").str.starts_with("Unknown")'),
        (
            call("greater_equal", col("dt"), datetime.date(2000, 1, 1)),
            'pl.col("dt") >= date(2000, 1, 1)',
        ),
        (call("greater", col("d72"), Decimal("1.50")), 'pl.col("d72") > Decimal("1.50")'),
    ],
)
def test_texts_read_as_a_person_writes_them(expr: Expr, text: str) -> None:
    found = written(expr)
    assert found == text or found.startswith(f"{text}.cast(pl.Decimal(")


@pytest.mark.parametrize(
    "expr",
    [
        call("like", col("s"), col("s")),
        call("ilike", col("s"), "a%"),
        call("sqrt", col("f")),
        call("greatest", col("f"), 1.0),
        call("modulo", col("d72"), 2),
        call("shift_left", col("i32"), 2),
        build.cast(col("s"), pa.int32()),
        build.cast(col("f"), decimal(7, 2)),
        build.cast(col("dt"), pa.string()),
        call("subtract", col("ts"), col("ts")),
        call("negate", col("u8")),
        build.exists(build.scan(InputSource("t"), pa.schema(list(TYPES.items())))),
    ],
)
def test_what_would_differ_is_refused(expr: Expr) -> None:
    with pytest.raises(UnsupportedPlan):
        writer().write(expr)


def test_frames_up_to_the_peers_are_refused() -> None:
    for frame_ in (None, ("range", FrameBound("unbounded"), FrameBound("current"))):
        order = [build.sort_key(col("i32"))]
        window = build.window("sum", col("d72"), order_by=order, frame=frame_)
        with pytest.raises(UnsupportedPlan, match="frame of sum"):
            writer().window(window)


def test_intervals_have_no_type() -> None:
    with pytest.raises(UnsupportedPlan, match="interval"):
        polars_type(pa.month_day_nano_interval())


def test_letters_beyond_ascii_are_left_to_duckdb(kernel: Kernel) -> None:
    for words, raises in ((["aBc", None, "", "z1"], False), (["abc", "straße"], True)):
        data = pa.table({"s": pa.array(words, pa.string())})
        for name in ("upper", "lower"):
            scan_ = scan(data)
            expr = build.call(name, build.col(scan_.schema, 0))
            text = Writer(("s",), (pa.string(),)).write(expr)
            found = collected(frame(data).select(source(text)), [pa.string()])
            if raises:
                assert found is None
            else:
                assert alike(found, asked(kernel, build.project(scan_, [expr]), data))


def test_nothing_is_computed_beside_a_null(kernel: Kernel) -> None:
    """DuckDB finds the NULL below the sum, and leaves the rounding out, which would overflow."""
    cell = Decimal("999999999999999.999")
    data = pa.table({"d": pa.array([cell], decimal(18, 3))})
    scan_ = scan(data)
    d = build.col(scan_.schema, 0)
    nothing = build.call("add", d, Lit(decimal(18, 3), None))
    expr = build.call("add", build.call("round", d, Lit(pa.int32(), 0)), nothing)
    text = Writer(scan_.schema.names, scan_.schema.types).write(expr)
    mine = collected(frame(data).select(source(text)), [expr.type])
    assert mine is not None
    assert alike(mine, asked(kernel, build.project(scan_, [expr]), data))


def test_a_division_by_what_is_the_same_in_all_rows_is_one(kernel: Kernel) -> None:
    """Polars would multiply with the reciprocal, which is off by a bit in every fourth row."""
    numbers_ = [n * 1.0037 for n in range(1, 1001)]
    data = pa.table({"x": numbers_, "seven": [7.0] * 1000})
    scan_ = scan(data)
    x, seven = build.col(scan_.schema, 0), build.col(scan_.schema, 1)
    always = build.case([(build.call("is_not_null", x), build.lit(41.0))], build.lit(3.0))
    for divisor in (build.lit(41.0), build.lit(7), always, seven):
        expr = build.call("divide", x, divisor)
        text = Writer(scan_.schema.names, scan_.schema.types, constant=[False, True]).write(expr)
        lazy = frame(data).with_columns(seven=pl.lit(7.0)).select(source(text))
        theirs = asked(kernel, build.project(scan_, [expr]), data)
        assert alike(collected(lazy, [pa.float64()]), theirs), text


def test_a_mean_of_decimals_is_rounded_once(kernel: Kernel) -> None:
    values_ = [Decimal(n * n % 99_991).scaleb(-2) for n in range(20_000)]
    data = pa.table({"k": [n % 5000 for n in range(20_000)], "d": pa.array(values_, decimal(7, 2))})
    scan_ = scan(data)
    mean = build.aggregate("avg", build.col(scan_.schema, 1))
    plan = build.aggregation(scan_, [build.col(scan_.schema, 0)], [mean])
    text = Writer(scan_.schema.names, scan_.schema.types).aggregate(mean, grouped=True)
    lazy = frame(data).group_by("k").agg(source(text).alias("found"))
    mine = ordered(collected(lazy, [pa.int64(), pa.float64()]))
    assert alike(mine, ordered(asked(kernel, plan, data)))


@pytest.mark.parametrize("grouped", [False, True])
def test_a_mean_of_integers_is_that_of_their_exact_sum(kernel: Kernel, grouped: bool) -> None:
    cells = [2**63 - 1, -(2**63) + 7_000_000_000_028, None]
    data = pa.table({"k": [1, 1, 2], "x": pa.array(cells, pa.int64())})
    scan_ = scan(data)
    mean = build.aggregate("avg", build.col(scan_.schema, 1))
    text = Writer(scan_.schema.names, scan_.schema.types).aggregate(mean, grouped=grouped)
    found = source(text).alias("found")
    lazy = frame(data).group_by("k").agg(found) if grouped else frame(data).select(found)
    keys = [build.col(scan_.schema, 0)] if grouped else []
    mine = ordered(collected(lazy, [*(k.type for k in keys), pa.float64()]))
    assert mine == ordered(asked(kernel, build.aggregation(scan_, keys, [mean]), data))
    assert mine[0][-1] == 3_500_000_000_013.5


def test_deviations_of_floats_raise_as_duckdbs(kernel: Kernel) -> None:
    for cells in (
        [1.0, 2.5, None],
        [1.0],
        [None],
        [1.0, math.nan],
        [math.inf, 1.0],
        [1e300, -1e300],
    ):
        data = pa.table({"x": pa.array(cells, pa.float64())})
        scan_ = scan(data)
        for name in DEVIATIONS:
            measure = build.aggregate(name, build.col(scan_.schema, 0))
            text = Writer(("x",), (pa.float64(),)).aggregate(measure)
            found = collected(frame(data).select(source(text)), [pa.float64()])
            theirs = asked(kernel, build.aggregation(scan_, [], [measure]), data)
            assert alike(found, theirs, 1e-12), (cells, name)


def test_a_branch_is_computed_for_its_rows_only() -> None:
    """CASE guards what would raise; this finds out if Polars' stops doing so."""
    data = pa.table({"x": pa.array([1, 2**40], pa.int64())})
    scan_ = scan(data)
    x = build.col(scan_.schema, 0)
    small = build.call("less", x, build.lit(5))
    guarded = build.case([(small, build.cast(x, pa.int32()))], build.lit(0))
    text = Writer(("x",), (pa.int64(),)).write(guarded)
    assert collected(frame(data).select(source(text)), [pa.int32()]) == [(1,), (0,)]


def test_a_column_whose_name_is_a_pattern_is_refused() -> None:
    for name in ("*", "^a.*$"):
        with pytest.raises(UnsupportedPlan, match="pattern"):
            Writer((name,), (pa.int32(),)).write(
                build.col(Schema.from_arrow(pa.schema([(name, pa.int32())])), 0)
            )


@LONG
def test_random_orders(kernel: Kernel, long: bool) -> None:
    @examples(50, long=long)
    @given(st.data(), keys(1))
    def check(drawn: st.DataObject, order: list[SortKey]) -> None:
        data = drawn.draw(tables({i for key in order for i in columns_used(key)}))
        data = data.append_column("n", pa.array(range(len(data)), pa.int64()))
        by = Writer(NUMBERED.names, NUMBERED.types).sort(
            [*order, build.sort_key(build.col(NUMBERED, "n"))]
        )
        lazy = frame(data).sort(
            [source(k) for k in by.keys], descending=by.descending, nulls_last=by.nulls_last
        )
        last = build.sort_key(build.col(NUMBERED, "n"))
        theirs = asked(kernel, build.sort(scan(data), [*order, last]), data)
        assert alike(collected(lazy, data.schema.types), theirs)

    check()
