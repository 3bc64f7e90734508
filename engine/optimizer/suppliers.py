"""Where a column's values come from: relations that tell which of them there can be."""

from __future__ import annotations

from collections.abc import Iterator

from engine.optimizer.expressions import has_window
from operators.expr import Column
from operators.rel import Filter, Join, Project, Rel, Scan, walk

__all__ = ["is_selection", "suppliers"]


def is_selection(rel: Rel) -> bool:
    """Whether `rel` is some rows of tables, and nothing has to be grouped for them."""
    selective = False
    for node in walk(rel):
        match node:
            case Scan(predicate=predicate):
                selective = selective or predicate is not None
            case Filter():
                selective = True
            case Project(exprs=exprs) if not has_window(exprs):
                pass
            case Join(kind="inner" | "semi"):
                pass
            case _:
                return False
    return selective


def suppliers(rel: Rel, position: int) -> Iterator[tuple[Rel, int]]:
    """Relations, and columns of them, that have all values of a column of `rel` (but NULL)."""
    yield rel, position
    match rel:
        case Filter(input=below):
            yield from suppliers(below, position)
        case Project(input=below, exprs=exprs) if not has_window(exprs):
            expr = exprs[position]
            if isinstance(expr, Column):
                yield from suppliers(below, expr.index)
        case Join(left=left, right=right, kind=kind):
            width = len(left.schema)
            if kind in ("inner", "semi"):
                for a, b in zip(rel.left_keys, rel.right_keys, strict=True):
                    if position == a:
                        yield from suppliers(right, b)
                    elif kind == "inner" and position == width + b:
                        yield from suppliers(left, a)
            if position < width:
                yield from suppliers(left, position)
            elif position < width + len(right.schema) and kind != "mark":
                yield from suppliers(right, position - width)
