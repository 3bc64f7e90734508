"""Column pruning: every relation puts out the columns that its reader needs, and no others.

Columns that only a filter or a join looks at are dropped right above it, so that they are not
written into an exchange.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from engine.optimizer.expressions import (
    columns_of,
    expressions_of,
    map_expressions,
    map_subqueries,
    renumber,
    renumber_aggregate,
    with_inputs,
)
from operators.expr import Column, Lit
from operators.rel import (
    Aggregation,
    Filter,
    Join,
    Limit,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
)
from operators.schema import Field, Schema
from operators.types import BOOL

__all__ = ["prune"]

_MARKER = Field("row", BOOL, False)


def prune(plan: Rel) -> Rel:
    """`plan` without columns that nobody reads; the columns of `plan` itself all stay."""
    return _visit(plan, range(len(plan.schema)))


def _visit(rel: Rel, needed: Collection[int]) -> Rel:
    """`rel` with exactly the columns `needed`, in ascending order (the first one if none is
    needed). A relation without columns gets one, for else its rows could not be written.
    """
    wanted = sorted(needed) or _least(rel)
    rel = map_subqueries(rel, prune)
    match rel:
        case Scan(columns=()) if len(rel.source_schema):
            return replace(rel, columns=(0,), schema=rel.source_schema.select([0]))
        case Scan(columns=columns):
            kept = tuple(columns[i] for i in wanted)
            return replace(rel, columns=kept, schema=rel.schema.select(wanted))
        case Project():
            return _project(rel, wanted)
        case Join():
            return _join(rel, wanted)
        case Aggregation():
            return _aggregation(rel, wanted)
        case Filter() | Sort() | Limit():
            below, have = _transparent(rel, wanted)
            return _trim(below, have, wanted)
        case SetOperation() if rel.operation == "union" and rel.all:
            operands = tuple(_visit(o, wanted) for o in rel.operands)
            return replace(rel, operands=operands, schema=rel.schema.select(wanted))
        case SetOperation():
            operands = tuple(prune(o) for o in rel.operands)
            return _trim(with_inputs(rel, operands), list(range(len(rel.schema))), wanted)
    return _trim(rel, list(range(len(rel.schema))), wanted)


def _least(rel: Rel) -> list[int]:
    """What is left where no column is needed: the first one, so that rows can be counted.

    A relation may have no columns at all.
    """
    return [0] if len(rel.schema) else []


def _positions(have: Sequence[int]) -> Mapping[int, int]:
    return {old: new for new, old in enumerate(have)}


def _trim(rel: Rel, have: list[int], wanted: list[int]) -> Rel:
    """`rel`, whose columns are those that were at `have`, with only those that were at `wanted`."""
    if have == wanted or not wanted:
        return rel
    at = _positions(have)
    schema = rel.schema.select([at[c] for c in wanted])
    if isinstance(rel, Project):
        return replace(rel, schema=schema, exprs=tuple(rel.exprs[at[c]] for c in wanted))
    return Project(schema, rel, tuple(Column(rel.schema[at[c]].type, at[c]) for c in wanted))


def _transparent(rel: Filter | Sort | Limit, wanted: list[int]) -> tuple[Rel, list[int]]:
    """A relation that hands its input's columns on, with those that it needs itself; and which
    they are.

    A limit stays right above its sort: the two are one operator.
    """
    have = sorted({*wanted, *columns_of(expressions_of(rel))})
    if isinstance(rel, Limit) and isinstance(rel.input, Sort):
        sort = map_subqueries(rel.input, prune)
        assert isinstance(sort, Sort)
        below, have = _transparent(sort, wanted)
    else:
        below = _visit(rel.input, have)
        have = have or _least(rel.input)
    at = _positions(have)
    rel = replace(rel, input=below, schema=below.schema)
    mapped = map_expressions(rel, lambda e: renumber(e, at))
    return mapped, have


def _project(rel: Project, wanted: list[int]) -> Rel:
    if not rel.exprs:
        return Project(Schema((_MARKER,)), _visit(rel.input, ()), (Lit(BOOL, True),))
    kept = tuple(rel.exprs[i] for i in wanted)
    have = sorted(columns_of(kept))
    below = _visit(rel.input, have)
    at = _positions(have)
    return Project(rel.schema.select(wanted), below, tuple(renumber(e, at) for e in kept))


def _join(rel: Join, wanted: list[int]) -> Rel:
    width = len(rel.left.schema)
    used = {*wanted, *columns_of(expressions_of(rel))}
    left_have = sorted({c for c in used if c < width} | set(rel.left_keys)) or _least(rel.left)
    # Position `width` of a mark join's output is the mark; in its condition it is the first right
    # column.
    of_right = columns_of(expressions_of(rel)) if rel.kind in ("semi", "anti", "mark") else used
    right_have = sorted({c - width for c in of_right if c >= width} | set(rel.right_keys))
    right_have = right_have or _least(rel.right)
    left, right = _visit(rel.left, left_have), _visit(rel.right, right_have)
    # Sides without columns have got one (`_visit`), at positions that no expression knows.
    left_have = left_have or [-1 for _ in left.schema]
    right_have = right_have or list(range(len(right.schema)))
    at_left, at_right = _positions(left_have), _positions(right_have)
    at = dict(at_left) | {c + width: i + len(left_have) for c, i in at_right.items()}
    if rel.kind in ("semi", "anti"):
        have = left_have
    elif rel.kind == "mark":
        have = [*left_have, width]
    else:
        have = [*left_have, *(c + width for c in right_have)]
    known = dict(enumerate(rel.schema))
    new = replace(
        rel,
        schema=Schema(tuple(known.get(c, _MARKER) for c in have)),
        left=left,
        right=right,
        left_keys=tuple(at_left[k] for k in rel.left_keys),
        right_keys=tuple(at_right[k] for k in rel.right_keys),
        condition=None if rel.condition is None else renumber(rel.condition, at),
    )
    return _trim(new, have, wanted)


def _aggregation(rel: Aggregation, wanted: list[int]) -> Rel:
    """Keys stay, because they make the groups; measures that nobody reads go."""
    first = len(rel.schema) - len(rel.measures)
    kept = [c - first for c in wanted if c >= first]
    if not first and not kept:
        kept = [0]
    measures = [rel.measures[i] for i in kept]
    bare = replace(rel, measures=tuple(measures))
    have_below = sorted(columns_of(expressions_of(bare)))
    below = _visit(rel.input, have_below)
    at = _positions(have_below)
    have = [*range(first), *(i + first for i in kept)]
    new = replace(
        rel,
        schema=rel.schema.select(have),
        input=below,
        keys=tuple(renumber(k, at) for k in rel.keys),
        measures=tuple(renumber_aggregate(m, at) for m in measures),
    )
    return _trim(new, have, wanted)
