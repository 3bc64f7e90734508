"""Small rewrites of expressions that reading plans needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from operators.expr import (
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

__all__ = ["columns_of", "remap"]


def columns_of(expr: Expr) -> set[int] | None:
    """Positions that an expression refers to; None if it holds a subquery (no join key)."""
    if isinstance(expr, Column):
        return {expr.index}
    if isinstance(expr, ScalarSubquery | Exists | InSubquery):
        return None
    found: set[int] = set()
    for child in expr.children():
        inner = columns_of(child)
        if inner is None:
            return None
        found |= inner
    return found


def remap(expr: Expr, positions: Mapping[int, int]) -> Expr:
    """The same expression over columns at other positions."""
    match expr:
        case Column(index=index):
            return Column(expr.type, positions[index])
        case Lit() | ScalarSubquery() | Exists():
            return expr
        case Call(args=args):
            return replace(expr, args=tuple(remap(a, positions) for a in args))
        case Cast(arg=arg):
            return replace(expr, arg=remap(arg, positions))
        case Case(branches=branches, otherwise=otherwise):
            return replace(
                expr,
                branches=tuple((remap(c, positions), remap(v, positions)) for c, v in branches),
                otherwise=None if otherwise is None else remap(otherwise, positions),
            )
        case InList(arg=arg, options=options):
            return replace(
                expr,
                arg=remap(arg, positions),
                options=tuple(remap(o, positions) for o in options),
            )
        case InSubquery(arg=arg):
            return replace(expr, arg=remap(arg, positions))
        case Window(args=args, partition_by=partition_by, order_by=order_by):
            return replace(
                expr,
                args=tuple(remap(a, positions) for a in args),
                partition_by=tuple(remap(p, positions) for p in partition_by),
                order_by=tuple(
                    SortKey(remap(k.expr, positions), k.descending, k.nulls_first) for k in order_by
                ),
            )
    raise TypeError(f"not an expression of the IR: {expr!r}")
