from __future__ import annotations

import pyarrow as pa
import pytest

from engine.optimizer.expressions import every_relation
from engine.stages.builds import choose_builds
from operators import build
from operators.rel import InputSource, Join, JoinKind, ParquetSource, Query, Rel
from operators.schema import Field, Schema

SCHEMA = Schema((Field("k", pa.int64()),))


class Rows:
    """Estimates by the number in an input's name."""

    def rows(self, rel: Rel) -> float:
        source = getattr(rel, "source", None)
        return float(source.name[1:]) if isinstance(source, InputSource) else 1.0

    def width(self, schema: Schema) -> float:
        return 8.0

    def same(self, rel: Rel, like: Rel) -> None: ...

    def note(self, name: str, like: Rel) -> None: ...


def exchange(rows: int) -> Rel:
    return build.scan(InputSource(f"x{rows}"), SCHEMA)


def joined(left: Rel, right: Rel, kind: JoinKind) -> Join:
    join = build.join(left, right, kind, on=[(0, 0)])
    chosen = choose_builds(join, Rows())
    assert isinstance(chosen, Join)
    return chosen


@pytest.mark.parametrize(("left", "right", "side"), [(10, 100, "left"), (100, 10, "right")])
def test_the_smaller_side_of_an_inner_join_is_hashed(left: int, right: int, side: str) -> None:
    assert joined(exchange(left), exchange(right), "inner").build == side


@pytest.mark.parametrize("kind", ["left", "right", "full", "semi", "anti"])
def test_other_joins_are_not_turned_around(kind: JoinKind) -> None:
    assert joined(exchange(10), exchange(100), kind).build == "right"


class FileRows(Rows):
    """Estimates by the number in a table's name."""

    def rows(self, rel: Rel) -> float:
        source = getattr(rel, "source", None)
        return float(source.table[1:]) if isinstance(source, ParquetSource) else 50.0


def table(rows: int) -> Rel:
    return build.scan(ParquetSource(f"t{rows}", (f"t{rows}.parquet",)), SCHEMA)


def builds(plan: Rel) -> list[str | None]:
    chosen = choose_builds(plan, FileRows())
    return [r.build for r in every_relation(chosen) if isinstance(r, Join)]


def test_joins_of_files_hash_what_is_estimated_smaller() -> None:
    plan = build.join(table(10), table(100), "inner", on=[(0, 0)])
    assert builds(plan) == ["left"]
    assert builds(build.join(plan, table(20), "semi", on=[(0, 0)])) == ["right", "left"]


@pytest.mark.parametrize("kind", ["semi", "anti", "left"])
def test_the_kernel_may_turn_around_what_looks_up_in_the_larger_side(kind: JoinKind) -> None:
    inner = build.join(table(10), table(100), "inner", on=[(0, 0)])
    assert builds(build.join(inner, table(1000), kind, on=[(0, 0)])) == [None, None]


def test_joins_inside_sql_of_the_user_are_left_to_the_kernel() -> None:
    query = Query(SCHEMA, "SELECT a.k FROM a, b WHERE a.k = b.k", ("a", "b"), (table(1), table(2)))
    assert builds(build.join(query, table(10), "inner", on=[(0, 0)])) == [None]


def test_joins_below_a_union_are_left_to_the_kernel() -> None:
    plan = build.join(table(10), table(100), "inner", on=[(0, 0)])
    assert builds(build.set_operation("union", [plan, plan], all=True)) == [None]
