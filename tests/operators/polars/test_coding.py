"""Strings that stand as numbers while rows are joined and grouped."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from operators import build
from operators.expr import Expr
from operators.polars import lower
from operators.polars.coding import CODE, coded_columns
from operators.rel import Rel, Scan, walk
from tests.operators.polars.test_lower import c, check, everywhere, in_polars, scan


def joined(kind: Any = "inner", towns: Rel | None = None) -> Rel:
    """Items, and the sales of each: item, name, price, item, town, weight."""
    sales = scan("sales")
    wide = build.project(
        sales, [build.cast(c(sales, "item"), pa.int64()), c(sales, "town"), c(sales, "weight")]
    )
    return build.join(scan("items"), wide if towns is None else towns, kind, on=[(0, 0)])


def counted(rel: Rel, *keys: int | Expr) -> Rel:
    found = [build.col(rel.schema, k) if isinstance(k, int) else k for k in keys]
    return build.aggregation(rel, found, [build.aggregate("count")])


def coded(plan: Rel) -> int:
    """How many casts to numbers a plan's function has."""
    return lower(plan, everywhere).text.count(CODE)


@pytest.mark.parametrize("kind", ["inner", "left", "right", "full"])
def test_strings_of_both_sides(kind: Any) -> None:
    plan = counted(joined(kind), 1, 4)
    assert coded(plan) == 2
    assert CODE not in lower(plan).text
    check(plan)


def test_no_table_is_read_otherwise_for_rows_that_are_not_joined() -> None:
    plan = counted(scan("sales"), 3)
    assert coded(plan) == 0
    check(plan)


def test_only_where_it_pays() -> None:
    plan = counted(joined(), 1, 4)
    text = lower(plan, lambda named, grouped: len(named.schema) == 5).text  # sales
    assert text.count(CODE) == 1
    found = coded_columns(plan, everywhere)
    scans = [r for r in walk(plan) if isinstance(r, Scan)]
    assert sorted(len(found[id(s)]) for s in scans) == [1, 1]


def test_groups_of_groups_keep_them() -> None:
    below = counted(joined(), 1, 4)
    above = build.aggregation(below, [c(below, 0)], [build.aggregate("sum", c(below, 2))])
    text = lower(above, everywhere).text
    assert text.count("pl.String") == 1, text
    check(above)


def test_what_computes_with_a_string_has_it() -> None:
    rel = joined()
    name = build.col(rel.schema, 1)
    upper = build.call("upper", name)
    check(counted(rel, 1, upper))
    check(counted(build.filter(rel, build.call("less", name, build.lit("p"))), 1, 4))
    check(build.aggregation(rel, [name], [build.aggregate("min", build.col(rel.schema, 4))]))
    check(build.aggregation(rel, [name], [build.aggregate("max", name)]))
    groups = counted(rel, 1, 4)
    check(build.project(groups, [build.call("upper", c(groups, 0)), c(groups, 0), c(groups, 1)]))
    check(build.filter(groups, build.call("less", c(groups, 0), build.lit("p"))))


def test_computed_strings_of_the_small_side() -> None:
    items = scan("items")
    short = build.call("upper", c(items, "name"))
    small = build.project(items, [c(items, "item"), short])
    sales = scan("sales")
    wide = build.project(sales, [build.cast(c(sales, "item"), pa.int64()), c(sales, "town")])
    plan = counted(build.join(wide, small, "inner", on=[(0, 0)]), 1, 3)
    assert coded(plan) == 2
    check(plan)


def test_above_groups() -> None:
    groups = counted(joined(), 1, 4)
    keys = [build.sort_key(c(groups, i)) for i in (0, 1, 2)]
    check(build.limit(build.sort(groups, keys), 3), ordered=True)
    check(build.set_operation("union", [groups, groups], all=True))
    check(build.set_operation("except", [groups, build.limit(groups, 0)], all=False))
    other = counted(joined(), 1)
    check(build.join(groups, other, "inner", on=[(0, 0)]))
    check(build.join(groups, other, "semi", on=[(0, 0)]))
    check(build.join(groups, other, "left", on=[(2, 1)]))


def test_the_last_that_counts_of_each_group() -> None:
    groups = counted(joined(), 1, 4)
    plan = build.leading(groups, [c(groups, 0)], build.sort_key(c(groups, 2)), 100)
    assert in_polars(plan, everywhere).num_rows == in_polars(groups).num_rows
    check(plan)


def test_an_empty_side() -> None:
    empty = scan("empty")
    wide = build.project(
        empty, [build.cast(c(empty, "item"), pa.int64()), c(empty, "town"), c(empty, "weight")]
    )
    for kind in ("inner", "left"):
        check(counted(joined(kind, wide), 1, 4))
