"""Asof joins cut into stages: every left row once, wherever the sides are."""

from __future__ import annotations

from typing import Any

import pytest

from operators import build
from operators.expr import Expr
from operators.rel import Join, Rel
from operators.schema import Schema


def asof(left: Rel, right: Rel, *, by: bool, function: str = "greater_equal") -> Join:
    """Sales beside the return with the nearest id, of the same item if `by`."""
    both = Schema(left.schema.fields + right.schema.fields)
    names = list(left.schema.names)
    here, there = names.index("id"), len(names) + list(right.schema.names).index("id")
    test: Expr = build.call(function, build.col(both, here), build.col(both, there))
    item = (names.index("item"), list(right.schema.names).index("item"))
    return build.join(left, right, "asof", on=[item] if by else [], condition=test)


@pytest.mark.parametrize("by", [True, False])
@pytest.mark.parametrize("scatter", [True, False])
@pytest.mark.parametrize("function", ["greater_equal", "less"])
def test_cut_or_not(tables: Any, check: Any, by: bool, scatter: bool, function: str) -> None:
    plan = asof(tables.scan("sales"), tables.scan("returns"), by=by, function=function)
    stages = check(plan, broadcast_bytes=0.0 if scatter else 1e9)
    kinds = {s.output.kind for s in stages.stages}
    assert ("hash" in kinds) == (by and scatter)


def test_what_is_not_read_goes_and_what_follows_stays_in_place(tables: Any, check: Any) -> None:
    joined = asof(tables.scan("sales"), tables.scan("returns"), by=True)
    names = list(joined.schema.names)
    town = len(tables.scan("sales").schema) + names[: len(names) // 2].index("town")
    item = names.index("item")
    kept = build.select_columns(joined, [item, town])
    counted = build.aggregation(
        kept, [build.col(kept.schema, 0)], [build.aggregate("count", build.col(kept.schema, 1))]
    )
    check(counted, broadcast_bytes=0.0)


def test_empty_sides(tables: Any, check: Any) -> None:
    check(asof(tables.scan("sales"), tables.scan("empty"), by=True), broadcast_bytes=0.0)
    check(asof(tables.scan("empty"), tables.scan("sales"), by=True), broadcast_bytes=0.0)
