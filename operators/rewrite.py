"""Helpers to take plans apart and put them together: for optimizers, cutters and front ends.

Everything is pure: nodes are immutable and shared where nothing changed. Relations inside
expressions (`ScalarSubquery`, `Exists`, `InSubquery`) have their own columns, so column helpers
do not enter them; `map_expr` rewrites the expression around them, `map_rel` rewrites them too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from operators.errors import PlanError
from operators.expr import (
    Aggregate,
    Call,
    Case,
    Cast,
    Column,
    Exists,
    Expr,
    InList,
    InSubquery,
    ScalarSubquery,
    SortKey,
    Window,
)
from operators.rel import (
    Aggregation,
    Filter,
    Join,
    Leading,
    Limit,
    Project,
    Query,
    Rel,
    Scan,
    SetOperation,
    Sort,
    Values,
)

_Node = TypeVar("_Node", bound="Expr | Rel")

__all__ = [
    "columns_used",
    "conjuncts",
    "expressions",
    "map_aggregate",
    "map_columns",
    "map_expr",
    "map_expressions",
    "map_rel",
    "map_sort_key",
    "remap",
    "shift",
    "subqueries",
    "substitute",
    "walk_expr",
    "with_inputs",
]


# Expressions


def walk_expr(expr: Expr) -> Iterator[Expr]:
    """`expr` and everything below it, parents before children; relations inside are not entered."""
    yield expr
    for child in expr.children():
        yield from walk_expr(child)


def conjuncts(expr: Expr | None) -> list[Expr]:
    """The terms that AND joins; none for None."""
    if expr is None:
        return []
    if isinstance(expr, Call) and expr.function == "and":
        return [term for arg in expr.args for term in conjuncts(arg)]
    return [expr]


def columns_used(*exprs: Expr | Aggregate | SortKey | None) -> set[int]:
    """Positions of all columns that the expressions read."""
    found: set[int] = set()
    for expr in exprs:
        if isinstance(expr, SortKey):
            found |= columns_used(expr.expr)
        elif isinstance(expr, Aggregate):
            found |= columns_used(*expr.args, expr.filter, *expr.order)
        elif expr is not None:
            found.update(e.index for e in walk_expr(expr) if isinstance(e, Column))
    return found


def subqueries(expr: Expr) -> Iterator[Rel]:
    """The relations inside an expression, outermost only."""
    for part in walk_expr(expr):
        if isinstance(part, ScalarSubquery | Exists | InSubquery):
            yield part.rel


def map_expr(expr: Expr, function: Callable[[Expr], Expr]) -> Expr:
    """Rebuild `expr` bottom-up, every node passed through `function` after its children."""

    def go(e: Expr) -> Expr:
        return map_expr(e, function)

    changed: Expr
    match expr:
        case Call(args=args):
            changed = _replaced(expr, args=_each(go, args))
        case Cast(arg=arg):
            changed = _replaced(expr, arg=go(arg))
        case Case(branches=branches, otherwise=otherwise):
            pairs = tuple((go(c), go(v)) for c, v in branches)
            last = None if otherwise is None else go(otherwise)
            changed = _replaced(expr, branches=pairs, otherwise=last)
        case InList(arg=arg, options=options):
            changed = _replaced(expr, arg=go(arg), options=_each(go, options))
        case InSubquery(arg=arg):
            changed = _replaced(expr, arg=go(arg))
        case Window(args=args, partition_by=partition_by, order_by=order_by):
            keys = tuple(map_sort_key(k, function) for k in order_by)
            changed = _replaced(
                expr, args=_each(go, args), partition_by=_each(go, partition_by), order_by=keys
            )
        case _:
            changed = expr
    return function(changed)


def map_sort_key(key: SortKey, function: Callable[[Expr], Expr]) -> SortKey:
    """`map_expr` on a sort key."""
    return dataclasses.replace(key, expr=map_expr(key.expr, function))


def map_aggregate(measure: Aggregate, function: Callable[[Expr], Expr]) -> Aggregate:
    """`map_expr` on everything that an aggregate reads."""
    return dataclasses.replace(
        measure,
        args=tuple(map_expr(a, function) for a in measure.args),
        filter=None if measure.filter is None else map_expr(measure.filter, function),
        order=tuple(map_sort_key(k, function) for k in measure.order),
    )


def map_columns(expr: Expr, function: Callable[[Column], Expr]) -> Expr:
    """Replace every column by what `function` gives for it."""
    return map_expr(expr, lambda e: function(e) if isinstance(e, Column) else e)


def shift(expr: Expr, distance: int) -> Expr:
    """Move all column positions by `distance` (from one side of a join to both, and back)."""
    return map_columns(expr, lambda c: dataclasses.replace(c, index=c.index + distance))


def remap(expr: Expr, positions: Mapping[int, int] | Sequence[int]) -> Expr:
    """Renumber columns: position `i` becomes ``positions[i]``.

    Raises
    ------
    PlanError
        If `positions` does not say where a column goes.
    """

    def moved(column: Column) -> Expr:
        try:
            return dataclasses.replace(column, index=positions[column.index])
        except (KeyError, IndexError):
            raise PlanError(f"column {column.index} is not among those that were kept") from None

    return map_columns(expr, moved)


def substitute(expr: Expr, values: Sequence[Expr]) -> Expr:
    """Replace column `i` by ``values[i]``: how an expression over a projection becomes one over
    its input.
    """
    return map_columns(expr, lambda c: values[c.index])


# Relations


def expressions(rel: Rel) -> Iterator[Expr]:
    """All expressions of one relation (not of its inputs), aggregates' arguments and sort keys
    included.
    """
    match rel:
        case Scan(predicate=predicate) | Join(condition=predicate):
            if predicate is not None:
                yield predicate
        case Values(rows=rows):
            for row in rows:
                yield from row
        case Filter(predicate=predicate):
            yield predicate
        case Project(exprs=exprs):
            yield from exprs
        case Aggregation(keys=keys, measures=measures):
            yield from keys
            for m in measures:
                yield from m.args
                if m.filter is not None:
                    yield m.filter
                yield from (k.expr for k in m.order)
        case Sort(keys=sort_keys):
            yield from (k.expr for k in sort_keys)
        case Leading(partition_by=partition_by, key=sort_key):
            yield from partition_by
            yield sort_key.expr


def map_expressions(rel: Rel, function: Callable[[Expr], Expr]) -> Rel:
    """`rel` with `map_expr(…, function)` on each of its own expressions. Types must not change."""

    def go(e: Expr) -> Expr:
        return map_expr(e, function)

    match rel:
        case Scan(predicate=predicate):
            return _replaced(rel, predicate=None if predicate is None else go(predicate))
        case Join(condition=condition):
            return _replaced(rel, condition=None if condition is None else go(condition))
        case Values(rows=rows):
            return _replaced(rel, rows=tuple(_each(go, row) for row in rows))
        case Filter(predicate=predicate):
            return _replaced(rel, predicate=go(predicate))
        case Project(exprs=exprs):
            return _replaced(rel, exprs=_each(go, exprs))
        case Aggregation(keys=keys, measures=measures):
            return _replaced(
                rel,
                keys=_each(go, keys),
                measures=tuple(map_aggregate(m, function) for m in measures),
            )
        case Sort(keys=sort_keys):
            return _replaced(rel, keys=tuple(map_sort_key(k, function) for k in sort_keys))
        case Leading(partition_by=partition_by, key=sort_key):
            key = map_sort_key(sort_key, function)
            return _replaced(rel, partition_by=_each(go, partition_by), key=key)
    return rel


def with_inputs(rel: Rel, inputs: Sequence[Rel]) -> Rel:
    """`rel` over other inputs of the same schemas; `rel` itself if they are the same objects."""
    if all(a is b for a, b in zip(rel.inputs(), inputs, strict=True)):
        return rel
    match rel:
        case Filter() | Project() | Aggregation() | Sort() | Limit() | Leading():
            return dataclasses.replace(rel, input=inputs[0])
        case Join():
            return dataclasses.replace(rel, left=inputs[0], right=inputs[1])
        case SetOperation():
            return dataclasses.replace(rel, operands=tuple(inputs))
        case Query():
            return dataclasses.replace(rel, tables=tuple(inputs))
    raise PlanError(f"{type(rel).__name__} has no inputs")


def map_rel(rel: Rel, function: Callable[[Rel], Rel]) -> Rel:
    """Rebuild a plan bottom-up, every relation passed through `function` after its inputs.

    Relations inside expressions are rewritten too. A relation that occurs twice (one object) is
    rewritten once and stays shared.
    """
    done: dict[int, tuple[Rel, Rel]] = {}

    def inside(expr: Expr) -> Expr:
        if isinstance(expr, ScalarSubquery | Exists | InSubquery):
            return _replaced(expr, rel=go(expr.rel))
        return expr

    def go(r: Rel) -> Rel:
        if id(r) not in done:
            rebuilt = with_inputs(r, [go(i) for i in r.inputs()])
            if any(True for e in expressions(r) for _ in subqueries(e)):
                rebuilt = map_expressions(rebuilt, inside)
            done[id(r)] = (r, function(rebuilt))
        return done[id(r)][1]

    return go(rel)


def _each(function: Callable[[Expr], Expr], exprs: Iterable[Expr]) -> tuple[Expr, ...]:
    return tuple(function(e) for e in exprs)


def _replaced(node: _Node, **fields: object) -> _Node:
    """`node` with other fields; `node` itself where they are the same objects."""
    for name, value in fields.items():
        old = getattr(node, name)
        same = old is value or (
            isinstance(old, tuple)
            and isinstance(value, tuple)
            and len(old) == len(value)
            and all(_same(a, b) for a, b in zip(old, value, strict=True))
        )
        if not same:
            changed: Any = dataclasses.replace(cast(Any, node), **fields)
            return cast(_Node, changed)
    return node


def _same(left: object, right: object) -> bool:
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(
            _same(a, b) for a, b in zip(left, right, strict=True)
        )
    return left is right or (isinstance(left, SortKey | Aggregate) and left == right)
