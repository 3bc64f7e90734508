"""Fusion of aggregations over one relation: by groups, by buckets or by masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from engine.optimizer.expressions import (
    columns_of,
    renumber,
    renumber_aggregate,
)
from engine.optimizer.fused import Fused, Outputs, together
from engine.optimizer.predicates import (
    cannot_raise,
    conjunction,
    conjuncts,
    exclusive,
)
from operators import build
from operators.expr import Aggregate, Column, Expr
from operators.rel import (
    Aggregation,
    Rel,
)
from operators.schema import Field, Schema
from operators.types import INT64

__all__ = ["fuse_groups"]

_MOST_MASKS = 4
"""Aggregates with FILTER clauses cost as much as their own pass from about so many on."""


def fuse_groups(rels: Sequence[Aggregation], below: Fused) -> Fused | None:
    """One aggregation for all of `rels`, whose grouping sets are equal and whose inputs `below`
    holds.
    """
    first = rels[0]
    keys = [
        tuple(renumber(k, at.__getitem__) for k in r.keys)
        for r, at in zip(rels, below.columns, strict=True)
    ]
    if any(k != keys[0] for k in keys[1:]):
        return None
    measures = [
        [renumber_aggregate(m, dict(enumerate(at))) for m in r.measures]
        for r, at in zip(rels, below.columns, strict=True)
    ]
    if any(below.own):
        moved = [
            e for ms in measures for m in ms for e in (*m.args, *([m.filter] if m.filter else []))
        ]
        if first.grouping_sets is not None or not all(map(cannot_raise, [*keys[0], *moved])):
            return None
    places = {k.index: i for i, k in enumerate(keys[0]) if isinstance(k, Column)}
    looked_at = columns_of(t for own in below.own for t in own)
    if not any(below.own) or (places and looked_at <= places.keys()):
        owns = tuple(tuple(renumber(t, places) for t in own) for own in below.own)
        return _grouped(rels, below.plan, keys[0], measures, owns)
    if all(below.own) and exclusive(list(dict.fromkeys(below.own))):
        return _bucketed(rels, below, keys[0], measures)
    if len(set(below.own)) > _MOST_MASKS:
        return None
    return _masked(rels, below, keys[0], measures)


def _grouped(
    rels: Sequence[Aggregation],
    input: Rel,
    keys: tuple[Expr, ...],
    measures: Sequence[Sequence[Aggregate]],
    owns: tuple[tuple[Expr, ...], ...],
) -> Fused:
    """One aggregation with the measures of all; equal ones stand once."""
    first = rels[0]
    width = len(first.schema) - len(first.measures)
    distinct: list[Aggregate] = []
    fields: list[Field] = []
    columns = []
    for rel, own_measures in zip(rels, measures, strict=True):
        placed = []
        for measure, field in zip(own_measures, rel.schema.fields[width:], strict=True):
            if measure not in distinct:
                distinct.append(measure)
                fields.append(field)
            placed.append(width + distinct.index(measure))
        columns.append((*range(width), *placed))
    key_fields = tuple(
        replace(f, nullable=any(r.schema[i].nullable for r in rels))
        for i, f in enumerate(first.schema.fields[:width])
    )
    schema = Schema((*key_fields, *fields))
    plan = Aggregation(schema, input, keys, tuple(distinct), first.grouping_sets)
    return Fused(plan, tuple(columns), owns)


def _bucketed(
    rels: Sequence[Aggregation],
    below: Fused,
    keys: tuple[Expr, ...],
    measures: Sequence[Sequence[Aggregate]],
) -> Fused:
    """Which member a row belongs to as the last key."""
    predicates = [conjunction(own) for own in below.own]
    bucket = build.case(
        [(p, build.lit(predicates.index(p), pa.int8())) for p in predicates if p is not None]
    )
    count = len(keys)
    widened = [
        replace(
            r,
            schema=Schema(
                (*r.schema.fields[:count], Field("bucket", bucket.type), *r.schema.fields[count:])
            ),
        )
        for r in rels
    ]
    place = Column(bucket.type, count)
    owns: tuple[tuple[Expr, ...], ...] = tuple(
        (build.call("equal", place, build.lit(predicates.index(p), pa.int8())),) for p in predicates
    )
    fused = _grouped(widened, below.plan, (*keys, bucket), measures, owns)
    columns = tuple(tuple(c for c in at if c != count) for at in fused.columns)
    if keys:
        return replace(fused, columns=columns)
    return _pivoted(rels, fused, columns)


def _pivoted(rels: Sequence[Aggregation], fused: Fused, columns: Sequence[Sequence[int]]) -> Fused:
    """The one row of aggregates without keys, from the rows of the buckets.

    A bucket that has no row is a member over no rows: its counts are 0, everything else is NULL.
    """
    schema = fused.plan.schema
    picked: list[Aggregate] = []
    outputs = Outputs()
    places = []
    for rel, at, (own,) in zip(rels, columns, fused.own, strict=True):
        place = []
        for measure, field, c in zip(rel.measures, rel.schema.fields, at, strict=True):
            value = Column(schema[c].type, c)
            chosen = Aggregate(schema[c].type, "max", (value,), filter=own)
            if chosen not in picked:
                picked.append(chosen)
            expr: Expr = Column(chosen.type, picked.index(chosen))
            if measure.function == "count":
                expr = build.call("coalesce", expr, build.lit(0, expr.type))
            place.append(outputs.add(expr, field))
        places.append(tuple(place))
    fields = tuple(Field(f"m{i}", m.type) for i, m in enumerate(picked))
    row = Aggregation(Schema(fields), fused.plan, (), tuple(picked))
    return Fused(outputs.project(row), tuple(places), ((),) * len(rels))


def _masked(
    rels: Sequence[Aggregation],
    below: Fused,
    keys: tuple[Expr, ...],
    measures: Sequence[Sequence[Aggregate]],
) -> Fused:
    """Every member's aggregates over its own rows; it owns the groups in which it has a row."""
    masked: list[list[Aggregate]] = []
    widened = []
    for rel, own, given in zip(rels, below.own, measures, strict=True):
        mine = [replace(m, filter=conjunction(together(own, conjuncts(m.filter)))) for m in given]
        if keys and own:
            mine.append(Aggregate(INT64, "count", (), filter=conjunction(own)))
            rel = replace(rel, schema=Schema((*rel.schema.fields, Field("present", INT64, False))))
            rel = replace(rel, measures=tuple(mine))
        masked.append(mine)
        widened.append(rel)
    fused = _grouped(widened, below.plan, keys, masked, ((),) * len(rels))
    columns, owns = [], []
    for rel, own, at in zip(rels, below.own, fused.columns, strict=True):
        columns.append(at[: len(rel.schema)])
        present: tuple[Expr, ...] = ()
        if keys and own:
            present = (build.call("greater", Column(INT64, at[-1]), build.lit(0, INT64)),)
        owns.append(present)
    return replace(fused, columns=tuple(columns), own=tuple(owns))
