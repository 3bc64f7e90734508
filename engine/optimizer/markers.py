"""Relations without columns get one, so that their rows can be written down.

`SELECT count(*) FROM (SELECT FROM t)` is a plan like any other, but rows without columns are no
Arrow data that could move between stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.optimizer.expressions import (
    column_refs,
    every_relation,
    map_subqueries,
    renumber,
    with_inputs,
)
from operators.expr import Aggregate, Lit
from operators.rel import Aggregation, Filter, Join, Limit, Project, Rel, Scan, SetOperation, Sort
from operators.schema import Field, Schema
from operators.types import BOOL, INT64

__all__ = ["mark_rows"]

_MARKER = Field("row", BOOL, False)
_COUNT = Field("count", INT64, False)


def mark_rows(plan: Rel) -> Rel:
    """`plan` with a column in every relation below it that has none; nobody reads it."""
    if all(len(rel.schema.fields) for rel in every_relation(plan)):
        return plan
    done: dict[int, Rel] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            before = map_subqueries(rel, visit)
            inputs = [visit(i) for i in before.inputs()]
            done[id(rel)] = _marked(before, inputs)
        return done[id(rel)]

    return visit(plan)


def _marked(rel: Rel, inputs: Sequence[Rel]) -> Rel:
    """`rel` over `inputs`, of which those that had no columns have one now."""
    match rel:
        case Scan(columns=()) if len(rel.source_schema):
            return replace(rel, columns=(0,), schema=rel.source_schema.select([0]))
        case Project(exprs=()):
            return _row(inputs[0])
        case Filter() | Sort() | Limit() if not len(rel.schema):
            return replace(with_inputs(rel, inputs), schema=inputs[0].schema)
        case SetOperation() if not len(rel.schema):
            # Of one schema, which their markers need not be.
            alike = [_row(below) for below in inputs]
            return replace(with_inputs(rel, alike), schema=alike[0].schema)
        case Aggregation() if not len(rel.schema):
            count = Aggregate(INT64, "count")
            return replace(rel, input=inputs[0], schema=Schema((_COUNT,)), measures=(count,))
        case Join(left=left, right=right) if not (len(left.schema) and len(right.schema)):
            return _join(rel, *inputs)
    return with_inputs(rel, inputs)


def _row(rel: Rel) -> Project:
    """Nothing of the rows of `rel` but that they are there."""
    return Project(Schema((_MARKER,)), rel, (Lit(BOOL, True),))


def _join(rel: Join, left: Rel, right: Rel) -> Rel:
    """A join of which a side had no columns: what it puts out stays what it was."""
    width = len(rel.left.schema)
    shift = len(left.schema) - width
    moved = {i: i if i < width else i + shift for i in range(width + len(rel.right.schema))}
    fields = left.schema.fields
    if rel.kind == "mark":
        fields += rel.schema.fields[width:]
    elif rel.kind not in ("semi", "anti"):
        fields += right.schema.fields
    condition = None if rel.condition is None else renumber(rel.condition, moved)
    joined = replace(rel, schema=Schema(fields), left=left, right=right, condition=condition)
    if not len(rel.schema):
        return joined
    kept = [i if i < width else i + shift for i in range(len(rel.schema))]
    return Project(rel.schema, joined, tuple(column_refs(Schema(fields), kept)))
