"""Rewriting expressions and relations of the IR: columns renumbered, subqueries replaced, children
exchanged.

Every function returns new objects; the IR is immutable. Unchanged objects are given back as they
are, so that what was shared stays shared.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

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
    Lit,
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
    Rel,
    Scan,
    SetOperation,
    Sort,
    Values,
)
from operators.schema import Schema

__all__ = [
    "column_refs",
    "columns_of",
    "every_relation",
    "expressions_of",
    "has_window",
    "map_children",
    "map_expressions",
    "map_subqueries",
    "renumber",
    "renumber_aggregate",
    "subqueries_of",
    "with_inputs",
]


def map_children(expr: Expr, visit: Callable[[Expr], Expr]) -> Expr:
    """`expr` with `visit` applied to each direct sub-expression."""
    if isinstance(expr, (Column, Lit)):
        return expr
    match expr:
        case Call(result, function, args):
            new = tuple([visit(a) for a in args])
            return expr if _same(new, args) else Call(result, function, new)
        case Cast(arg=arg):
            inner = visit(arg)
            return expr if inner is arg else Cast(expr.type, inner, expr.try_cast)
        case Case(branches=branches, otherwise=otherwise):
            return replace(
                expr,
                branches=tuple((visit(c), visit(v)) for c, v in branches),
                otherwise=None if otherwise is None else visit(otherwise),
            )
        case InList(arg=arg, options=options):
            return replace(expr, arg=visit(arg), options=tuple(visit(o) for o in options))
        case InSubquery(arg=arg):
            return replace(expr, arg=visit(arg))
        case Window(args=args, partition_by=partition_by, order_by=order_by):
            return replace(
                expr,
                args=tuple(visit(a) for a in args),
                partition_by=tuple(visit(p) for p in partition_by),
                order_by=_map_sort_keys(order_by, visit),
            )
    return expr


def _same(new: Sequence[object], old: Sequence[object]) -> bool:
    return len(new) == len(old) and all(map(operator.is_, new, old))


def _map_sort_keys(keys: Sequence[SortKey], visit: Callable[[Expr], Expr]) -> tuple[SortKey, ...]:
    return tuple(replace(k, expr=visit(k.expr)) for k in keys)


def _map_aggregate(measure: Aggregate, visit: Callable[[Expr], Expr]) -> Aggregate:
    return replace(
        measure,
        args=tuple(visit(a) for a in measure.args),
        filter=None if measure.filter is None else visit(measure.filter),
        order=_map_sort_keys(measure.order, visit),
    )


def renumber(expr: Expr, mapping: Mapping[int, int] | Callable[[int], int]) -> Expr:
    """`expr` with every column position put through `mapping` (subqueries are uncorrelated: they
    stay).
    """
    look_up = mapping if callable(mapping) else mapping.__getitem__

    def visit(node: Expr) -> Expr:
        if type(node) is Column:
            index = look_up(node.index)
            return node if index == node.index else Column(node.type, index)
        return map_children(node, visit)

    return visit(expr)


def renumber_aggregate(measure: Aggregate, mapping: Mapping[int, int]) -> Aggregate:
    """An aggregate whose column positions are put through `mapping`."""
    return _map_aggregate(measure, lambda e: renumber(e, mapping))


def _nodes(expr: Expr) -> Iterator[Expr]:
    yield expr
    for child in expr.children():
        yield from _nodes(child)


def columns_of(exprs: Iterable[Expr]) -> set[int]:
    """Positions of the columns that the expressions name."""
    found: set[int] = set()
    waiting = list(exprs)
    while waiting:
        expr = waiting.pop()
        if type(expr) is Column:
            found.add(expr.index)
        else:
            waiting += expr.children()
    return found


def column_refs(schema: Schema, positions: Sequence[int] | None = None) -> tuple[Column, ...]:
    """One `Column` for each of `positions` in `schema` (None: all)."""
    chosen = range(len(schema)) if positions is None else positions
    return tuple(Column(schema[i].type, i) for i in chosen)


def has_window(exprs: Iterable[Expr]) -> bool:
    """Whether a window function stands among the expressions."""
    return any(isinstance(e, Window) for e in exprs)


def expressions_of(rel: Rel) -> Sequence[Expr]:
    """The expressions that stand in `rel` itself, not in its inputs."""
    return rel.expressions()


def map_expressions(rel: Rel, visit: Callable[[Expr], Expr]) -> Rel:
    """`rel` with `visit` applied to each expression that stands in it."""
    match rel:
        case Scan(predicate=predicate) if predicate is not None:
            return replace(rel, predicate=visit(predicate))
        case Filter(predicate=predicate):
            return replace(rel, predicate=visit(predicate))
        case Project(exprs=exprs):
            return replace(rel, exprs=tuple(visit(e) for e in exprs))
        case Join(condition=condition) if condition is not None:
            return replace(rel, condition=visit(condition))
        case Aggregation(keys=keys, measures=measures):
            return replace(
                rel,
                keys=tuple(visit(k) for k in keys),
                measures=tuple(_map_aggregate(m, visit) for m in measures),
            )
        case Sort(keys=sort_keys):
            return replace(rel, keys=_map_sort_keys(sort_keys, visit))
        case Leading(partition_by=partition_by, key=sort_key):
            (key,) = _map_sort_keys((sort_key,), visit)
            return replace(rel, partition_by=tuple(visit(e) for e in partition_by), key=key)
        case Values(rows=rows):
            return replace(rel, rows=tuple(tuple(visit(e) for e in row) for row in rows))
    return rel


def subqueries_of(rel: Rel) -> tuple[Rel, ...]:
    """Relations inside the expressions of `rel` itself."""
    return rel.subqueries()


def every_relation(*roots: Rel) -> Iterator[Rel]:
    """Every relation once, those inside expressions included."""
    seen: set[int] = set()
    waiting = list(reversed(roots))
    while waiting:
        rel = waiting.pop()
        if (key := id(rel)) not in seen:
            seen.add(key)
            yield rel
            if inside := rel.subqueries():
                waiting += inside[::-1]
            waiting += rel.inputs()[::-1]


def map_subqueries(rel: Rel, visit: Callable[[Rel], Rel]) -> Rel:
    """`rel` with `visit` applied to each relation inside its expressions."""
    if not rel.subqueries():
        return rel

    def rewrite(node: Expr) -> Expr:
        node = map_children(node, rewrite)
        if isinstance(node, (ScalarSubquery, Exists, InSubquery)):
            return replace(node, rel=visit(node.rel))
        return node

    return map_expressions(rel, rewrite)


def with_inputs(rel: Rel, inputs: Sequence[Rel]) -> Rel:
    """`rel` over other inputs of the same schemas."""
    if _same(inputs, rel.inputs()):
        return rel
    match rel:
        case Filter(schema, _, predicate):
            (only,) = inputs
            return Filter(schema, only, predicate)
        case Project(schema, _, exprs):
            (only,) = inputs
            return Project(schema, only, exprs)
        case Join(schema, _, _, kind, left_keys, right_keys, null_equal, condition, build):
            # What `replace` does, in a quarter of the time: every pass over a plan comes here.
            left, right = inputs
            return Join(
                schema, left, right, kind, left_keys, right_keys, null_equal, condition, build
            )
        case Aggregation(schema, _, keys, measures, sets):
            (only,) = inputs
            return Aggregation(schema, only, keys, measures, sets)
        case SetOperation():
            return replace(rel, operands=tuple(inputs))
        case Sort() | Limit() | Leading():
            (only,) = inputs
            return replace(rel, input=only)
    return rel
