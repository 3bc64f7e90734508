"""Exceptions of the engine room."""

from __future__ import annotations

from libd.errors import ScadError

__all__ = [
    "DataError",
    "EngineError",
    "NestingError",
    "PlanningError",
    "SqlError",
    "SqlSyntaxError",
    "TableNotFoundError",
    "UnsupportedSqlError",
]


class EngineError(ScadError):
    """Base of everything that this room raises on purpose."""


class SqlError(EngineError):
    """What DuckDB's rules forbid: an unknown column, types that do not fit. One line."""


class SqlSyntaxError(SqlError):
    """Text that is not SQL. `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column


class UnsupportedSqlError(SqlError):
    """Correct SQL of a kind that this engine does not plan; the message names the construct."""


class NestingError(UnsupportedSqlError):
    """A query or plan that nests deeper than the engine follows; the message says of what."""


class TableNotFoundError(SqlError):
    """A table that nobody registered; `near` holds registered names that look like it."""

    def __init__(self, name: str, near: tuple[str, ...] = ()) -> None:
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        super().__init__(f"there is no table {name!r}{hint}")
        self.name = name
        self.near = near


class DataError(EngineError):
    """A data file that is missing, unreadable or not what its table says; the message names the
    file.
    """


class PlanningError(EngineError):
    """The planner produced something that the front end does not understand: a defect, not the
    user's fault.
    """
