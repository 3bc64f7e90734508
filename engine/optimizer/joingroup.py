"""A group of inner joins taken apart into relations and conditions, and put together again.

Columns are numbered through all relations of the group, so that conditions hold whatever the order
of the joins.

Joins that only look something up for the rows of their left side (semi, anti, mark and left joins)
commute with the inner joins around them: each such right side is *attached* once the columns that
it is looked up by are there, whatever has been joined to them before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from engine.optimizer.expressions import columns_of, renumber
from engine.optimizer.predicates import conjunction, conjuncts
from operators import build
from operators.expr import Column, Expr
from operators.rel import Filter, Join, Project, Rel
from operators.schema import Schema

__all__ = ["Attached", "Equality", "JoinGroup", "Piece", "RowEstimates", "is_attaching", "is_inner"]


class RowEstimates(Protocol):
    """What ordering joins asks."""

    def rows(self, rel: Rel) -> float:
        """Estimated rows of `rel`."""


def is_inner(rel: Rel) -> bool:
    """Whether `rel` is a join whose order is free."""
    return isinstance(rel, Join) and rel.kind in ("inner", "cross")


def is_attaching(rel: Rel) -> bool:
    """Whether `rel` is a join that keeps, drops or widens rows of its left side."""
    return isinstance(rel, Join) and rel.kind in ("semi", "anti", "mark", "left")


def _leads_to_join(rel: Rel, attaching: bool) -> bool:
    """Whether `rel` is a join of a group under nothing but filters and choices of columns."""
    while True:
        match rel:
            case Filter(input=below):
                rel = below
            case Project(input=below, exprs=exprs) if all(isinstance(e, Column) for e in exprs):
                rel = below
            case _:
                return is_inner(rel) or (attaching and is_attaching(rel))


@dataclass(frozen=True, slots=True)
class Equality:
    """Two columns of the group that must be equal."""

    one: int
    other: int
    null_equal: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Relations already joined; `columns` are the group's numbers of the output columns."""

    rel: Rel
    columns: tuple[int, ...]

    def at(self) -> dict[int, int]:
        """From the group's numbers to positions."""
        return {number: position for position, number in enumerate(self.columns)}


@dataclass(frozen=True, slots=True)
class Attached:
    """The right side of a semi, anti, mark or left join, and how rows find it.

    Attributes
    ----------
    join
        The join that it stood in, which says its kind and its output's fields.
    rel
        The right side.
    on
        The group's columns that its keys are compared with.
    columns
        The group's numbers of its columns, or of the mark.
    condition
        Over the group's columns, those of the right side numbered as in `inner`.
    inner
        The group's numbers of the right side's columns in `condition`.
    needs
        All columns of the group that must be there before.
    """

    join: Join
    rel: Rel
    on: tuple[int, ...]
    columns: tuple[int, ...]
    condition: Expr | None
    inner: tuple[int, ...]
    needs: frozenset[int]


@dataclass(slots=True)
class JoinGroup:
    """Relations and the conditions among them; columns are numbered through all relations.

    With `attaching` joins that keep, drop or widen rows of their left side belong to the group.
    """

    stays: Callable[[Rel], bool]
    visit: Callable[[Rel], Rel]
    attaching: bool = False
    relations: list[Piece] = field(default_factory=list)
    attached: list[Attached] = field(default_factory=list)
    equalities: list[Equality] = field(default_factory=list)
    conditions: list[Expr] = field(default_factory=list)
    _columns: int = 0

    # Taking apart

    def take_apart(self, rel: Rel, top: bool = False) -> list[int]:
        """Add `rel` to the group; returns the numbers of its output columns.

        What others read too stays whole below the top: it is computed once for all.
        """
        if top or (_leads_to_join(rel, self.attaching) and not self.stays(rel)):
            match rel:
                case Join() if is_inner(rel):
                    return self._take_join(rel)
                case Join():
                    return self._take_attached(rel)
                case Filter(input=below):
                    columns = self.take_apart(below)
                    self.add(rel.predicate, columns)
                    return columns
                case Project(input=below, exprs=exprs):
                    columns = self.take_apart(below)
                    return [columns[e.index] for e in exprs if isinstance(e, Column)]
        rel = self.visit(rel)
        columns = self._numbers(len(rel.schema))
        self.relations.append(Piece(rel, tuple(columns)))
        return columns

    def _numbers(self, count: int) -> list[int]:
        """Numbers for new columns."""
        first, self._columns = self._columns, self._columns + count
        return list(range(first, self._columns))

    def _take_join(self, rel: Join) -> list[int]:
        left, right = self.take_apart(rel.left), self.take_apart(rel.right)
        flags = rel.null_equal or (False,) * len(rel.left_keys)
        for lk, rk, null in zip(rel.left_keys, rel.right_keys, flags, strict=True):
            self.equalities.append(Equality(left[lk], right[rk], null))
        columns = left + right
        self.add(rel.condition, columns)
        return columns

    def _take_attached(self, rel: Join) -> list[int]:
        left = self.take_apart(rel.left)
        right = self.visit(rel.right)
        inner = self._numbers(len(right.schema))
        condition, needs = None, {left[k] for k in rel.left_keys}
        if rel.condition is not None:
            condition = renumber(rel.condition, [*left, *inner].__getitem__)
            needs |= columns_of([condition]) - set(inner)
        own: list[int] = []
        if rel.kind == "left":
            own = inner
        elif rel.kind == "mark":
            own = self._numbers(1)
        on = tuple(left[k] for k in rel.left_keys)
        self.attached.append(
            Attached(rel, right, on, tuple(own), condition, tuple(inner), frozenset(needs))
        )
        return left + own

    def add(self, predicate: Expr | None, columns: Sequence[int]) -> None:
        self.conditions += [renumber(p, columns.__getitem__) for p in conjuncts(predicate)]

    # Putting together

    def finish(self, piece: Piece, schema: Schema, outputs: Sequence[int]) -> Rel:
        """`piece`, which holds the whole group, with the columns at `outputs`."""
        at = piece.at()
        exprs = tuple(Column(f.type, at[n]) for f, n in zip(schema, outputs, strict=True))
        return Project(schema, piece.rel, exprs)

    def in_order(self, pieces: Sequence[Piece], estimates: RowEstimates) -> Piece:
        """`pieces` joined in their order, but those that no condition connects yet later."""
        waiting = list(pieces)
        done = waiting.pop(0)
        while waiting:
            following = next((p for p in waiting if any(self.between(done, p))), waiting[0])
            waiting.remove(following)
            done = self.joined(done, following, estimates)
        return done

    def filtered(self, piece: Piece) -> Piece:
        """A relation behind the conditions that are about it alone."""
        own = [c for c in self.conditions if columns_of([c]) <= set(piece.columns)]
        predicate = conjunction([renumber(c, piece.at()) for c in own])
        if predicate is None:
            return piece
        self.conditions = [c for c in self.conditions if c not in own]
        return Piece(Filter(piece.rel.schema, piece.rel, predicate), piece.columns)

    def between(self, one: Piece, other: Piece) -> Iterator[Equality]:
        """Equalities between two pieces, each with its side in `one` first."""
        ones, others = set(one.columns), set(other.columns)
        for e in self.equalities:
            if e.one in ones and e.other in others:
                yield e
            elif e.other in ones and e.one in others:
                yield Equality(e.other, e.one, e.null_equal)

    def attach(self, piece: Piece, one: Attached) -> Piece:
        """`piece` with its rows looked up in `one`, behind the conditions that this makes known."""
        at = piece.at()
        width = len(piece.columns)
        placed = at | {number: width + i for i, number in enumerate(one.inner)}
        fields = one.join.schema.fields
        join = replace(
            one.join,
            schema=Schema(piece.rel.schema.fields + fields[len(fields) - len(one.columns) :])
            if one.columns
            else piece.rel.schema,
            left=piece.rel,
            right=one.rel,
            left_keys=tuple(at[c] for c in one.on),
            condition=None if one.condition is None else renumber(one.condition, placed),
        )
        columns = piece.columns + one.columns
        known, before = set(columns), set(piece.columns)
        terms = [c for c in self.conditions if (used := columns_of([c])) <= known and used - before]
        terms += [_equal(e, join.schema, columns) for e in self._inside(known, before)]
        at = {number: position for position, number in enumerate(columns)}
        predicate = conjunction([renumber(t, at) for t in terms])
        rel: Rel = join if predicate is None else Filter(join.schema, join, predicate)
        return Piece(rel, columns)

    def _inside(self, known: set[int], before: set[int]) -> list[Equality]:
        """Equalities of which the one column came after the other was there."""
        return [
            e
            for e in self.equalities
            if {e.one, e.other} <= known and not {e.one, e.other} <= before
        ]

    def joined(self, one: Piece, other: Piece, estimates: RowEstimates) -> Piece:
        if estimates.rows(one.rel) < estimates.rows(other.rel):
            one, other = other, one
        columns = one.columns + other.columns
        known, before = set(columns), (set(one.columns), set(other.columns))
        equal = list(dict.fromkeys(self.between(one, other)))
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
        return Piece(join, columns)


def _equal(equality: Equality, schema: Schema, columns: Sequence[int]) -> Expr:
    """An equality as a condition over the group's columns, of which `schema` has `columns`."""
    one, other = (Column(schema[columns.index(c)].type, c) for c in (equality.one, equality.other))
    return build.call("is_not_distinct_from" if equality.null_equal else "equal", one, other)
