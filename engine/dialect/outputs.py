"""What a bound query is, and what binding needs of a catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlglot import exp

from engine.errors import SqlError

__all__ = ["BoundQuery", "Output", "TableLookup", "renamed"]


class TableLookup(Protocol):
    """What the binder needs of a catalog."""

    def resolve(self, name: str) -> tuple[str, Sequence[tuple[str, str]]]:
        """The registered name of a table, and name and DuckDB type of each column.

        Raises
        ------
        engine.errors.TableNotFoundError
            If there is none, matched without regard to case.
        """


@dataclass(frozen=True, slots=True)
class Output:
    """A column of a query: the name that people see, DataFusion's name for it, its DuckDB type."""

    name: str
    alias: str
    type: str


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """A query in DataFusion's SQL, and its columns."""

    text: str
    outputs: tuple[Output, ...]


def renamed(outputs: Sequence[Output], columns: Sequence[exp.Expr] | None) -> tuple[Output, ...]:
    """Columns under the names of an alias's column list, which may name only the first."""
    if not columns:
        return tuple(outputs)
    if len(columns) > len(outputs):
        raise SqlError(f"{len(columns)} column names for {len(outputs)} columns")
    names = [c.name for c in columns] + [o.name for o in outputs[len(columns) :]]
    return tuple(Output(n, o.alias, o.type) for n, o in zip(names, outputs, strict=True))
