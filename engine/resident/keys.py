"""Ranges of join keys that are known only when an element runs, to prune zones of its big table.

`sales JOIN (dates WHERE year = 2000)`: no row of `sales` outside of the range of the dates that are
left matters, and big tables mostly lie in the order of their dates. So before the statement the
element asks for the least and the greatest key of the small side, which costs next to nothing, and
reads only the zones of the big side that overlap. (DuckDB does this inside of itself for its own
tables, by their zone maps.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from engine.optimizer.expressions import has_window
from engine.stages.fragments import all_relations
from engine.stages.model import Stage
from operators import build
from operators.duckdb import Fragment, lower
from operators.expr import Cast, Column
from operators.rel import Filter, InputSource, Join, ParquetSource, Project, Rel, Scan, Source

__all__ = ["KeyRange", "key_ranges"]

# Joins through which a row of one side goes as it is, or not at all.
_LEFT_ROWWISE = ("inner", "left", "semi", "anti", "mark", "cross")
_RIGHT_ROWWISE = ("inner", "right", "cross")


@dataclass(frozen=True, slots=True)
class KeyRange:
    """`fragment` gives one row: the ends of what `column` of `source` can match."""

    source: ParquetSource
    column: str
    fragment: Fragment


def key_ranges(stage: Stage) -> list[KeyRange]:
    """Ranges for the tables of which a stage reads parts, one per column at most."""
    whole = {i.name for i in stage.inputs if i.mode == "all"}
    nodes = list(all_relations(stage.plan))
    scans = [n.source for n in nodes if isinstance(n, Scan)]
    # A table that is scanned twice may be wanted whole by the other scan.
    targets = {p for p in stage.parts if scans.count(p) == 1}
    found: dict[tuple[ParquetSource, str], KeyRange] = {}
    for node in nodes:
        if isinstance(node, Join):
            for one in _of_join(node, targets, whole):
                found.setdefault((one.source, one.column), one)
    return list(found.values())


def _of_join(join: Join, targets: Collection[Source], whole: Collection[str]) -> Iterator[KeyRange]:
    if join.kind not in ("inner", "semi"):
        return
    sides = [(join.left, join.right, join.left_keys, join.right_keys)]
    if join.kind == "inner":
        sides.append((join.right, join.left, join.right_keys, join.left_keys))
    for big, small, big_keys, small_keys in sides:
        if not _small(small, whole):
            continue
        for a, b, nulls in zip(big_keys, small_keys, join.null_equal, strict=True):
            origin = _origin(big, a)
            if origin is None or nulls or not pt.is_integer(small.schema[b].type):
                continue
            source, name, type = origin
            if source in targets and isinstance(source, ParquetSource) and pt.is_integer(type):
                yield KeyRange(source, name, _ends(small, b))


def _ends(small: Rel, key: int) -> Fragment:
    column = build.col(small.schema, key)
    measures = [build.aggregate("min", column), build.aggregate("max", column)]
    ends = build.aggregation(small, [], measures)
    columns = [build.cast(build.col(ends.schema, i), pa.int64()) for i in range(2)]
    return lower(build.project(ends, columns, ["low", "high"]))


def _small(rel: Rel, whole: Collection[str]) -> bool:
    """Whether `rel` is cheap to compute before the statement, and leaves out some of its keys."""
    selective = False
    for node in all_relations(rel):
        match node:
            case Scan(source=ParquetSource(part=None), predicate=predicate):
                selective = selective or predicate is not None
            case Scan(source=InputSource(name=name)) if name in whole:
                selective = True
            case Filter():
                selective = True
            case Project(exprs=exprs) if not has_window(exprs):
                pass
            case Join(kind="inner" | "semi"):
                pass
            case _:
                return False
    return selective


def _origin(rel: Rel, position: int) -> tuple[Source, str, pa.DataType] | None:
    """The scanned column that a column of `rel` is, if the scan's rows reach `rel` one by one."""
    match rel:
        case Scan(source=source, source_schema=schema, columns=columns):
            field = schema[columns[position]]
            return source, field.name, field.type
        case Filter(input=below):
            return _origin(below, position)
        case Project(input=below, exprs=exprs) if not has_window(exprs):
            expr = exprs[position]
            if isinstance(expr, Cast) and pt.is_integer(expr.type):
                expr = expr.arg  # the same number; of other than integers no range is asked for
            return _origin(below, expr.index) if isinstance(expr, Column) else None
        case Join(left=left, right=right, kind=kind):
            width = len(left.schema)
            if position < width:
                return _origin(left, position) if kind in _LEFT_ROWWISE else None
            return _origin(right, position - width) if kind in _RIGHT_ROWWISE else None
    return None
