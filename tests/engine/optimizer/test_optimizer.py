"""What the optimizer does to plans; that answers stay the same is shown with the stages."""

from __future__ import annotations

import pyarrow as pa
import pytest

from engine.optimizer.expressions import every_relation, has_window
from engine.optimizer.joinorder import order_joins
from engine.optimizer.pruning import prune
from engine.optimizer.sharing import intern, shared, worth_sharing
from operators import build
from operators.rel import InputSource, Join, Project, Rel, Scan, walk

SIZES = {"fact": 1e6, "other": 1e6, "dim": 100.0, "tiny": 5.0}


def table(name: str) -> Rel:
    schema = pa.schema([("k", pa.int64()), ("a", pa.int64()), ("b", pa.string())])
    return build.scan(InputSource(name), schema)


class Sizes:
    """Joins keep the larger side but for `tiny`, which filters."""

    def rows(self, rel: Rel) -> float:
        if isinstance(rel, Scan):
            assert isinstance(rel.source, InputSource)
            return SIZES[rel.source.name]
        sizes = [self.rows(i) for i in rel.inputs()]
        return max(sizes) / (10 if min(sizes) == SIZES["tiny"] else 1)


def sources(rel: Rel) -> list[str]:
    return [n.source.name for n in walk(rel) if isinstance(n, Scan)]  # type: ignore[attr-defined]


def test_pruning_keeps_what_is_needed_and_drops_the_rest_above_a_join() -> None:
    joined = build.join(table("fact"), table("dim"), on=[(0, 0)])
    plan = prune(build.project(joined, [build.col(joined.schema, 5)]))
    scans = {n.source.name: n.schema.names for n in walk(plan) if isinstance(n, Scan)}  # type: ignore[attr-defined]
    assert scans == {"fact": ("k",), "dim": ("k", "b")}
    assert plan.schema.names == ("b",)


@pytest.mark.parametrize("kind", ["semi", "anti", "mark"])
def test_pruning_of_joins_that_only_look_at_their_right_side(kind: str) -> None:
    joined = build.join(table("fact"), table("dim"), kind, on=[(0, 0)])  # type: ignore[arg-type]
    last = len(joined.schema) - 1
    plan = prune(build.project(joined, [build.col(joined.schema, last)]))
    right = next(n for n in walk(plan) if isinstance(n, Join)).right
    assert right.schema.names == ("k",)
    assert plan.schema.types == (joined.schema[last].type,)


def test_windows_are_computed_once_for_readers_of_different_columns() -> None:
    below = table("fact")
    rank = build.window("rank", partition_by=[build.col(below.schema, 0)])
    ranked = build.project(below, [*(build.col(below.schema, i) for i in range(3)), rank])
    few = build.project(ranked, [build.col(ranked.schema, i) for i in (1, 3)])
    more = build.project(ranked, [build.col(ranked.schema, i) for i in (0, 2, 3)])
    plan = prune(build.join(few, more, on=[(0, 0)]))
    windows = {
        id(r) for r in every_relation(plan) if isinstance(r, Project) and has_window(r.exprs)
    }
    assert len(windows) == 1


def test_nothing_only_hands_columns_on() -> None:
    fact = table("fact")
    turned = build.project(fact, [build.col(fact.schema, i) for i in (2, 0, 1)])
    again = build.project(turned, [build.col(turned.schema, i) for i in (1, 2, 0)])
    assert prune(again) == fact
    some = build.project(again, [build.col(again.schema, 1), build.lit(1)])
    plan = prune(build.join(some, some, on=[(0, 0)]))
    assert [type(r).__name__ for r in walk(plan)] == ["Join", "Project", "Scan"]


def test_equal_subplans_become_one_object() -> None:
    plan = intern(build.join(table("dim"), table("dim"), on=[(0, 0)]))
    assert isinstance(plan, Join)
    assert plan.left is plan.right
    assert shared(plan) == {id(plan.left)}


def test_only_work_is_worth_sharing() -> None:
    rows = Sizes().rows
    fact, dim = table("fact"), table("dim")
    streamed = build.join(fact, dim, on=[(0, 0)])
    assert not worth_sharing(fact, rows, 1e5)
    assert not worth_sharing(streamed, rows, 1e5)
    assert worth_sharing(build.join(fact, table("tiny"), on=[(0, 0)]), rows, 1e5)
    assert worth_sharing(build.join(fact, table("other"), on=[(0, 0)]), rows, 1e5)
    assert worth_sharing(build.aggregation(dim, [build.col(dim.schema, 0)], []), rows, 1e5)


def test_a_filtering_table_is_joined_first() -> None:
    first = build.join(table("fact"), table("other"), on=[(0, 0)])
    plan = intern(build.join(first, table("tiny"), on=[(1, 1)]))
    ordered = order_joins(plan, Sizes())
    assert isinstance(ordered, Project)
    assert ordered.schema == plan.schema
    inner = [n for n in walk(ordered) if isinstance(n, Join)][-1]
    assert sorted(sources(inner)) == ["fact", "tiny"]
    assert sources(inner.right) == ["tiny"]


def test_two_tables_stay_as_they_are() -> None:
    plan = intern(build.join(table("tiny"), table("fact"), on=[(0, 0)]))
    assert order_joins(plan, Sizes()) is plan
