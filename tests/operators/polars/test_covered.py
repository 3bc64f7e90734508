"""Whatever is asked of it, the lowering to Polars writes a text or says what is not covered."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from operators import build
from operators.errors import PlanError, UnsupportedPlan
from operators.expr import Aggregate, Expr, Lit, SortKey, Window
from operators.functions import FUNCTIONS, Function
from operators.polars.expressions import Writer
from operators.schema import Schema
from operators.types import FLOAT64, HUGEINT, INTERVAL, TIMESTAMP, decimal

# Of each type two constants, of which some are odd: beyond what Python can hold, or no number.
CONSTANTS: dict[pa.DataType, tuple[Any, ...]] = {
    pa.bool_(): (True, None),
    pa.int8(): (-128, 3),
    pa.int32(): (2, -(2**31)),
    pa.int64(): (2**63 - 1, 0),
    pa.uint64(): (2**64 - 1, 1),
    HUGEINT: (10**38 - 1, 7),
    decimal(9, 4): (Decimal("1.2345"), None),
    decimal(38, 10): (Decimal("-1.5"), Decimal(0)),
    pa.float32(): (float("nan"), 1.5),
    FLOAT64: (float("inf"), float("-inf"), float("nan"), 1e308),
    pa.string(): ("", "day", "2000-02-30", "year", "x%"),
    pa.binary(): (b"\x00", b"a"),
    pa.date32(): (datetime.date(2000, 1, 31), 2**30),
    pa.time64("us"): (datetime.time(1, 2, 3), None),
    TIMESTAMP: (datetime.datetime(1969, 12, 31, 1), 2**62),
    INTERVAL: ((1, 2, 3000), None),
}
NAMES = [f"c{i}" for i in range(len(CONSTANTS))]
SCHEMA = Schema.from_arrow(pa.schema(list(zip(NAMES, CONSTANTS, strict=True))))
SCALARS = [f for f in FUNCTIONS.values() if f.kind == "scalar"]
OTHERS = [f for f in FUNCTIONS.values() if f.kind != "scalar"]
MOST = 3


def constant(type: pa.DataType) -> st.SearchStrategy[Expr]:
    return st.sampled_from(CONSTANTS[type]).map(lambda v: Lit(type, v))


LEAVES = st.one_of(
    st.sampled_from(NAMES).map(lambda n: build.col(SCHEMA, n)),
    st.sampled_from(list(CONSTANTS)).flatmap(constant),
)


def arguments(function: Function, terms: st.SearchStrategy[Expr]) -> st.SearchStrategy[list[Expr]]:
    most = MOST if function.most is None else min(function.most, MOST)
    return st.lists(terms, min_size=min(function.least, MOST), max_size=max(most, function.least))


@st.composite
def terms(draw: st.DrawFn, inner: st.SearchStrategy[Expr]) -> Expr:
    """A term that is well typed; what is not is one of its parts instead."""
    part = draw(inner)
    try:
        match draw(st.integers(0, 6)):
            case 0:
                return build.cast(part, draw(st.sampled_from(list(CONSTANTS))))
            case 1:
                return build.case([(draw(inner), part)], draw(st.none() | inner))
            case 2:
                return build.in_list(part, draw(st.lists(inner, min_size=1, max_size=3)))
        function = draw(st.sampled_from(SCALARS))
        return build.call(function.name, *draw(arguments(function, inner)))
    except PlanError:
        return part


EXPRESSIONS = terms(st.one_of(LEAVES, LEAVES, terms(LEAVES)))


def written(write: Any, *given: Any) -> bool:
    """Whether a text is written; it is refused otherwise, and nothing else."""
    try:
        text = write(*given)
    except UnsupportedPlan:
        return False
    compile(text, "<term>", "eval")
    return True


@settings(max_examples=1500, deadline=None)
@given(expr=EXPRESSIONS)
def test_expressions(expr: Expr) -> None:
    note(repr(expr))
    written(Writer(SCHEMA.names, SCHEMA.types).write, expr)


@settings(max_examples=700, deadline=None)
@given(
    function=st.sampled_from(OTHERS),
    data=st.data(),
    distinct=st.booleans(),
    condition=st.none() | EXPRESSIONS,
    keys=st.lists(LEAVES, max_size=2),
)
def test_aggregates_and_windows(
    function: Function, data: st.DataObject, distinct: bool, condition: Expr | None, keys: Any
) -> None:
    args = tuple(data.draw(arguments(function, st.one_of(LEAVES, EXPRESSIONS))))
    try:
        type = function.result(args)
    except PlanError:
        return
    writer = Writer(SCHEMA.names, SCHEMA.types)
    order = tuple(SortKey(k, False, False) for k in keys)
    window = Window(type, function.name, args, tuple(keys[:1]), order, None)
    note(repr(window))
    written(writer.window, window)
    if function.kind == "aggregate":
        written(writer.aggregate, Aggregate(type, function.name, args, distinct, condition, ()))


def column(type: pa.DataType) -> Expr:
    return build.col(SCHEMA, NAMES[list(CONSTANTS).index(type)])


@pytest.mark.parametrize("type", [pa.date32(), TIMESTAMP, pa.time64("us"), INTERVAL])
def test_averages_of_times_are_not_covered(type: pa.DataType) -> None:
    """Polars rounds them down, DuckDB to the nearest microsecond."""
    writer = Writer(SCHEMA.names, SCHEMA.types)
    result = TIMESTAMP if pa.types.is_date(type) else type
    assert not written(writer.aggregate, Aggregate(result, "avg", (column(type),)))
    assert not written(writer.window, Window(result, "avg", (column(type),)))


def test_what_is_between_two_timestamps_is_not_covered() -> None:
    since = Lit(TIMESTAMP, datetime.datetime(1970, 1, 1))
    difference = build.call("subtract", column(TIMESTAMP), since)
    assert not written(Writer(SCHEMA.names, SCHEMA.types).write, difference)


@pytest.mark.parametrize("text", ["2000-02-30", "0000-01-01"])
def test_what_is_no_date_to_python_is_not_covered(text: str) -> None:
    wanted = build.cast(Lit(pa.string(), text), pa.date32())
    assert not written(Writer(SCHEMA.names, SCHEMA.types).write, wanted)


def test_ranks_without_order_are_one() -> None:
    rank = Window(pa.int64(), "rank", ())
    assert written(Writer(SCHEMA.names, SCHEMA.types).window, rank)


def test_conditions_of_very_many_terms_are_not_covered() -> None:
    writer = Writer(SCHEMA.names, SCHEMA.types)
    terms = [build.call("less", column(pa.int32()), build.lit(i)) for i in range(900)]
    for name in ("and", "or"):
        assert written(writer.write, build.call(name, *terms[:300]))
        assert not written(writer.write, build.call(name, *terms))
