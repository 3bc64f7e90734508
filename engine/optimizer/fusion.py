"""One relation that computes several similar ones at once.

A CTE that is read with different constants reaches us as several copies that differ in their
filters; fifteen scalar subqueries over one table differ in their filters and aggregates. `fuse`
builds one relation that holds the rows and columns of all of them, and for each says which columns
and which rows are its own. The construction follows Bruno et al., "Computation Reuse via Fusion in
Amazon Athena" (ICDE 2022), generalized from two to several and with buckets.

What is returned for member *i* satisfies::

    member_i  =  Project(columns_i, Filter(own_i, plan))

as multisets of rows, by induction over the operators:

- *scan*, *filter*: rows that any member keeps; a member's own conjuncts tell its rows.
- *project*: the expressions of all; windows only where a member's own predicate looks at nothing
  but columns by which the window is partitioned, so that partitions are its own or not as a whole.
- *inner join*: own rows of both sides. Other joins only where the side that is looked into, or
  padded, is the same for all.
- *aggregation* by equal keys: where the own predicates look at keys only, groups are a member's
  own or not as a whole. Else, where the predicates exclude one another, the number of the predicate
  that holds becomes a key (a bucket), and no aggregate changes. Else aggregates get FILTER clauses,
  and a member owns the groups of which it has a row.
- *UNION ALL*: operand by operand.

Expressions that could fail on rows of another member are not moved past its filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from engine.optimizer.expressions import (
    columns_of,
    renumber,
)
from engine.optimizer.fused import Fused, Outputs, together
from engine.optimizer.fused_groups import fuse_groups
from engine.optimizer.predicates import (
    cannot_raise,
    conjunction,
    conjuncts,
    disjunction,
)
from operators import build
from operators.expr import Column, Expr, Window
from operators.rel import (
    Aggregation,
    Filter,
    Join,
    Project,
    Rel,
    Scan,
    SetOperation,
)
from operators.schema import Field, Schema
from operators.types import BOOL

__all__ = ["Fused", "fuse"]


def fuse(rels: Sequence[Rel]) -> Fused | None:
    """One relation for all of `rels`, or None if there is none of this construction's kind."""
    first = rels[0]
    if all(r is first for r in rels):
        every = tuple(range(len(first.schema)))
        return Fused(first, (every,) * len(rels), ((),) * len(rels))
    if any(isinstance(r, Filter) for r in rels):
        return _filters(rels)
    if any(isinstance(r, Project) for r in rels):
        return _projects([r if isinstance(r, Project) else _identity(r) for r in rels])
    scans = [r for r in rels if isinstance(r, Scan)]
    if len(scans) == len(rels):
        return _scans(scans)
    joins = [r for r in rels if isinstance(r, Join)]
    if len(joins) == len(rels):
        return _joins(joins)
    aggregations = [r for r in rels if isinstance(r, Aggregation)]
    if len(aggregations) == len(rels):
        return _aggregations(aggregations)
    unions = [r for r in rels if isinstance(r, SetOperation)]
    if len(unions) == len(rels):
        return _unions(unions)
    return None


def _identity(rel: Rel) -> Project:
    exprs = tuple(Column(f.type, i) for i, f in enumerate(rel.schema))
    return Project(rel.schema, rel, exprs)


def _split(terms: Sequence[list[Expr]]) -> tuple[list[Expr], list[list[Expr]]]:
    """Conjuncts that all have, and what each has besides."""
    common = [t for t in terms[0] if all(t in other for other in terms[1:])]
    return common, [[t for t in own if t not in common] for own in terms]


def _any(owns: Iterable[Sequence[Expr]]) -> list[Expr]:
    """The predicate that a row is some member's, as conjuncts: none if a member owns all rows."""
    parts = [conjunction(own) for own in owns]
    given = [p for p in parts if p is not None]
    return [disjunction(given)] if len(given) == len(parts) else []


def _restricted(
    rel: Rel, fused: Fused, terms: Sequence[list[Expr]]
) -> tuple[list[Expr], tuple[tuple[Expr, ...], ...]]:
    """What to filter `fused.plan` by where members filter by `terms`, and their own rows then."""
    common, rest = _split(terms)
    owns = tuple(together(o, r) for o, r in zip(fused.own, rest, strict=True))
    extra = _any(owns) if any(rest) else []
    return common + extra, owns


def _filters(rels: Sequence[Rel]) -> Fused | None:
    inputs, predicates = [], []
    for rel in rels:
        terms: list[Expr] = []
        while isinstance(rel, Filter):
            terms += conjuncts(rel.predicate)
            rel = rel.input
        inputs.append(rel)
        predicates.append(terms)
    below = fuse(inputs)
    if below is None:
        return None
    mapped = [
        [renumber(t, columns.__getitem__) for t in terms]
        for terms, columns in zip(predicates, below.columns, strict=True)
    ]
    if any(below.own) and not all(cannot_raise(t) for terms in mapped for t in terms):
        return None
    kept, owns = _restricted(below.plan, below, mapped)
    if not all(cannot_raise(t) for own in owns for t in own):
        return None
    predicate = conjunction(kept)
    plan = below.plan
    if predicate is not None:
        plan = Filter(plan.schema, plan, predicate)
    return Fused(plan, below.columns, owns)


def _scans(rels: Sequence[Scan]) -> Fused | None:
    first = rels[0]
    if any(r.source != first.source or r.source_schema != first.source_schema for r in rels[1:]):
        return None
    common, rest = _split([conjuncts(r.predicate) for r in rels])
    if not all(cannot_raise(t) for own in rest for t in own):
        return None
    columns = list(dict.fromkeys(c for r in rels for c in r.columns))
    columns += sorted(columns_of(t for own in rest for t in own) - set(columns))
    at = {c: i for i, c in enumerate(columns)}
    names = {c: r.schema[i] for r in reversed(rels) for i, c in enumerate(r.columns)}
    schema = Schema(tuple(names.get(c, first.source_schema[c]) for c in columns))
    plan = Scan(
        schema,
        first.source,
        first.source_schema,
        tuple(columns),
        conjunction(common + _any(rest) if any(rest) else common),
    )
    return Fused(
        plan,
        tuple(tuple(at[c] for c in r.columns) for r in rels),
        tuple(tuple(renumber(t, at) for t in own) for own in rest),
    )


def _projects(rels: Sequence[Project]) -> Fused | None:
    below = fuse([r.input for r in rels])
    if below is None:
        return None
    outputs = Outputs()
    columns = []
    for rel, at, own in zip(rels, below.columns, below.own, strict=True):
        exprs = [renumber(e, at.__getitem__) for e in rel.exprs]
        if any(below.own) and not all(map(cannot_raise, exprs)):
            return None
        if not all(_whole_partitions(e, own) for e in exprs if isinstance(e, Window)):
            return None
        columns.append(
            tuple(outputs.add(e, f) for e, f in zip(exprs, rel.schema.fields, strict=True))
        )
    kept: dict[int, int] = {}
    for c in sorted(columns_of(t for own in below.own for t in own)):
        field = below.plan.schema[c]
        kept[c] = outputs.add(Column(field.type, c), field)
    owns = tuple(tuple(renumber(t, kept) for t in own) for own in below.own)
    return Fused(outputs.project(below.plan), tuple(columns), owns)


def _whole_partitions(window: Window, own: Sequence[Expr]) -> bool:
    keys = {k.index for k in window.partition_by if isinstance(k, Column)}
    return columns_of(own) <= keys


def _joins(rels: Sequence[Join]) -> Fused | None:
    kind = rels[0].kind
    if any(r.kind != kind for r in rels):
        return None
    left, right = fuse([r.left for r in rels]), None
    if left is not None:
        right = fuse([r.right for r in rels])
    if left is None or right is None:
        return None
    if any(left.own) and kind in ("right", "full"):
        return None
    if any(right.own) and kind not in ("inner", "cross", "right"):
        return None
    width = len(left.plan.schema)
    pairs, conditions, columns = [], [], []
    for rel, one, other in zip(rels, left.columns, right.columns, strict=True):
        flags = rel.null_equal or (False,) * len(rel.left_keys)
        pairs.append(
            {
                (one[a], other[b], n)
                for a, b, n in zip(rel.left_keys, rel.right_keys, flags, strict=True)
            }
        )
        both = (*one, *(c + width for c in other))
        conditions.append([renumber(t, both.__getitem__) for t in conjuncts(rel.condition)])
        if kind in ("semi", "anti"):
            columns.append(one)
        elif kind == "mark":
            columns.append((*one, width))
        else:
            columns.append(both)
    if any(p != pairs[0] for p in pairs[1:]):
        return None
    owns: tuple[tuple[Expr, ...], ...] = tuple(
        together(a, [renumber(t, lambda c: c + width) for t in b])
        for a, b in zip(left.own, right.own, strict=True)
    )
    if kind in ("inner", "cross"):
        placed = Fused(left.plan, tuple(columns), owns)
        condition, owns = _restricted(left.plan, placed, conditions)
        if not all(cannot_raise(t) for own in owns for t in own):
            return None
    else:
        condition, rest = _split(conditions)
        if any(rest):
            return None
    keys = sorted(pairs[0])
    plan = replace(
        rels[0],
        schema=_join_schema(left.plan.schema, right.plan.schema, rels[0]),
        left=left.plan,
        right=right.plan,
        left_keys=tuple(k[0] for k in keys),
        right_keys=tuple(k[1] for k in keys),
        null_equal=tuple(k[2] for k in keys),
        condition=conjunction(condition),
        build=None,
    )
    return Fused(plan, tuple(columns), owns)


def _join_schema(left: Schema, right: Schema, like: Join) -> Schema:
    kind = like.kind
    if kind in ("semi", "anti"):
        return left
    if kind == "mark":
        return Schema((*left.fields, like.schema.fields[-1]))
    padded_left, padded_right = kind in ("right", "full"), kind in ("left", "full", "asof")
    return Schema(
        (
            *(replace(f, nullable=f.nullable or padded_left) for f in left),
            *(replace(f, nullable=f.nullable or padded_right) for f in right),
        )
    )


def _aggregations(rels: Sequence[Aggregation]) -> Fused | None:
    first = rels[0]
    if any(r.grouping_sets != first.grouping_sets for r in rels[1:]):
        return None
    below = fuse([r.input for r in rels])
    if below is None:
        return None
    return fuse_groups(rels, below)


def _unions(rels: Sequence[SetOperation]) -> Fused | None:
    first = rels[0]
    arity = len(first.operands)
    if any(r.operation != "union" or not r.all or len(r.operands) != arity for r in rels):
        return None
    parts = []
    for i in range(arity):
        part = fuse([r.operands[i] for r in rels])
        if part is None:
            return None
        parts.append(part)
    # A column of the union is, in every operand, some column of that operand's plan.
    columns: list[tuple[int, ...]] = []
    fields: list[Field] = []

    def place(sources: tuple[int, ...], field: Field) -> int:
        if sources not in columns:
            columns.append(sources)
            fields.append(field)
        at = columns.index(sources)
        fields[at] = replace(fields[at], nullable=fields[at].nullable or field.nullable)
        return at

    places = tuple(
        tuple(place(tuple(p.columns[m][c] for p in parts), f) for c, f in enumerate(r.schema))
        for m, r in enumerate(rels)
    )
    owns: list[tuple[Expr, ...]] = []
    marks: list[tuple[Expr | None, ...]] = []
    width = len(columns)
    for m in range(len(rels)):
        told = [_over(p.own[m], [c[i] for c in columns]) for i, p in enumerate(parts)]
        same = told[0]
        if same is not None and all(t == same for t in told[1:]):
            owns.append(same)
            continue
        mark = tuple(conjunction(p.own[m]) for p in parts)
        if mark not in marks:
            marks.append(mark)
        owns.append((Column(BOOL, width + marks.index(mark)),))
    fields += [Field("own", BOOL) for _ in marks]
    schema = Schema(tuple(fields))
    operands = []
    for i, part in enumerate(parts):
        exprs: list[Expr] = [Column(part.plan.schema[c[i]].type, c[i]) for c in columns]
        exprs += [m[i] or build.lit(True) for m in marks]  # type: ignore[misc]
        operands.append(Project(schema, part.plan, tuple(exprs)))
    return Fused(replace(first, schema=schema, operands=tuple(operands)), places, tuple(owns))


def _over(own: Sequence[Expr], sources: Sequence[int]) -> tuple[Expr, ...] | None:
    """Conjuncts over an operand's plan as conjuncts over the union's columns, if it has them."""
    at: dict[int, int] = {}
    for position, source in enumerate(sources):
        at.setdefault(source, position)
    if not columns_of(own) <= at.keys():
        return None
    return tuple(renumber(t, at) for t in own)
