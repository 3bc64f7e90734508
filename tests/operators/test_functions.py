"""Every result type in the vocabulary is the one that DuckDB itself gives."""

from __future__ import annotations

import itertools

import duckdb
import pyarrow as pa
import pytest

from operators import build
from operators.duckdb.expressions import Writer
from operators.duckdb.sqltypes import sql_type
from operators.errors import PlanError
from operators.expr import Column, Expr, Lit
from operators.functions import AGGREGATES, SCALARS, WINDOWS, scalar_type
from operators.schema import Field, Schema
from operators.types import HUGEINT, INTERVAL, common_type, decimal

INTEGERS = {"i8": pa.int8(), "i16": pa.int16(), "i32": pa.int32(), "i64": pa.int64(), "hg": HUGEINT}
UNSIGNED = {"u8": pa.uint8(), "u16": pa.uint16(), "u32": pa.uint32(), "u64": pa.uint64()}
DECIMALS = {
    "d40": decimal(4, 0),
    "d72": decimal(7, 2),
    "d152": decimal(15, 2),
    "d173": decimal(17, 3),
    "d185": decimal(18, 5),
    "d1810": decimal(18, 10),
    "d302": decimal(30, 2),
    "d382": decimal(38, 2),
    "d3810": decimal(38, 10),
}
FLOATS = {"f": pa.float32(), "d": pa.float64()}
OTHERS = {
    "b": pa.bool_(),
    "s": pa.string(),
    "dt": pa.date32(),
    "ts": pa.timestamp("us"),
    "iv": INTERVAL,
}
TYPES = {**INTEGERS, **UNSIGNED, **DECIMALS, **FLOATS, **OTHERS}
SCHEMA = Schema(tuple(Field(n, t) for n, t in TYPES.items()))
NUMBERS = [*INTEGERS, *DECIMALS, *FLOATS]


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t ({', '.join(f'{n} {sql_type(t)}' for n, t in TYPES.items())})")
        yield con


def col(name: str) -> Column:
    return build.col(SCHEMA, name)


def duckdb_types(con, texts: list[str]) -> list[str]:
    rows = con.execute(f"DESCRIBE SELECT {', '.join(texts)} FROM t").fetchall()
    return [row[1] for row in rows]


def check(con, exprs: list[Expr]) -> None:
    writer = Writer([f"t.{n}" for n in TYPES], lambda rel: "")
    texts = [writer.write(e) for e in exprs]
    expected = [sql_type(e.type) for e in exprs]
    names = [f"({t}) AS c{i}" for i, t in enumerate(texts)]
    found = duckdb_types(con, names)
    wrong = [(t, e, f) for t, e, f in zip(texts, expected, found, strict=True) if e != f]
    assert not wrong


@pytest.mark.parametrize(
    "function",
    [
        *("add", "subtract", "multiply", "divide", "integer_divide", "modulo", "power"),
        *("log", "atan2"),
    ],
)
def test_arithmetic(connection, function: str) -> None:
    exprs = []
    for a, b in itertools.product(NUMBERS, NUMBERS):
        try:
            exprs.append(build.call(function, col(a), col(b)))
        except PlanError:
            pytest.fail(f"{function}({a}, {b})")
    check(connection, exprs)


@pytest.mark.parametrize("function", ["add", "subtract", "multiply", "modulo", "integer_divide"])
def test_signed_beside_unsigned(connection, function: str) -> None:
    pairs = itertools.product([*INTEGERS, *UNSIGNED], UNSIGNED)
    check(connection, [build.call(function, col(a), col(b)) for a, b in pairs])


@pytest.mark.parametrize(
    "function",
    [
        *("add", "subtract", "multiply", "integer_divide", "modulo", "bitwise_and", "bitwise_or"),
        *("bitwise_xor", "shift_left", "shift_right"),
    ],
)
def test_a_constant_beside_a_narrow_integer_keeps_its_type(connection, function: str) -> None:
    constants = [build.lit(v) for v in (2, -2, 300, 100_000, 1 << 40)]
    constants.append(build.call("negate", build.lit(2)))
    narrow = ["i8", "i16", "i32", "i64", "u8", "u16"]
    exprs = []
    for name, constant in itertools.product(narrow, constants):
        exprs += [build.call(function, col(name), constant)]
        exprs += [build.call(function, constant, col(name))]
    check(connection, exprs)


def test_a_product_of_too_many_places_is_refused_here_as_in_duckdb(connection) -> None:
    wide = Lit(decimal(38, 30), None)
    with pytest.raises(PlanError, match=r"multiply.*60 decimal places"):
        scalar_type("multiply", [wide, wide])
    with pytest.raises(duckdb.Error):
        connection.execute("SELECT x * x FROM (SELECT b::DECIMAL(38,30) AS x FROM t)")


@pytest.mark.parametrize(
    "function",
    [
        *("negate", "abs", "round", "ceil", "floor", "trunc", "sign", "sqrt", "exp", "ln"),
        *("log10", "log2", "cbrt", "sin", "cos", "tan", "asin", "acos", "atan"),
        *("degrees", "radians"),
    ],
)
def test_functions_of_one_number(connection, function: str) -> None:
    check(connection, [build.call(function, col(a)) for a in NUMBERS])


def test_kinds_of_floats(connection) -> None:
    names = [n for n in NUMBERS if n != "hg"]
    check(
        connection,
        [build.call(f, col(a)) for a in names for f in ("isnan", "isinf", "isfinite")],
    )


@pytest.mark.parametrize("places", [-1, 0, 1, 2, 5, 12])
def test_round_to_places(connection, places: int) -> None:
    exprs = [build.call("round", col(a), build.lit(places)) for a in NUMBERS]
    check(connection, exprs)


def test_case_and_coalesce_find_the_common_type(connection) -> None:
    exprs: list[Expr] = []
    for a, b in itertools.product([*NUMBERS, *UNSIGNED], repeat=2):
        exprs.append(build.call("coalesce", col(a), col(b)))
        exprs.append(build.case([(col("b"), col(a))], col(b)))
    check(connection, exprs)


def test_common_type_is_what_duckdb_chooses(connection) -> None:
    names = [*NUMBERS, *UNSIGNED, "b", "s", "dt", "ts"]
    for a, b in itertools.product(names, names):
        try:
            expected = sql_type(common_type(TYPES[a], TYPES[b]))
        except PlanError:
            expected = None
        try:
            (found,) = duckdb_types(connection, [f"CASE WHEN b THEN {a} ELSE {b} END AS x"])
        except duckdb.Error:
            found = None
        if found == "DECIMAL(38,0)":  # The IR's HUGEINT; the lowering casts.
            found = "HUGEINT"
        assert expected == found, (a, b)


def test_dates(connection) -> None:
    c = build.call
    check(
        connection,
        [
            c("add", col("dt"), col("iv")),
            c("add", col("iv"), col("dt")),
            c("add", col("ts"), col("iv")),
            c("add", col("dt"), col("i32")),
            c("subtract", col("dt"), col("iv")),
            c("subtract", col("dt"), col("dt")),
            c("subtract", col("ts"), col("ts")),
            c("subtract", col("dt"), col("i32")),
            *(c(f, col(x)) for x in ("dt", "ts") for f in ("year", "month", "day", "quarter")),
            *(c(f, col("dt")) for f in ("week", "day_of_week", "day_of_year")),
            *(c(f, col("ts")) for f in ("hour", "minute", "second")),
            c("date_trunc", build.lit("month"), col("dt")),
            c("date_trunc", build.lit("month"), col("ts")),
            c("date_diff", build.lit("day"), col("dt"), col("dt")),
            c("iso_day_of_week", col("dt")),
            c("microsecond", col("ts")),
            *(c(f, col(x)) for x in ("dt", "ts") for f in ("epoch_us", "last_day")),
            c("make_date", *(col(x) for x in ("i32", "i8", "i64"))),
            c("time_bucket", col("iv"), col("ts")),
            c("time_bucket", col("iv"), col("ts"), col("ts")),
            *(c("strftime", col(x), build.lit("%Y")) for x in ("dt", "ts")),
            *(c(f, col(x)) for x in ("dt", "ts") for f in ("day_name", "month_name", "epoch")),
            *(c(f"to_{u}", col("i32")) for u in ("years", "months", "weeks", "days")),
            *(c(f"to_{u}", col("i64")) for u in ("hours", "minutes", "seconds")),
            *(c(f, col("s"), build.lit("%Y")) for f in ("strptime", "try_strptime")),
        ],
    )


def test_strings_and_logic(connection) -> None:
    c, s, one = build.call, col("s"), build.lit(1)
    check(
        connection,
        [
            *(c(f, s) for f in ("upper", "lower", "trim", "ltrim", "rtrim", "length")),
            *(c(f, s, s) for f in ("strpos", "concat", "concat_operator", "like", "ilike")),
            *(c(f, s, s) for f in ("starts_with", "ends_with", "contains", "regexp_matches")),
            c("substring", s, one),
            c("substring", s, one, build.lit(2)),
            c("left", s, one),
            c("right", s, one),
            c("replace", s, s, s),
            c("regexp_replace", s, build.lit("a"), s),
            c("regexp_replace", s, build.lit("a"), s, build.lit("g")),
            c("regexp_extract", s, build.lit("a")),
            c("regexp_extract", s, build.lit("(a)"), one),
            c("reverse", s),
            c("repeat", s, one),
            c("lpad", s, one, s),
            c("rpad", s, one, s),
            c("byte_length", s),
            *(c(f, s) for f in ("ascii", "unicode", "md5", "sha256")),
            c("chr", col("i32")),
            c("translate", s, s, s),
            c("concat_ws", s, s, col("i32")),
            c("concat", s, col("i32"), col("dt")),
            c("like", s, build.lit("a!%"), build.lit("!")),
            c("and", col("b"), c("not", col("b")), c("or", col("b"), col("b"))),
            c("is_null", s),
            c("is_not_null", s),
            c("nullif", col("i32"), col("d72")),
            c("greatest", col("i32"), col("d72")),
            c("least", col("i8"), col("i64")),
            *(c(f, col("i32"), col("i64")) for f in ("bitwise_and", "bitwise_or", "bitwise_xor")),
            *(c(f, col("i32"), col("i32")) for f in ("shift_left", "shift_right")),
            c("equal", col("i32"), col("d72")),
            c("less", col("dt"), col("ts")),
            c("greater", col("dt"), build.lit("2000-01-01")),
            build.in_list(col("i32"), [build.lit(1), build.lit(2**40)]),
        ],
    )


def test_aggregates(connection) -> None:
    writer = Writer([f"t.{n}" for n in TYPES], lambda rel: "")
    numeric = {"sum", "avg", "median", "stddev_samp", "stddev_pop", "var_samp", "var_pop"}
    numeric |= {"product", "kurtosis", "skewness"}
    measures = [build.aggregate("count")]
    for name in AGGREGATES:
        if name in ("corr", "covar_samp", "covar_pop") or name.startswith("regr_"):
            measures += [build.aggregate(name, col(x), col(x)) for x in NUMBERS]
        elif name == "string_agg":
            measures.append(build.aggregate(name, col("s"), build.lit(",")))
        elif name in ("arg_max", "arg_min"):
            measures += [build.aggregate(name, col(x), col("s")) for x in TYPES if x != "iv"]
        elif name.startswith("bit_"):
            measures += [build.aggregate(name, col(x)) for x in [*INTEGERS, *UNSIGNED]]
        elif name in ("quantile_disc", "quantile_cont"):
            measures += [build.aggregate(name, col(x), build.lit(0.25)) for x in NUMBERS]
        elif name in ("bool_and", "bool_or"):
            measures.append(build.aggregate(name, col("b")))
        elif name in numeric:
            measures += [build.aggregate(name, col(x)) for x in NUMBERS]
        else:
            measures += [build.aggregate(name, col(x)) for x in TYPES]
    texts = [f"{writer.aggregate(m)} AS c{i}" for i, m in enumerate(measures)]
    found = duckdb_types(connection, texts)
    expected = [sql_type(m.type) for m in measures]
    wrong = [w for w in zip(texts, expected, found, strict=True) if w[1] != w[2]]
    assert not wrong


def test_windows(connection) -> None:
    writer = Writer([f"t.{n}" for n in TYPES], lambda rel: "")
    order = [build.sort_key(col("i32"))]
    exprs = []
    for name in WINDOWS:
        if name == "ntile":
            args: list[Expr] = [build.lit(3)]
        elif name == "nth_value":
            args = [col("d72"), build.lit(2)]
        elif name in ("lag", "lead", "first_value", "last_value"):
            args = [col("d72")]
        else:
            args = []
        exprs.append(build.window(name, *args, order_by=order, partition_by=[col("s")]))
    exprs += [build.window(a, col("d72"), order_by=order) for a in ("sum", "avg", "count", "min")]
    found = duckdb_types(connection, [f"{writer.write(e)} AS c{i}" for i, e in enumerate(exprs)])
    assert found == [sql_type(e.type) for e in exprs]


@pytest.mark.parametrize(
    ("function", "args"),
    [
        ("no_such", ()),
        ("add", ("i32",)),
        ("add", ("i32", "s")),
        ("add", ("dt", "dt")),
        ("and", ("i32", "b")),
        ("upper", ("i32",)),
        ("round", ("d72", "i32")),
        ("substring", ("i32", "i32")),
        ("year", ("s",)),
        ("coalesce", ("s", "i32")),
        ("bitwise_and", ("d72", "i32")),
        ("time_bucket", ("iv", "dt")),
        ("strftime", ("i32", "s")),
        ("regexp_extract", ("i32", "s")),
        ("lpad", ("s", "s", "s")),
    ],
)
def test_misuse_names_the_function(function: str, args: tuple[str, ...]) -> None:
    with pytest.raises(PlanError, match=function):
        build.call(function, *(col(a) for a in args))


def test_every_scalar_says_how_many_arguments_it_takes() -> None:
    for function in SCALARS.values():
        with pytest.raises(PlanError, match=function.name):
            function.result([])
