"""Which rows of a scan matter, as the joins above it say: those whose keys the other side has.

A row of a scan reaches a join as it is or not at all through filters, projections, unions and the
kept sides of joins. If nothing else reads it on the way, keys that the other side of the join does
not have need not be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import pyarrow.types as pt

from engine.optimizer.expressions import (
    has_window,
    map_subqueries,
    subqueries_of,
    with_inputs,
)
from operators.expr import Cast, Column, Expr
from operators.rel import (
    Aggregation,
    Filter,
    InputSource,
    Join,
    ParquetSource,
    Project,
    Rel,
    Scan,
    SetOperation,
    Source,
)

__all__ = ["KeyOrigin", "Readers", "WithSources", "can_be_asked", "key_origins"]

# Joins through which a row of one side goes as it is, or not at all.
_LEFT_ROWWISE = ("inner", "left", "semi", "anti", "mark", "cross")
_RIGHT_ROWWISE = ("inner", "right", "cross")


class Readers:
    """The relations of a plan, each once, parents first; and how many read each."""

    def __init__(self, plan: Rel) -> None:
        relations: dict[int, Rel] = {}
        self._count: Counter[int] = Counter()

        def visit(rel: Rel) -> None:
            if id(rel) in relations:
                return
            relations[id(rel)] = rel
            for below in (*rel.inputs(), *subqueries_of(rel)):
                self._count[id(below)] += 1
                visit(below)

        visit(plan)
        self.relations = tuple(relations.values())

    def alone(self, rel: Rel) -> bool:
        """Whether one other relation reads `rel`, and no more."""
        return self._count[id(rel)] == 1


@dataclass(frozen=True, slots=True)
class KeyOrigin:
    """Of `scan` only rows matter whose value at `column` is among the values of `small` at `key`.

    Both are signed integers, perhaps of different width.
    """

    scan: Scan
    column: int
    small: Rel
    key: int


def key_origins(join: Join, readers: Readers) -> Iterator[KeyOrigin]:
    """What an inner or semi join says of scans below it."""
    if join.kind not in ("inner", "semi"):
        return
    sides = [(join.left, join.right, join.left_keys, join.right_keys)]
    if join.kind == "inner":
        sides.append((join.right, join.left, join.right_keys, join.left_keys))
    for big, small, big_keys, small_keys in sides:
        for a, b, nulls in zip(big_keys, small_keys, join.null_equal, strict=True):
            if nulls or not pt.is_signed_integer(small.schema[b].type):
                continue
            for scan, column in _origins(big, a, readers):
                if pt.is_signed_integer(scan.schema[column].type):
                    yield KeyOrigin(scan, column, small, b)


def can_be_asked(rel: Rel, inputs: Collection[str]) -> bool:
    """Whether `rel` reads whole tables, row by row, and leaves out some of its keys.

    Parameters
    ----------
    inputs
        Names of `InputSource`s that may be read, beside base tables.
    """
    selective = False
    for node in Readers(rel).relations:
        match node:
            case Scan(source=ParquetSource(part=None), predicate=predicate):
                selective = selective or predicate is not None
            case Scan(source=InputSource(name=name)) if name in inputs:
                selective = True
            case Filter():
                selective = True
            case Project(exprs=exprs) if not has_window(exprs):
                pass
            case Join(kind="inner" | "semi"):
                pass
            case _:
                return False
    return selective


class WithSources:
    """Relations with some of their scans' sources replaced; those that several read still are one
    object.

    Parameters
    ----------
    sources
        By the `id` of a scan, which has to live as long as this.
    """

    def __init__(self, sources: Mapping[int, Source]) -> None:
        self._sources = sources
        self._done: dict[int, tuple[Rel, Rel]] = {}

    def __call__(self, rel: Rel) -> Rel:
        """`rel`, with everything below it that has such scans made anew."""
        if id(rel) not in self._done:
            node = rel
            if isinstance(rel, Scan) and id(rel) in self._sources:
                node = replace(rel, source=self._sources[id(rel)])
            node = map_subqueries(node, self)
            node = with_inputs(node, [self(i) for i in node.inputs()])
            self._done[id(rel)] = rel, node
        return self._done[id(rel)][1]


def _origins(rel: Rel, position: int, readers: Readers) -> Iterator[tuple[Scan, int]]:
    """The scans, and the positions in them, that a column of `rel` is, as far as their rows reach
    `rel` one by one, or in groups of that column, and go nowhere else.
    """
    if not readers.alone(rel):
        return
    match rel:
        case Scan():
            yield rel, position
        case Filter(input=below):
            yield from _origins(below, position, readers)
        case Project(input=below, exprs=exprs) if not has_window(exprs):
            yield from _origins_of(exprs[position], below, readers)
        case Aggregation(input=below, keys=keys, grouping_sets=None) if position < len(keys):
            yield from _origins_of(keys[position], below, readers)
        case SetOperation(operation="union", operands=operands):
            for operand in operands:
                yield from _origins(operand, position, readers)
        case Join(left=left, right=right, kind=kind):
            width = len(left.schema)
            if position < width:
                if kind in _LEFT_ROWWISE:
                    yield from _origins(left, position, readers)
            elif kind in _RIGHT_ROWWISE:
                yield from _origins(right, position - width, readers)


def _origins_of(expr: Expr, below: Rel, readers: Readers) -> Iterator[tuple[Scan, int]]:
    if isinstance(expr, Cast) and pt.is_integer(expr.type):
        expr = expr.arg  # the same number; of other than integers no keys are asked for
    if isinstance(expr, Column):
        yield from _origins(below, expr.index, readers)
