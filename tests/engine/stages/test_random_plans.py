"""Random plans over small tables: cut or not, the answer is the same."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operators import build
from operators.expr import Column
from operators.rel import Rel
from operators.types import same_type

KINDS = ["inner", "left", "right", "full", "semi", "anti"]


def columns(rel: Rel) -> list[Column]:
    return [build.col(rel.schema, i) for i in range(len(rel.schema))]


@st.composite
def plans(draw: Any, tables: Any, depth: int = 3) -> Rel:
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        rel = tables.scan(draw(st.sampled_from(["sales", "returns", "items", "empty"])))
        kept = draw(
            st.lists(st.integers(0, len(rel.schema) - 1), min_size=1, max_size=3, unique=True)
        )
        return build.project(rel, [columns(rel)[i] for i in kept])
    below = draw(plans(tables, depth - 1))
    match draw(st.sampled_from(["filter", "aggregate", "join", "union", "top", "window"])):
        case "filter":
            return build.filter(
                below, build.call("is_not_null", draw(st.sampled_from(columns(below))))
            )
        case "aggregate":
            keys = draw(st.lists(st.sampled_from(columns(below)), max_size=2, unique=True))
            value = draw(st.sampled_from(columns(below)))
            functions = draw(
                st.lists(st.sampled_from(["count", "min", "max"]), min_size=1, max_size=3)
            )
            distinct = draw(st.booleans())
            measures = [build.aggregate(f, value, distinct=distinct) for f in functions]
            return build.aggregation(below, keys, measures)
        case "join":
            other = draw(plans(tables, depth - 1))
            pairs = [
                (a.index, b.index)
                for a in columns(below)
                for b in columns(other)
                if same_type(a.type, b.type)
            ]
            if not pairs:
                return build.join(below, other, "semi")
            on = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=2, unique=True))
            aggregated = build.aggregation(other, columns(other), [])
            return build.join(below, aggregated, draw(st.sampled_from(KINDS)), on=on)
        case "union":
            operation = draw(st.sampled_from(["union", "intersect", "except"]))
            return build.set_operation(operation, [below, below], all=operation == "union")
        case "top":
            keys = [build.sort_key(c, descending=draw(st.booleans())) for c in columns(below)]
            return build.limit(build.sort(below, keys), draw(st.integers(0, 40)))
    first = draw(st.sampled_from(columns(below)))
    window = build.window("count", first, partition_by=[draw(st.sampled_from(columns(below)))])
    return build.project(below, [*columns(below), window])


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data(), scatter=st.booleans())
def test_random_plans(tables: Any, check: Any, data: Any, scatter: bool) -> None:
    plan = data.draw(plans(tables))
    check(plan, copies=[2], broadcast_bytes=0.0 if scatter else 1e9)
