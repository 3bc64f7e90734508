"""What DuckDB must not stream."""

from __future__ import annotations

from collections.abc import Iterator

from operators.expr import Window
from operators.rel import Filter, Join, Leading, Limit, Project, Rel, SetOperation
from operators.work import is_work

__all__ = ["streamed_unions"]


def streamed_unions(rel: Rel) -> Iterator[SetOperation]:
    """Unions of more than scans whose rows are the statement's without anything collecting them.

    While its answer is read, DuckDB 1.5.5 may wait for ever if such a union gives more than a
    megabyte (`streaming_buffer_size`): a branch waits for its rows to be taken, and the reader for
    all branches but one to have come to their ends. So these are collected first.
    """
    waiting, seen = [rel], {id(rel)}
    while waiting:
        node = waiting.pop()
        match node:
            case SetOperation(operation="union", all=True, operands=operands):
                if any(map(is_work, operands)):
                    yield node
                continue
            case Project(exprs=exprs) if any(isinstance(e, Window) for e in exprs):
                continue
            case Project() | Filter() | Limit() | Leading() | Join():
                for below in node.inputs():
                    if id(below) not in seen:
                        seen.add(id(below))
                        waiting.append(below)
