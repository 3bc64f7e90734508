"""Comparisons that follow from disjunctions."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from operators import build
from operators.expr import Call, Column, Expr, Lit
from operators.implied import implied_bounds
from operators.schema import Schema
from operators.types import BOOL

SCHEMA = Schema.from_arrow(
    pa.schema([("n", pa.int64()), ("d", pa.decimal128(9, 2)), ("t", pa.date32())])
)
OPERATORS = {
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}


def value(number: int, column: int) -> Any:
    """One of few values of a column's type, in the order of the numbers."""
    if column == 2:
        return datetime.date(2000, 1, 1) + datetime.timedelta(number)
    return Decimal(number) / 2 if column == 1 else number


def compare(name: str, column: int, number: int) -> Expr:
    literal = Lit(SCHEMA[column].type, value(number, column))
    return Call(BOOL, name, (build.col(SCHEMA, column), literal))


def holds(expr: Expr, row: Mapping[int, Any]) -> bool | None:
    """Whether a condition is true, as SQL says it; None is unknown."""
    assert isinstance(expr, Call)
    if expr.function in ("and", "or"):
        found = [holds(arg, row) for arg in expr.args]
        decisive = expr.function == "or"
        return decisive if decisive in found else None if None in found else not decisive
    column, literal = expr.args
    assert isinstance(column, Column)
    assert isinstance(literal, Lit)
    left = row[column.index]
    return None if left is None else OPERATORS[expr.function](left, literal.value)


comparisons = st.builds(
    compare, st.sampled_from(sorted(OPERATORS)), st.integers(0, 2), st.integers(-3, 3)
)
conditions = st.recursive(
    comparisons,
    lambda below: st.builds(
        lambda name, args: Call(BOOL, name, tuple(args)),
        st.sampled_from(["and", "or"]),
        st.lists(below, min_size=2, max_size=4),
    ),
    max_leaves=20,
)
rows = st.fixed_dictionaries(
    {
        c: st.none() | st.integers(-4, 4).map(lambda n, c=c: value(n, c))  # type: ignore[misc]
        for c in range(3)
    }
)


@given(st.lists(conditions, min_size=1, max_size=3), st.lists(rows, max_size=20))
def test_what_is_implied_holds_for_every_row_that_is_kept(
    terms: list[Expr], data: list[Mapping[int, Any]]
) -> None:
    implied = list(implied_bounds(terms))
    assert len(set(implied)) == len(implied)
    for row in data:
        if all(holds(t, row) for t in terms):
            assert all(holds(i, row) for i in implied)


def either(*branches: list[Expr]) -> Expr:
    return Call(BOOL, "or", tuple(Call(BOOL, "and", tuple(b)) for b in branches))


def test_the_loosest_of_the_branches_tightest_bounds() -> None:
    first = [compare("greater_equal", 0, 0), compare("greater", 0, 1), compare("less", 0, 5)]
    second = [compare("equal", 0, 7), compare("less", 1, 9)]
    third = [compare("greater_equal", 0, 3), compare("less_equal", 0, 6), compare("equal", 2, 1)]
    assert list(implied_bounds([either(first, second, third)])) == [
        compare("greater", 0, 1),
        compare("less_equal", 0, 7),
    ]


def test_nothing_follows_where_a_branch_says_nothing_of_a_column() -> None:
    bounded = [compare("greater", 0, 0), compare("less", 0, 5), compare("less", 1, 5)]
    free = [compare("greater", 2, 0), compare("less", 2, 5), compare("not_equal", 0, 5)]
    assert list(implied_bounds([either(bounded, bounded, free)])) == []


def test_few_comparisons_and_what_stands_there_already_are_left_alone() -> None:
    one = either([compare("greater", 0, 1)], [compare("greater", 0, 2)])
    assert list(implied_bounds([one])) == []
    many = either(*([compare("greater", 0, n), compare("less", 1, n)] for n in range(3)))
    assert list(implied_bounds([many])) == [compare("greater", 0, 0), compare("less", 1, 2)]
    assert list(implied_bounds([many, compare("less", 1, 2)])) == [compare("greater", 0, 0)]


def test_floats_have_no_bounds() -> None:
    # NaN is greater than all numbers in DuckDB.
    schema = Schema.from_arrow(pa.schema([("f", pa.float64())]))
    terms = [
        [Call(BOOL, "greater", (build.col(schema, 0), Lit(pa.float64(), float(n))))] * 3
        for n in range(3)
    ]
    assert list(implied_bounds([either(*terms)])) == []
