"""Joins: conditions taken apart into equal keys and a remainder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.substrait.rewrite import columns_of, remap
from operators.expr import Call, Cast, Column, Expr
from operators.rel import Join, JoinKind, Project, Rel
from operators.rewrite import conjuncts
from operators.schema import Field, Schema
from operators.types import BOOL, common_type, same_type

__all__ = ["Side", "make_join"]


@dataclass(slots=True)
class Side:
    """An input of a join, and the key expressions to be added to it as columns."""

    rel: Rel
    extra: list[Expr] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Number of the input's own columns."""
        return len(self.rel.schema)

    def position(self, key: Expr) -> int:
        """The column that holds a key, added if the key is not a plain column."""
        if isinstance(key, Column):
            return key.index
        if key not in self.extra:
            self.extra.append(key)
        return self.width + self.extra.index(key)

    def extended(self) -> Rel:
        """The input with the added columns."""
        if not self.extra:
            return self.rel
        exprs = tuple(Column(f.type, i) for i, f in enumerate(self.rel.schema)) + tuple(self.extra)
        fields = [*self.rel.schema, *(Field(f"key_{i}", e.type) for i, e in enumerate(self.extra))]
        return Project(Schema(tuple(fields)), self.rel, exprs)


def make_join(
    left: Side, right: Side, kind: JoinKind, conditions: Sequence[Expr], swapped: bool
) -> Rel:
    """A join whose output columns are those of its inputs, whatever keys had to be computed.

    Parameters
    ----------
    conditions
        Over the columns of `left`, then of `right`.
    swapped
        Whether `right` is the side that the result keeps (semi, anti, mark).
    """
    first, second = left, right
    if swapped:
        move = {i: right.width + i for i in range(left.width)}
        move |= {left.width + i: i for i in range(right.width)}
        conditions = [remap(c, move) for c in conditions]
        first, second = right, left
    keys: list[tuple[int, int, bool]] = []
    rest: list[Expr] = []
    for condition in (term for given in conditions for term in conjuncts(given)):
        pair = _equal_pair(condition, first.width)
        if pair is None:
            rest.append(condition)
            continue
        one, other, null_equal = pair
        keys.append((first.position(one), second.position(other), null_equal))
    a, b = first.extended(), second.extended()
    if first.extra:
        # Columns of the second input move up behind the added ones.
        moved = len(a.schema) - first.width
        shift = {i: i if i < first.width else i + moved for i in range(first.width + second.width)}
        rest = [remap(c, shift) for c in rest]
    if kind == "inner" and not keys and not rest:
        kind = "cross"
    join = Join(
        _output(a, b, kind),
        a,
        b,
        kind,
        tuple(k[0] for k in keys),
        tuple(k[1] for k in keys),
        tuple(k[2] for k in keys),
        _all(rest),
    )
    return _trimmed(join, first, second)


def _output(a: Rel, b: Rel, kind: JoinKind) -> Schema:
    if kind in ("semi", "anti"):
        return a.schema
    if kind == "mark":
        return Schema((*a.schema, Field("mark", BOOL, nullable=False)))
    outer_a, outer_b = kind in ("right", "full"), kind in ("left", "full")
    return Schema(
        (
            *(Field(f.name, f.type, f.nullable or outer_a) for f in a.schema),
            *(Field(f.name, f.type, f.nullable or outer_b) for f in b.schema),
        )
    )


def _trimmed(join: Join, first: Side, second: Side) -> Rel:
    """Without the columns that were added for keys."""
    if not (first.extra or (second.extra and join.kind not in ("semi", "anti", "mark"))):
        return join
    wide = len(join.left.schema)
    kept = list(range(first.width))
    if join.kind == "mark":
        kept.append(wide)
    elif join.kind not in ("semi", "anti"):
        kept += range(wide, wide + second.width)
    exprs = tuple(Column(join.schema[i].type, i) for i in kept)
    return Project(join.schema.select(kept), join, exprs)


def _equal_pair(condition: Expr, width: int) -> tuple[Expr, Expr, bool] | None:
    """Key expressions of the left and of the right input, of one type, if that is what the
    condition compares.
    """
    if not isinstance(condition, Call) or len(condition.args) != 2:
        return None
    if condition.function not in ("equal", "is_not_distinct_from"):
        return None
    one, other = condition.args
    used = [columns_of(one), columns_of(other)]
    if None in used or not used[0] or not used[1]:
        return None
    sides = [{i < width for i in u} for u in used if u is not None]
    if sides == [{False}, {True}]:
        one, other = other, one
    elif sides != [{True}, {False}]:
        return None
    other = remap(other, {i: i - width for i in columns_of(other) or ()})
    if not same_type(one.type, other.type):
        type = common_type(one.type, other.type)
        one = one if same_type(one.type, type) else Cast(type, one)
        other = other if same_type(other.type, type) else Cast(type, other)
    return one, other, condition.function == "is_not_distinct_from"


def _all(conditions: Sequence[Expr]) -> Expr | None:
    if len(conditions) > 1:
        return Call(BOOL, "and", tuple(conditions))
    return conditions[0] if conditions else None
