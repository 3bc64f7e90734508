"""Asof joins and statements as relations: what they promise, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import build
from operators.cardinality import estimate
from operators.codec import plan_from_json, plan_to_json
from operators.duckdb import Kernel, lower, query
from operators.errors import PlanError
from operators.expr import Expr
from operators.printer import format_plan
from operators.rel import InputSource, Join, ParquetSource, Query, Scan
from operators.schema import Schema
from operators.stats import ColumnStats, TableStats

SCHEMA = pa.schema([("k", pa.int32()), ("t", pa.int32()), ("v", pa.string())])


def scan(name: str) -> Scan:
    return build.scan(InputSource(name), SCHEMA)


def asof(function: str, *, by: bool) -> Join:
    left, right = scan("l"), scan("r")
    both = Schema(left.schema.fields + right.schema.fields)
    test = build.call(function, build.col(both, 1), build.col(both, 4))
    return build.join(left, right, "asof", on=[(0, 0)] if by else [], condition=test)


def nearest(row: Any, rows: list[Any], function: str, by: bool) -> Any:
    """The right row by the definition; right values differ, so that there is one."""
    tests = {
        "greater_equal": lambda a, b: a >= b,
        "greater": lambda a, b: a > b,
        "less_equal": lambda a, b: a <= b,
        "less": lambda a, b: a < b,
    }
    found = [
        r
        for r in rows
        if None not in (row[1], r[1])
        and tests[function](row[1], r[1])
        and (not by or (row[0] is not None and row[0] == r[0]))
    ]
    pick = max if function.startswith("greater") else min
    return pick(found, key=lambda r: r[1]) if found else (None, None, None)


@pytest.fixture(scope="module")
def kernel() -> Any:
    with Kernel.open(1, 200_000_000) as made:
        yield made


@given(
    left=st.lists(st.tuples(st.none() | st.integers(0, 2), st.none() | st.integers(0, 9))),
    right=st.lists(
        st.tuples(st.none() | st.integers(0, 2), st.none() | st.integers(0, 9)),
        unique_by=lambda r: r[1],
    ),
    function=st.sampled_from(["greater_equal", "greater", "less_equal", "less"]),
    by=st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_left_row_once(
    kernel: Kernel, left: Any, right: Any, function: str, by: bool
) -> None:
    rows = [
        [(k, t, f"{side}{i}") for i, (k, t) in enumerate(given)]
        for side, given in (("l", left), ("r", right))
    ]
    inputs = {
        name: pa.Table.from_pylist(
            [dict(zip(SCHEMA.names, r, strict=True)) for r in given], schema=SCHEMA
        )
        for name, given in zip("lr", rows, strict=True)
    }
    found = kernel.table(lower(asof(function, by=by)), inputs)
    expected = [(*row, *nearest(row, rows[1], function, by)) for row in rows[0]]
    got = [tuple(column[i].as_py() for column in found.columns) for i in range(found.num_rows)]
    assert sorted(map(repr, got)) == sorted(map(repr, expected))


def test_an_asof_join_is_written_printed_and_estimated() -> None:
    plan = asof("greater_equal", by=True)
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan
    assert "Join asof on k = k and t#1 >= t#4" in format_plan(plan)
    assert "ASOF LEFT JOIN" in lower(plan).sql
    assert [f.nullable for f in plan.schema] == [True] * 6
    stats = {
        "l": TableStats(50.0, (ColumnStats(),) * 3),
        "r": TableStats(9e6, (ColumnStats(),) * 3),
    }
    assert estimate(plan, lambda s: stats[s.name]).rows == 50.0  # type: ignore[attr-defined]


def _conditions() -> dict[str, Any]:
    both = Schema(scan("l").schema.fields + scan("r").schema.fields)

    def c(i: int) -> Expr:
        return build.col(both, i)

    return {
        "none": None,
        "equality": build.call("equal", c(1), c(4)),
        "wrong sides": build.call("less", c(4), c(1)),
        "one side": build.call("less", c(0), c(1)),
        "a constant": build.call("less", c(1), build.lit(3)),
        "two": build.call(
            "and", build.call("less", c(1), c(4)), build.call("less", c(0), c(3))
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", _conditions())
def test_an_asof_join_needs_one_inequality(name: str) -> None:
    with pytest.raises(PlanError, match="one inequality"):
        build.join(scan("l"), scan("r"), "asof", condition=_conditions()[name])


def test_a_statement_is_bound_and_hides_everything_else(kernel: Kernel) -> None:
    data = {"l": pa.table({"k": [1, 2], "t": [3, 4], "v": ["a", "b"]}).cast(SCHEMA)}
    # The inner name is that of the outer input, and of the common table expression.
    inner = query("select k + 1 as k, v, v as v from l order by k desc limit 1", {"l": scan("l")})
    assert inner.schema.names == ("k", "v", "v_1")
    outer = query("with t as (from l) select a.k as k, b.k as other from t a, r b;",
                  {"l": scan("l"), "r": inner})  # fmt: skip
    assert kernel.table(lower(outer), data).to_pydict() == {"k": [1, 2], "other": [3, 3]}
    assert plan_from_json(json.loads(json.dumps(plan_to_json(outer)))) == outer
    assert "Query" in format_plan(outer)
    twice = build.set_operation("union", [inner, inner], all=True)
    assert kernel.table(lower(twice), data).num_rows == 2


def test_names_inside_do_not_hide_what_the_inputs_are_called(kernel: Kernel) -> None:
    data = {
        name: pa.Table.from_pylist([{"k": number, "t": 0, "v": name}], schema=SCHEMA)
        for number, name in enumerate(("l", "r", "r_2", "query"))
    }
    text = "select l.v as l, r.v as r, r_2.v as r_2, query.v as query from l, r, r_2, query"
    crossed = {"r": scan("l"), "l": scan("r"), "query": scan("r_2"), "r_2": scan("query")}
    assert kernel.table(lower(query(text, crossed)), data).to_pylist() == [
        {"l": "r", "r": "l", "r_2": "query", "query": "r_2"}
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select 1; select 2", "one SELECT"),
        ("create table x (a int)", "one SELECT"),
        ("", "one SELECT"),
        ("select zz from l", "zz"),
        ("select * from nothing", "nothing"),
        ("select * from SCHEMA", "SCHEMA"),
        ("select * from 'file.parquet'", "file"),
        ("select * from read_csv('file.csv')", "file"),
        ("select [1, 2] as deep from l", "deep"),
        ("select 1) as q, (select 2", "syntax"),
    ],
)
def test_statements_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        query(text, {"l": scan("l")})
    assert type(caught.value).__module__ == "operators.errors"


def test_two_tables_of_one_name_are_refused() -> None:
    with pytest.raises(PlanError, match="'l'"):
        query("select 1", {"l": scan("l"), "L": scan("r")})


def test_a_query_is_a_relation_like_others() -> None:
    made = query("select k from l", {"l": scan("l")})
    assert isinstance(made, Query)
    assert made.inputs() == (scan("l"),)


def test_a_statement_limits_rows_before_it_joins_them(tmp_path: Path) -> None:
    """DuckDB 1.5.5 looks for the keys of a join below limits (duckdb/duckdb#22963); with one thread
    always in time to leave rows out.
    """
    rng, types = random.Random(23), {"a": pa.int32(), "b": pa.int64(), "c": pa.int32()}
    values = [None, *range(6)]
    table = pa.table({n: pa.array(rng.choices(values, k=20), t) for n, t in types.items()})
    pq.write_table(table, tmp_path / "r.parquet")
    files = build.scan(ParquetSource("r", (str(tmp_path / "r.parquet"),)), table.schema)
    least = min(r["b"] for r in table.to_pylist() if r["b"] is not None)
    text = (
        "select x.a, x.b, x.c from (select x.a, x.b, x.c from (select a, b, c from r union all "
        "select b, a, c from s) x semi join (select a, b, c from t) y on x.a = y.a "
        f"order by a, b, c limit 5) x join (select a from u where b <= {least}) y on x.a = y.a "
        "order by all"
    )
    plan = query(text, dict.fromkeys("rstu", files))
    assert not lower(plan).join_filters
    with duckdb.connect(config={"disabled_optimizers": "join_filter_pushdown"}) as connection:
        for name in "rstu":
            connection.register(name, table)
        wanted = connection.execute(text).fetchall()
    with Kernel.open(1, 1 << 30) as kernel:
        assert [tuple(r.values()) for r in kernel.table(lower(plan)).to_pylist()] == wanted
    assert wanted
