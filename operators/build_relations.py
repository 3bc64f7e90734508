"""Typed constructors of relations: they check positions and types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.types as pt

from operators.build_expressions import cast, col, common_of, require_boolean
from operators.errors import PlanError
from operators.expr import (
    Aggregate,
    Call,
    Column,
    Exists,
    Expr,
    Lit,
    SortKey,
    Window,
)
from operators.rel import (
    Aggregation,
    Filter,
    Join,
    JoinKind,
    Leading,
    Limit,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
    Source,
    Values,
)
from operators.rewrite import columns_used
from operators.schema import Field, Schema
from operators.types import (
    BOOL,
    INT64,
    canonical,
    canonical_schema,
    common_type,
    same_type,
)

__all__ = [
    "aggregation",
    "filter",
    "join",
    "leading",
    "limit",
    "project",
    "scan",
    "select_columns",
    "set_operation",
    "sort",
    "values",
]


def scan(
    source: Source,
    source_schema: pa.Schema | Schema,
    columns: Sequence[int | str] | None = None,
    predicate: Expr | None = None,
) -> Scan:
    """Read the named columns (all by default); `predicate` ranges over the whole
    `source_schema`.
    """
    schema = canonical_schema(source_schema)
    chosen = range(len(schema)) if columns is None else columns
    positions = tuple(col(schema, c).index for c in chosen)
    if predicate is not None:
        _check(predicate, schema, "scan predicate")
        require_boolean(predicate, "scan predicate")
    return Scan(schema.select(positions), source, schema, positions, predicate)


def values(names: Sequence[str], rows: Sequence[Sequence[Expr]]) -> Values:
    """Literal rows, cast to a common type per column; no rows at all need `types` of their own:
    use a filter.
    """
    if not rows:
        raise PlanError("values need at least one row")
    if any(len(row) != len(names) for row in rows):
        raise PlanError("all rows must have as many values as there are names")
    types = [common_of(column) for column in zip(*rows, strict=True)]
    cells = tuple(
        tuple(cast(cell, type) for cell, type in zip(row, types, strict=True)) for row in rows
    )
    fields = tuple(Field(n, t) for n, t in zip(names, types, strict=True))
    return Values(Schema(fields), cells)


def filter(input: Rel, predicate: Expr) -> Filter:
    """Rows for which `predicate` is true."""
    _check(predicate, input.schema, "filter")
    require_boolean(predicate, "filter")
    return Filter(input.schema, input, predicate)


def project(input: Rel, exprs: Sequence[Expr], names: Sequence[str] | None = None) -> Project:
    """One column per expression; a bare column keeps its name, others are `c0`, `c1`, … by
    position.
    """
    if names is None:
        names = [
            input.schema[e.index].name if isinstance(e, Column) else f"c{i}"
            for i, e in enumerate(exprs)
        ]
    if len(names) != len(exprs):
        raise PlanError(f"{len(exprs)} expressions but {len(names)} names")
    for name, expr in zip(names, exprs, strict=True):
        _check(expr, input.schema, f"column {name!r}", windows=True)
    fields = tuple(
        Field(n, canonical(e.type), nullable(e, input.schema))
        for n, e in zip(names, exprs, strict=True)
    )
    return Project(Schema(fields), input, tuple(exprs))


def select_columns(input: Rel, positions: Sequence[int]) -> Rel:
    """The columns at `positions`; `input` itself if that is all of them in order."""
    if tuple(positions) == tuple(range(len(input.schema))):
        return input
    return project(input, [col(input.schema, p) for p in positions])


def join(
    left: Rel,
    right: Rel,
    kind: JoinKind = "inner",
    *,
    on: Sequence[tuple[int, int]] = (),
    null_equal: Sequence[bool] | None = None,
    condition: Expr | None = None,
    build: Literal["left", "right"] | None = None,
    mark_name: str = "mark",
) -> Join:
    """Join on pairs of key positions and a residual `condition` over left and then right
    columns.
    """
    for a, b in on:
        one, other = col(left.schema, a), col(right.schema, b)
        try:
            common_type(one.type, other.type)
        except PlanError as error:
            names = f"{left.schema[a].name!r} = {right.schema[b].name!r}"
            raise PlanError(f"join key {names}: {error}") from None
    nulls = tuple(null_equal) if null_equal is not None else (False,) * len(on)
    if len(nulls) != len(on):
        raise PlanError(f"{len(on)} join keys but {len(nulls)} null_equal flags")
    if kind == "cross" and (on or condition is not None):
        raise PlanError("a cross join has no condition")
    both = Schema(left.schema.fields + right.schema.fields)
    if condition is not None:
        _check(condition, both, "join condition")
        require_boolean(condition, "join condition")
    if kind == "asof":
        _check_asof(condition, len(left.schema))
    schema = _join_schema(left.schema, right.schema, kind, mark_name)
    keys = [a for a, _ in on], [b for _, b in on]
    return Join(schema, left, right, kind, tuple(keys[0]), tuple(keys[1]), nulls, condition, build)


def _join_schema(left: Schema, right: Schema, kind: JoinKind, mark_name: str) -> Schema:
    if kind in ("semi", "anti"):
        return left
    if kind == "mark":
        return Schema((*left.fields, Field(mark_name, BOOL)))
    first = tuple(Field(f.name, f.type, f.nullable or kind in ("right", "full")) for f in left)
    outer = kind in ("left", "full", "asof")
    second = tuple(Field(f.name, f.type, f.nullable or outer) for f in right)
    return Schema(first + second)


def _check_asof(condition: Expr | None, width: int) -> None:
    """An inequality whose first argument is over the left columns, the second over the right."""
    match condition:
        case Call(function="less" | "less_equal" | "greater" | "greater_equal", args=(one, other)):
            mine, theirs = columns_used(one), columns_used(other)
            if mine and theirs and max(mine) < width <= min(theirs):
                return
    raise PlanError("an asof join needs one inequality between a left and a right value")


def aggregation(
    input: Rel,
    keys: Sequence[Expr],
    measures: Sequence[Aggregate],
    *,
    grouping_sets: Sequence[Sequence[int]] | None = None,
    names: Sequence[str] | None = None,
) -> Aggregation:
    """Group `input` by `keys`. Output: keys, then (with several sets) the grouping id, then
    measures.

    `names` covers all output columns, the grouping id included.
    """
    for i, key in enumerate(keys):
        _check(key, input.schema, f"key {i}")
    for measure in measures:
        for arg in (*measure.args, *([measure.filter] if measure.filter is not None else [])):
            _check(arg, input.schema, f"argument of {measure.function}")
    sets = None if grouping_sets is None else tuple(tuple(s) for s in grouping_sets)
    if sets is not None and any(not 0 <= k < len(keys) for s in sets for k in s):
        raise PlanError(f"a grouping set names a key that is not among the {len(keys)}")
    several = sets is not None and len(sets) > 1
    if sets is not None and len(sets) == 1 and sorted(sets[0]) == list(range(len(keys))):
        sets = None
    fields = [
        Field(
            input.schema[k.index].name if isinstance(k, Column) else f"key{i}",
            canonical(k.type),
            several or nullable(k, input.schema),
        )
        for i, k in enumerate(keys)
    ]
    if several:
        fields.append(Field("grouping_id", INT64, False))
    for i, m in enumerate(measures):
        fields.append(Field(f"{m.function}{i}", canonical(m.type), m.function != "count"))
    schema = Schema(tuple(fields))
    if names is not None:
        if len(names) != len(fields):
            raise PlanError(f"{len(fields)} output columns but {len(names)} names")
        schema = schema.rename(names)
    return Aggregation(schema, input, tuple(keys), tuple(measures), sets)


def sort(input: Rel, keys: Sequence[SortKey]) -> Sort:
    """Order `input` by `keys`."""
    for i, key in enumerate(keys):
        _check(key.expr, input.schema, f"sort key {i}")
    return Sort(input.schema, input, tuple(keys))


def limit(input: Rel, count: int | None, offset: int = 0) -> Limit:
    """Skip `offset` rows, then keep `count` (None: all)."""
    if (count is not None and count < 0) or offset < 0:
        raise PlanError("LIMIT and OFFSET must not be negative")
    return Limit(input.schema, input, count, offset)


def leading(input: Rel, partition_by: Sequence[Expr], key: SortKey, count: int) -> Leading:
    """Keep the rows that may be among the first `count` of their group by `key`."""
    if count < 1:
        raise PlanError("the first rows of a group are at least one")
    for expr in (*partition_by, key.expr):
        _check(expr, input.schema, "group or key")
        if not isinstance(expr, Column):
            raise PlanError("groups and the key of their first rows are columns")
    if pt.is_floating(key.expr.type):
        raise PlanError("a key with NaN does not tell which rows are first")
    return Leading(input.schema, input, tuple(partition_by), key, count)


def set_operation(
    operation: Literal["union", "intersect", "except"],
    operands: Sequence[Rel],
    *,
    all: bool = False,
) -> SetOperation:
    """A set operation; operands are cast to common column types, names are the first operand's."""
    if not operands:
        raise PlanError(f"{operation} needs an operand")
    width = len(operands[0].schema)
    if any(len(o.schema) != width for o in operands):
        raise PlanError(f"operands of {operation} have different numbers of columns")
    types: list[pa.DataType] = []
    for i, name in enumerate(operands[0].schema.names):
        type = operands[0].schema[i].type
        for operand in operands[1:]:
            try:
                type = common_type(type, operand.schema[i].type)
            except PlanError as error:
                raise PlanError(f"{operation}, column {name!r}: {error}") from None
        types.append(canonical(type))
    fields = tuple(
        Field(f.name, t, any(o.schema[i].nullable for o in operands))
        for i, (f, t) in enumerate(zip(operands[0].schema, types, strict=True))
    )
    converted = tuple(_converted(o, types) for o in operands)
    return SetOperation(Schema(fields), operation, all, converted)


def _converted(rel: Rel, types: Sequence[pa.DataType]) -> Rel:
    if all(same_type(f.type, t) for f, t in zip(rel.schema, types, strict=True)):
        return rel
    columns = [cast(col(rel.schema, i), t) for i, t in enumerate(types)]
    return project(rel, columns, rel.schema.names)


def nullable(expr: Expr, schema: Schema) -> bool:
    """Whether `expr` over rows of `schema` can be NULL, as far as is easily seen (True when in
    doubt).
    """
    match expr:
        case Column(index=i):
            return schema[i].nullable
        case Lit(value=value):
            return value is None
        case Call(function="is_null" | "is_not_null" | "is_distinct_from" | "is_not_distinct_from"):
            return False
        case Exists() | Window(function="row_number" | "rank" | "dense_rank" | "count" | "ntile"):
            return False
    return True


def _check(expr: Expr, schema: Schema, what: str, *, windows: bool = False) -> None:
    """Positions in range and types as the schema says; windows only at the top of a projection."""
    if isinstance(expr, Window) and not windows:
        raise PlanError(f"{what}: a window function may only stand at the top of a projection")
    if isinstance(expr, Column):
        if not 0 <= expr.index < len(schema):
            raise PlanError(f"{what}: column {expr.index} does not exist; there are {len(schema)}")
        field = schema[expr.index]
        if not same_type(expr.type, field.type):
            raise PlanError(f"{what}: column {field.name!r} is {field.type}, not {expr.type}")
    for child in expr.children():
        _check(child, schema, what)
