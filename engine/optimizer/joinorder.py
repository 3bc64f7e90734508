"""The order of inner joins, by estimated sizes.

The planner in front joins in the order in which the query names its tables. Here a group of inner
joins is taken apart into relations and conditions and put together again, each time joining the
two pieces whose result is estimated smallest. Pieces that no condition connects wait until there
is nothing else to do. The larger side goes left, where rows stream; the smaller right, where they
are hashed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol

from engine.optimizer.expressions import (
    columns_of,
    map_subqueries,
    renumber,
    with_inputs,
)
from engine.optimizer.sharing import LARGE_ROWS, shared, worth_sharing
from operators.expr import Call, Column, Expr
from operators.rel import Filter, Join, Project, Rel
from operators.schema import Schema
from operators.types import BOOL

__all__ = ["conjunction", "conjuncts", "order_joins"]

# Greedy ordering compares all pairs in each step.
_MOST_RELATIONS = 40


class RowEstimates(Protocol):
    """What join ordering asks."""

    def rows(self, rel: Rel) -> float:
        """Estimated rows of `rel`."""


def conjuncts(predicate: Expr | None) -> list[Expr]:
    """The parts of a conjunction."""
    match predicate:
        case None:
            return []
        case Call(function="and", args=args):
            return [part for arg in args for part in conjuncts(arg)]
    return [predicate]


def conjunction(parts: Sequence[Expr]) -> Expr | None:
    """Parts that must all hold, as one expression; None for none."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return Call(BOOL, "and", tuple(parts))


def order_joins(plan: Rel, estimates: RowEstimates) -> Rel:
    """`plan` (interned) with its groups of three and more inner joins reordered."""
    several = shared(plan)
    verdicts: dict[int, bool] = {}

    def stays(rel: Rel) -> bool:
        """Whether `rel` is computed once for several readers, and so must stay what it is."""
        if id(rel) not in several:
            return False
        if id(rel) not in verdicts:
            verdicts[id(rel)] = worth_sharing(rel, estimates.rows, LARGE_ROWS)
        return verdicts[id(rel)]

    done: dict[int, Rel] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            done[id(rel)] = rebuild(rel)
        return done[id(rel)]

    def rebuild(rel: Rel) -> Rel:
        if _is_inner(rel):
            group = _Group(stays, visit)
            outputs = group.take_apart(rel, top=True)
            if 2 < len(group.relations) <= _MOST_RELATIONS:
                return group.put_together(rel.schema, outputs, estimates)
        rel = map_subqueries(rel, visit)
        return with_inputs(rel, [visit(i) for i in rel.inputs()])

    return visit(plan)


def _is_inner(rel: Rel) -> bool:
    return isinstance(rel, Join) and rel.kind in ("inner", "cross")


def _leads_to_inner(rel: Rel) -> bool:
    """Whether `rel` is an inner join under nothing but filters and choices of columns."""
    while True:
        match rel:
            case Filter(input=below):
                rel = below
            case Project(input=below, exprs=exprs) if all(isinstance(e, Column) for e in exprs):
                rel = below
            case _:
                return _is_inner(rel)


@dataclass(frozen=True, slots=True)
class _Equality:
    """Two columns of the group that must be equal."""

    one: int
    other: int
    null_equal: bool


@dataclass(frozen=True, slots=True)
class _Piece:
    """Relations already joined; `columns` are the group's numbers of the output columns."""

    rel: Rel
    columns: tuple[int, ...]

    def at(self) -> dict[int, int]:
        """From the group's numbers to positions."""
        return {number: position for position, number in enumerate(self.columns)}


@dataclass(slots=True)
class _Group:
    """Relations and the conditions among them; columns are numbered through all relations."""

    stays: Callable[[Rel], bool]
    visit: Callable[[Rel], Rel]
    relations: list[_Piece] = field(default_factory=list)
    equalities: list[_Equality] = field(default_factory=list)
    conditions: list[Expr] = field(default_factory=list)
    _columns: int = 0

    # Taking apart

    def take_apart(self, rel: Rel, top: bool = False) -> list[int]:
        """Add `rel` to the group; returns the numbers of its output columns.

        What others read too stays whole below the top: it is computed once for all.
        """
        if top or (_leads_to_inner(rel) and not self.stays(rel)):
            match rel:
                case Join():
                    return self._take_join(rel)
                case Filter(input=below):
                    columns = self.take_apart(below)
                    self._add(rel.predicate, columns)
                    return columns
                case Project(input=below, exprs=exprs):
                    columns = self.take_apart(below)
                    return [columns[e.index] for e in exprs if isinstance(e, Column)]
        rel = self.visit(rel)
        columns = list(range(self._columns, self._columns + len(rel.schema)))
        self._columns += len(columns)
        self.relations.append(_Piece(rel, tuple(columns)))
        return columns

    def _take_join(self, rel: Join) -> list[int]:
        left, right = self.take_apart(rel.left), self.take_apart(rel.right)
        flags = rel.null_equal or (False,) * len(rel.left_keys)
        for lk, rk, null in zip(rel.left_keys, rel.right_keys, flags, strict=True):
            self.equalities.append(_Equality(left[lk], right[rk], null))
        columns = left + right
        self._add(rel.condition, columns)
        return columns

    def _add(self, predicate: Expr | None, columns: Sequence[int]) -> None:
        self.conditions += [renumber(p, columns.__getitem__) for p in conjuncts(predicate)]

    # Putting together

    def put_together(self, schema: Schema, outputs: Sequence[int], estimates: RowEstimates) -> Rel:
        """The group in the order that is estimated best, with the columns that it had."""
        pieces = [self._filtered(p) for p in self.relations]
        joins: dict[tuple[int, int], _Piece] = {}

        def joined(pair: tuple[_Piece, _Piece]) -> _Piece:
            key = (id(pair[0]), id(pair[1]))
            if key not in joins:
                joins[key] = self._joined(*pair, estimates)
            return joins[key]

        while len(pieces) > 1:
            pairs = [p for p in combinations(pieces, 2) if any(self._between(*p))]
            pairs = pairs or list(combinations(pieces, 2))
            best = min(pairs, key=lambda p: estimates.rows(joined(p).rel))
            pieces = [p for p in pieces if p is not best[0] and p is not best[1]] + [joined(best)]
        (piece,) = pieces
        at = piece.at()
        exprs = tuple(Column(f.type, at[n]) for f, n in zip(schema, outputs, strict=True))
        return Project(schema, piece.rel, exprs)

    def _filtered(self, piece: _Piece) -> _Piece:
        """A relation behind the conditions that are about it alone."""
        own = [c for c in self.conditions if columns_of([c]) <= set(piece.columns)]
        predicate = conjunction([renumber(c, piece.at()) for c in own])
        if predicate is None:
            return piece
        self.conditions = [c for c in self.conditions if c not in own]
        return _Piece(Filter(piece.rel.schema, piece.rel, predicate), piece.columns)

    def _between(self, one: _Piece, other: _Piece) -> Iterator[_Equality]:
        """Equalities between two pieces, each with its side in `one` first."""
        ones, others = set(one.columns), set(other.columns)
        for e in self.equalities:
            if e.one in ones and e.other in others:
                yield e
            elif e.other in ones and e.one in others:
                yield _Equality(e.other, e.one, e.null_equal)

    def _joined(self, one: _Piece, other: _Piece, estimates: RowEstimates) -> _Piece:
        if estimates.rows(one.rel) < estimates.rows(other.rel):
            one, other = other, one
        columns = one.columns + other.columns
        known, before = set(columns), (set(one.columns), set(other.columns))
        equal = list(dict.fromkeys(self._between(one, other)))
        conditions = [
            c
            for c in self.conditions
            if (used := columns_of([c])) <= known and not any(used <= side for side in before)
        ]
        at_one, at_other = one.at(), other.at()
        at = {number: position for position, number in enumerate(columns)}
        join = Join(
            Schema(one.rel.schema.fields + other.rel.schema.fields),
            one.rel,
            other.rel,
            "inner" if equal or conditions else "cross",
            tuple(at_one[e.one] for e in equal),
            tuple(at_other[e.other] for e in equal),
            tuple(e.null_equal for e in equal),
            conjunction([renumber(c, at) for c in conditions]),
        )
        return _Piece(join, columns)
