"""Relations of the plan IR: a small algebra that both front ends build and every back end lowers.

A relation knows its schema. Nothing here says where data lives or how a plan is split: `Scan`
names a `Source`, and what a source means is known to who made it (Parquet files, a remote frame's
handle, an exchange).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from operators.expr import (
    Aggregate,
    Column,
    Exists,
    Expr,
    InSubquery,
    Lit,
    ScalarSubquery,
    SortKey,
)
from operators.file_versions import FileVersion, VersionedFile
from operators.schema import Schema

__all__ = [
    "Aggregation",
    "Filter",
    "InputSource",
    "Join",
    "JoinKind",
    "Leading",
    "Limit",
    "ParquetSource",
    "Project",
    "Query",
    "Rel",
    "Scan",
    "SetOperation",
    "Sort",
    "Source",
    "Values",
    "versioned_files",
    "walk",
]

JoinKind = Literal["inner", "left", "right", "full", "semi", "anti", "mark", "cross", "asof"]


@dataclass(frozen=True, slots=True)
class Source:
    """Base of what a `Scan` can read."""


@dataclass(frozen=True, slots=True)
class ParquetSource(Source):
    """Parquet files that together are one table; `table` is the name that people see.

    `part` is ``(index, count)``: of `count` disjoint shares that together are the whole table,
    cut at row-group boundaries and balanced by rows (`operators.parquet_parts`), read only
    number `index`. None is the whole table. `hive` names columns, the last of the table, that are
    not in the files but in their paths (``…/year=2020/…``), with their types. `versions` are the
    states of the files, one for each, in which their footers were read; none where nobody compares
    them. `nanoseconds` names the columns that are finer than a plan's timestamps; `intervals` says
    that files have columns of Parquet's INTERVAL, which no plan can name and Polars panics over.
    These three take no part in comparisons.
    """

    table: str
    paths: tuple[str, ...]
    part: tuple[int, int] | None = None
    hive: tuple[tuple[str, pa.DataType], ...] = ()
    versions: tuple[FileVersion, ...] = field(default=(), compare=False, repr=False)
    nanoseconds: tuple[str, ...] = field(default=(), compare=False, repr=False)
    intervals: bool = field(default=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class InputSource(Source):
    """A named stream of Arrow data that the executor supplies: an opened frame, an exchange, a
    registered table.
    """

    name: str


class _Derived:
    """Room for what follows from a relation's fields, and is none of them."""

    __slots__ = ("_subqueries",)

    _subqueries: tuple[Rel, ...]


@dataclass(frozen=True, slots=True)
class Rel(_Derived):
    """Base of all relations."""

    schema: Schema

    def inputs(self) -> tuple[Rel, ...]:
        """Direct input relations (not those of subqueries inside expressions)."""
        return ()

    def expressions(self) -> Sequence[Expr]:
        """The expressions that stand in the relation itself, not in its inputs."""
        return ()

    def subqueries(self) -> tuple[Rel, ...]:
        """Relations inside these expressions, not inside one another."""
        # Whoever walks a plan asks this of every relation, and most have none.
        try:
            return self._subqueries
        except AttributeError:
            found: list[Rel] = []
            for expr in self.expressions():
                if type(expr) is not Column:
                    _collect_subqueries(expr, found)
            object.__setattr__(self, "_subqueries", tuple(found))
            return self._subqueries


def _collect_subqueries(expr: Expr, found: list[Rel]) -> None:
    if isinstance(expr, (ScalarSubquery, Exists, InSubquery)):
        found.append(expr.rel)
    for child in expr.children():
        kind = type(child)
        if kind is not Column and kind is not Lit:
            _collect_subqueries(child, found)


@dataclass(frozen=True, slots=True)
class Scan(Rel):
    """Read `columns` (positions in `source_schema`) of a source, keeping rows where `predicate`
    holds.

    `predicate` refers to positions in `source_schema`; `schema` is
    `source_schema.select(columns)`, perhaps renamed.
    """

    source: Source
    source_schema: Schema
    columns: tuple[int, ...]
    predicate: Expr | None = None

    def expressions(self) -> Sequence[Expr]:
        return () if self.predicate is None else (self.predicate,)


@dataclass(frozen=True, slots=True)
class Values(Rel):
    """Literal rows; a row of no columns is how `SELECT 1` without FROM begins."""

    rows: tuple[tuple[Expr, ...], ...]

    def expressions(self) -> Sequence[Expr]:
        return [cell for row in self.rows for cell in row]


@dataclass(frozen=True, slots=True)
class Filter(Rel):
    """Rows for which `predicate` is true."""

    input: Rel
    predicate: Expr

    def inputs(self) -> tuple[Rel, ...]:
        return (self.input,)

    def expressions(self) -> Sequence[Expr]:
        return (self.predicate,)


@dataclass(frozen=True, slots=True)
class Project(Rel):
    """One output column per expression (windows included), over the columns of `input`."""

    input: Rel
    exprs: tuple[Expr, ...]

    def inputs(self) -> tuple[Rel, ...]:
        return (self.input,)

    def expressions(self) -> Sequence[Expr]:
        return self.exprs


@dataclass(frozen=True, slots=True)
class Join(Rel):
    """Join on equal keys and a residual condition.

    `left_keys[i] = right_keys[i]` pairwise, positions in the left and in the right input; where
    `null_equal[i]`, NULLs match one another (IS NOT DISTINCT FROM). `condition` ranges over left
    columns, then right columns. Output columns: left then right for inner, left, right, full and
    cross; left only for semi and anti; left plus one boolean for mark. `build` says which side is
    to be hashed, once the optimizer knows.

    An asof join puts out every left row once, beside that right row of equal keys whose value in
    `condition` is nearest, or beside NULLs if there is none. Its `condition` is one inequality
    between an expression over left columns and one over right columns.
    """

    left: Rel
    right: Rel
    kind: JoinKind
    left_keys: tuple[int, ...] = ()
    right_keys: tuple[int, ...] = ()
    null_equal: tuple[bool, ...] = ()
    condition: Expr | None = None
    build: Literal["left", "right"] | None = None

    def inputs(self) -> tuple[Rel, ...]:
        return (self.left, self.right)

    def expressions(self) -> Sequence[Expr]:
        return () if self.condition is None else (self.condition,)


@dataclass(frozen=True, slots=True)
class Aggregation(Rel):
    """Group by `keys` (expressions over the input) and compute `measures`.

    Output: the keys, then, with several grouping sets, the grouping id as int64 (SQL's GROUPING of
    all keys), then the measures. `grouping_sets` lists positions in `keys`; None is one set of all
    keys.
    """

    input: Rel
    keys: tuple[Expr, ...]
    measures: tuple[Aggregate, ...]
    grouping_sets: tuple[tuple[int, ...], ...] | None = None

    def inputs(self) -> tuple[Rel, ...]:
        return (self.input,)

    def expressions(self) -> Sequence[Expr]:
        return [*self.keys, *(e for m in self.measures for e in m.expressions())]


@dataclass(frozen=True, slots=True)
class Sort(Rel):
    """Order rows by `keys`."""

    input: Rel
    keys: tuple[SortKey, ...]

    def inputs(self) -> tuple[Rel, ...]:
        return (self.input,)

    def expressions(self) -> Sequence[Expr]:
        return [key.expr for key in self.keys]


@dataclass(frozen=True, slots=True)
class Limit(Rel):
    """Skip `offset` rows, keep `count` (None: all the rest). Over a `Sort` it is a top-k."""

    input: Rel
    count: int | None
    offset: int = 0

    def inputs(self) -> tuple[Rel, ...]:
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Leading(Rel):
    """The rows that may be among the first `count` of their group, and perhaps others.

    A row stays if fewer than `count` rows with its `partition_by` come before it by `key`. A kernel
    may look at any part of the rows by itself, as it may for a filter: what is not among the first
    of a part is not among the first of all. `partition_by` and `key` are columns; the key's type
    has no NaN.
    """

    input: Rel
    partition_by: tuple[Expr, ...]
    key: SortKey
    count: int

    def inputs(self) -> tuple[Rel, ...]:
        return (self.input,)

    def expressions(self) -> Sequence[Expr]:
        return (*self.partition_by, self.key.expr)


@dataclass(frozen=True, slots=True)
class SetOperation(Rel):
    """SQL set operation over inputs of equal arity; `all` keeps duplicates."""

    operation: Literal["union", "intersect", "except"]
    all: bool
    operands: tuple[Rel, ...]

    def inputs(self) -> tuple[Rel, ...]:
        return self.operands


@dataclass(frozen=True, slots=True)
class Query(Rel):
    """A SELECT statement in DuckDB's SQL over inputs that it calls by `names`.

    Nothing looks into the text, so a plan that has one is computed in one place.
    `operators.duckdb.query` makes it.
    """

    text: str
    names: tuple[str, ...]
    tables: tuple[Rel, ...]

    def inputs(self) -> tuple[Rel, ...]:
        return self.tables


def versioned_files(rel: Rel) -> Iterator[VersionedFile]:
    """The files that a plan reads and whose states are known, those of subqueries among them."""
    for node in walk(rel):
        if isinstance(node, Scan) and isinstance(node.source, ParquetSource):
            yield from zip(node.source.paths, node.source.versions, strict=False)
        for below in node.subqueries():
            yield from versioned_files(below)


def walk(rel: Rel) -> Iterator[Rel]:
    """`rel` and its inputs, each object once, parents before children; relations inside
    expressions are not visited.
    """
    waiting, seen = [rel], {id(rel)}
    while waiting:
        node = waiting.pop()
        yield node
        for below in node.inputs()[::-1]:
            if (key := id(below)) not in seen:
                seen.add(key)
                waiting.append(below)
