"""Codec, rewriting and estimates on their own."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators import build, rewrite
from operators.cardinality import estimate
from operators.codec import plan_from_json, plan_to_json, type_from_text, type_to_text
from operators.cost import broadcast_bytes, shuffle_bytes
from operators.duckdb import Kernel, lower
from operators.errors import PlanError
from operators.expr import Column, Exists, Expr, Lit
from operators.rel import Filter, InputSource, Rel, Scan
from operators.selectivity import selectivity
from operators.stats import ColumnStats, TableStats
from operators.types import BOOL, HUGEINT, INTERVAL, TIMESTAMP

SCHEMA = pa.schema([("k", pa.int32()), ("m", pa.decimal128(7, 2)), ("s", pa.string())])


def scan(name: str = "t") -> Scan:
    return build.scan(InputSource(name), SCHEMA)


def literals() -> st.SearchStrategy[Lit]:
    def of(type: pa.DataType, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Lit]:
        return st.builds(Lit, st.just(type), st.none() | values)

    money = st.integers(-(10**7) + 1, 10**7 - 1).map(lambda i: decimal.Decimal(i).scaleb(-2))
    year = datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)
    span = st.integers(-1000, 1000)
    return st.one_of(
        of(pa.int8(), st.integers(-128, 127)),
        of(pa.int32(), st.integers(-(2**31), 2**31 - 1)),
        of(pa.int64(), st.integers(-(2**63) + 1, 2**63 - 1)),
        of(HUGEINT, st.integers(-(10**38) + 1, 10**38 - 1).map(decimal.Decimal)),
        of(pa.decimal32(7, 2), money),
        of(pa.float64(), st.floats(allow_nan=False)),
        of(pa.bool_(), st.booleans()),
        of(pa.string(), st.text().filter(lambda s: "\0" not in s)),
        of(pa.binary(), st.binary()),
        of(pa.date32(), st.dates()),
        of(TIMESTAMP, st.datetimes(*year).map(lambda d: d.replace(fold=0))),
        of(INTERVAL, st.tuples(span, span, span.map(lambda n: n * 1000))),
    )


@given(st.lists(literals(), min_size=1, max_size=5))
def test_literals_survive_json(values: list[Lit]) -> None:
    plan = build.project(scan(), values)
    again = plan_from_json(json.loads(json.dumps(plan_to_json(plan))))
    assert again == plan
    for before, after in zip(plan.exprs, again.exprs, strict=True):  # type: ignore[attr-defined]
        assert repr(before) == repr(after)


def test_literals_survive_duckdb() -> None:
    """What DuckDB reads from a literal's SQL is the literal."""
    with Kernel.open(1, 200_000_000) as kernel:

        @given(st.lists(literals(), min_size=1, max_size=8))
        def check(values: list[Lit]) -> None:
            plan = build.values([f"c{i}" for i in range(len(values))], [values])
            table = kernel.table(lower(plan))
            assert table.schema.types == [v.type for v in values]
            for column, expected in zip(table.columns, values, strict=True):
                found = column.to_pylist()[0]
                if expected.type == INTERVAL and found is not None:
                    found = tuple(found)
                assert found == expected.value

        check()


@pytest.mark.parametrize("text", ["\0", "a\0'b", "\0\0", "'\0"])
def test_literals_with_nul_survive_duckdb(text: str) -> None:
    with Kernel.open(1, 200_000_000) as kernel:
        value = build.lit(text)
        data = {"t": pa.table({"x": [text, "a", None]})}
        source = build.scan(InputSource("t"), data["t"].schema)
        equal = build.call("equal", build.col(source.schema, "x"), value)
        table = kernel.table(lower(build.project(source, [value, equal])), data)
        assert table.column(0).to_pylist() == [text] * 3
        assert table.column(1).to_pylist() == [True, False, None]


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {"version": 99},
        {"version": 1, "relations": [], "root": {"relation": 0}},
        {"version": 1, "relations": [], "root": {"node": "Nope"}},
        {"version": 1, "relations": [{"node": "Limit"}], "root": {"relation": 0}},
        {"version": 1, "relations": [], "root": {"type": "int32"}},
    ],
)
def test_what_is_no_plan_is_refused(data: Any) -> None:
    with pytest.raises(PlanError):
        plan_from_json(data)


def test_types_as_text() -> None:
    for type in (pa.int8(), pa.decimal64(15, 2), TIMESTAMP, INTERVAL, HUGEINT, pa.string_view()):
        assert type_from_text(type_to_text(type)) == type
    with pytest.raises(PlanError):
        type_to_text(pa.list_(pa.int8()))


def test_sharing_survives_json() -> None:
    shared = build.filter(scan(), build.call("is_null", build.col(scan().schema, 0)))
    plan = plan_from_json(plan_to_json(build.join(shared, shared, on=[(0, 0)])))
    left, right = plan.inputs()
    assert left is right


def test_columns_move_and_are_replaced() -> None:
    rel = scan()
    k, m = build.col(rel.schema, "k"), build.col(rel.schema, "m")
    both = build.call("and", build.call("equal", k, build.lit(1)), build.call("is_null", m))
    assert rewrite.columns_used(both, build.sort_key(k)) == {0, 1}
    assert rewrite.columns_used(rewrite.shift(both, 3)) == {3, 4}
    assert rewrite.columns_used(rewrite.remap(both, {0: 7, 1: 2})) == {7, 2}
    with pytest.raises(PlanError, match="column 1"):
        rewrite.remap(both, [5])
    assert len(rewrite.conjuncts(both)) == 2
    assert rewrite.conjuncts(None) == []
    plus = build.call("add", k, build.lit(1))
    assert rewrite.substitute(build.call("is_null", k), [plus]) == build.call("is_null", plus)
    assert rewrite.map_expr(both, lambda e: e) is both


def test_relations_are_rewritten_inside_expressions_too() -> None:
    inner = build.project(scan("inner"), [Column(pa.int32(), 0)])
    outer = build.filter(scan("outer"), build.in_subquery(Column(pa.int32(), 0), inner))
    plan = build.join(outer, outer, on=[(0, 0)])
    seen: list[str] = []

    def rename(rel: Rel) -> Rel:
        if isinstance(rel, Scan) and isinstance(rel.source, InputSource):
            seen.append(rel.source.name)
            return build.scan(InputSource("new"), SCHEMA)
        return rel

    changed = rewrite.map_rel(plan, rename)
    assert seen == ["outer", "inner"]
    assert {i.name for i in lower(changed).inputs} == {"new"}
    left, right = changed.inputs()
    assert left is right
    assert rewrite.map_rel(plan, lambda r: r) is plan


KNOWN = TableStats(
    1000.0,
    (
        ColumnStats(1.0, 100.0, 0.1, 100.0),
        ColumnStats(0.0, 50.0, 0.0, 500.0),
        ColumnStats(distinct=10.0),
    ),
)


def estimated(rel: Rel) -> float:
    return estimate(rel, lambda source: KNOWN).rows


def condition(function: str, number: int) -> Expr:
    return build.call(function, build.col(scan().schema, 0), build.lit(number))


def test_selectivities() -> None:
    assert selectivity(condition("equal", 5), KNOWN) == pytest.approx(0.009)
    assert selectivity(condition("equal", 500), KNOWN) == 0
    assert selectivity(condition("less", 1), KNOWN) == 0
    assert selectivity(condition("less", 1000), KNOWN) == pytest.approx(0.9)
    assert selectivity(condition("greater", 50), KNOWN) == pytest.approx(0.9 * 50 / 99)
    half = build.call("less", build.col(scan().schema, 1), build.lit(25))
    assert selectivity(half, KNOWN) == pytest.approx(0.5)
    assert selectivity(build.call("not", half), KNOWN) == pytest.approx(0.5)
    both = build.call("or", half, build.call("not", half))
    assert selectivity(both, KNOWN) == pytest.approx(0.75)


def test_rows_of_relations() -> None:
    t = scan()
    assert estimated(t) == 1000
    assert estimated(build.limit(t, 10)) == 10
    assert estimated(build.limit(t, None, 400)) == 600
    assert estimated(build.join(t, t, "cross")) == 1e6
    assert estimated(build.join(t, t, on=[(1, 1)])) == pytest.approx(1000 * 1000 / 500)
    assert estimated(build.join(t, t, "left", on=[(0, 0)])) >= 1000
    few: Filter = build.filter(t, condition("equal", 5))
    assert estimated(build.join(t, few, "semi", on=[(0, 0)])) < 20
    assert estimated(build.set_operation("union", [t, t], all=True)) == 2000
    groups = build.aggregation(t, [build.col(t.schema, 2)], [build.aggregate("count")])
    assert estimated(groups) == 10
    assert estimated(build.aggregation(t, [], [build.aggregate("count")])) == 1


def test_what_is_cheaper_to_move() -> None:
    assert broadcast_bytes(1e3, 4) < shuffle_bytes(1e6, 1e3)
    assert broadcast_bytes(1e6, 4) > shuffle_bytes(1e6, 1e6)


def test_what_a_relation_knows_of_its_subqueries_is_no_part_of_it() -> None:
    inner = scan("u")
    asked: Filter = build.filter(scan(), Exists(BOOL, inner))
    same: Filter = build.filter(scan(), Exists(BOOL, inner))
    assert asked.subqueries() == (inner,)
    assert asked.subqueries()[0] is inner
    assert scan().subqueries() == ()
    assert asked == same
    assert hash(asked) == hash(same)
    assert copy.copy(asked) == same
    other = dataclasses.replace(asked, predicate=Exists(BOOL, scan("v")))
    assert other.subqueries() == (scan("v"),)


def test_constants_are_equal_if_their_bits_are() -> None:
    nan, other = build.lit(float("nan")), build.lit(float("inf") - float("inf"))
    assert nan == other
    assert len({nan, other}) == 1
    assert build.lit(0.0) != build.lit(-0.0)
    assert build.lit(1) != build.lit(1.0)
    assert build.lit(1) != Column(pa.int32(), 1)
