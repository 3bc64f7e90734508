"""Expressions of the plan IR.

Every expression knows its Arrow type. Columns are positions in the input relation; for a join,
positions run over the left columns and then the right ones. Function names are the IR's own small
vocabulary (`FUNCTIONS` in `operators.functions`), not those of any engine: lowering translates
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

if TYPE_CHECKING:
    from operators.rel import Rel

__all__ = [
    "Aggregate",
    "Call",
    "Case",
    "Cast",
    "Column",
    "Exists",
    "Expr",
    "FrameBound",
    "InList",
    "InSubquery",
    "Lit",
    "ScalarSubquery",
    "SortKey",
    "Window",
]


@dataclass(frozen=True, slots=True)
class Expr:
    """Base of all scalar expressions; `type` is the Arrow type of its value."""

    type: pa.DataType

    def children(self) -> Iterator[Expr]:
        """Direct sub-expressions (not those inside subqueries)."""
        return iter(())


@dataclass(frozen=True, slots=True)
class Column(Expr):
    """Column number `index` of the input."""

    index: int


@dataclass(frozen=True, slots=True, eq=False)
class Lit(Expr):
    """A constant. `value` is a Python value that `pa.scalar(value, type)` accepts, or None for a
    typed NULL.

    Intervals are `(months, days, nanoseconds)` of type `pa.month_day_nano_interval()`. Constants
    are equal if they stand for the same bits: NaN is NaN, and -0.0 is not 0.0.
    """

    value: Any

    def _bits(self) -> tuple[pa.DataType, Any]:
        value = self.value
        return self.type, value.hex() if type(value) is float else value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lit) and self._bits() == other._bits()

    def __hash__(self) -> int:
        return hash(self._bits())


@dataclass(frozen=True, slots=True)
class Call(Expr):
    """A scalar function of the IR's vocabulary."""

    function: str
    args: tuple[Expr, ...]

    def children(self) -> Iterator[Expr]:
        return iter(self.args)


@dataclass(frozen=True, slots=True)
class Cast(Expr):
    """DuckDB's CAST to `type`; `try_cast` gives NULL where CAST would raise."""

    arg: Expr
    try_cast: bool = False

    def children(self) -> Iterator[Expr]:
        return iter((self.arg,))


@dataclass(frozen=True, slots=True)
class Case(Expr):
    """Searched CASE: the value of the first branch whose condition is true, else `otherwise`
    (None: NULL).
    """

    branches: tuple[tuple[Expr, Expr], ...]
    otherwise: Expr | None = None

    def children(self) -> Iterator[Expr]:
        for condition, value in self.branches:
            yield condition
            yield value
        if self.otherwise is not None:
            yield self.otherwise


@dataclass(frozen=True, slots=True)
class InList(Expr):
    """`arg IN (options…)` with SQL's three-valued logic."""

    arg: Expr
    options: tuple[Expr, ...]

    def children(self) -> Iterator[Expr]:
        yield self.arg
        yield from self.options


@dataclass(frozen=True, slots=True)
class ScalarSubquery(Expr):
    """The single value of an uncorrelated one-column relation; NULL if it is empty, an error if it
    has two rows.
    """

    rel: Rel


@dataclass(frozen=True, slots=True)
class Exists(Expr):
    """Whether an uncorrelated relation has a row."""

    rel: Rel


@dataclass(frozen=True, slots=True)
class InSubquery(Expr):
    """`arg IN (SELECT …)`, uncorrelated, with SQL's three-valued logic."""

    arg: Expr
    rel: Rel

    def children(self) -> Iterator[Expr]:
        return iter((self.arg,))


@dataclass(frozen=True, slots=True)
class SortKey:
    """One ORDER BY term. NULL placement is always explicit."""

    expr: Expr
    descending: bool = False
    nulls_first: bool = False


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate of the IR's vocabulary over a group; not an `Expr`: it stands only in
    `operators.rel.Aggregation`.

    `count` without arguments counts rows.
    """

    type: pa.DataType
    function: str
    args: tuple[Expr, ...] = ()
    distinct: bool = False
    filter: Expr | None = None
    order: tuple[SortKey, ...] = ()

    def expressions(self) -> Iterator[Expr]:
        """Arguments, filter and order."""
        yield from self.args
        if self.filter is not None:
            yield self.filter
        for key in self.order:
            yield key.expr


@dataclass(frozen=True, slots=True)
class FrameBound:
    """A window frame's edge; `offset` counts rows for preceding and following."""

    kind: Literal["unbounded", "preceding", "current", "following"]
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Window(Expr):
    """`function(args) OVER (PARTITION BY … ORDER BY … frame)`; stands only at the top level of a
    `Project`.

    `frame` is None where the function ignores it (ranking functions) or SQL's default holds. With
    `distinct` an aggregate sees each value once.
    """

    function: str
    args: tuple[Expr, ...]
    partition_by: tuple[Expr, ...] = ()
    order_by: tuple[SortKey, ...] = ()
    frame: tuple[Literal["rows", "range"], FrameBound, FrameBound] | None = None
    distinct: bool = False

    def children(self) -> Iterator[Expr]:
        yield from self.args
        yield from self.partition_by
        for key in self.order_by:
            yield key.expr
