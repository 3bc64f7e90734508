"""What DuckDB itself says about an expression: its types, the casts that it implies, the value of a
constant.

The dialect is DuckDB's, and the surest way to follow its rules is to ask. One private in-memory
connection binds expressions over typed placeholders (never over data) and evaluates constants.
Answers are cached: they depend on nothing but the question.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
from sqlglot import exp

from engine.dialect.parse import parse
from engine.dialect.types import duck_type
from engine.errors import PlanningError, SqlError, UnsupportedSqlError
from operators.schema import Schema

__all__ = ["Constant", "Oracle", "one_line", "quote"]

Constant = tuple[str, Any]
"""A DuckDB type name and the value as pyarrow gives it to Python (dates and times as integers)."""

_CACHE_LIMIT = 20_000
# In a text the quotes would be escaped.
_NO_NUMBER = re.compile(r'"value":(-?Infinity|NaN)\b')


def one_line(error: Exception) -> str:
    """DuckDB's message without its kind, its picture of the statement and its line breaks."""
    text = str(error).split("\n\nLINE ")[0].strip()
    kind, colon, rest = text.partition("Error: ")
    return " ".join((rest if colon and len(kind) < 30 else text).split())


def quote(name: str) -> str:
    """An identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


class _Answer(msgspec.Struct):
    """Of `json_serialize_plan`."""

    error: bool
    error_message: str = ""
    plans: msgspec.Raw = msgspec.Raw()


class Oracle:
    """DuckDB's rules, by question and answer. Safe to share between threads."""

    def __init__(self) -> None:
        self._connection = _private(
            duckdb.connect(config={"threads": 1, "enable_external_access": False})
        )
        self._lock = threading.Lock()
        # Whole queries are described beside what else is done for them, without Python's lock.
        self._describing = _private(self._connection.cursor())
        self._beside = ThreadPoolExecutor(1, "describe")
        self._beside.submit(_functions_by_stability)
        # As they come: thousands of small objects are work for Python's garbage collector.
        self._bound: dict[str, msgspec.Raw] = {}
        self._values: dict[str, Constant | None] = {}
        self._tables: dict[str, Schema] = {}

    def close(self) -> None:
        """Close the connection."""
        self._beside.shutdown()
        self._describing.close()
        self._connection.close()

    def parse(self, text: str) -> exp.Expr:
        """The syntax tree of a query; see `engine.dialect.parse`."""
        with self._lock:
            return parse(text, self._connection)

    def bind(self, items: Sequence[str], types: Sequence[str]) -> dict[str, Any]:
        """DuckDB's bound, unoptimized plan of a SELECT.

        Parameters
        ----------
        items
            Expressions in DuckDB's SQL, over columns ``c0, c1, …``.
        types
            DuckDB types of these columns.

        Raises
        ------
        SqlError
            If DuckDB refuses the expressions; in its words.
        """
        columns = ", ".join(f"NULL::{t} AS c{i}" for i, t in enumerate(types)) or "1 AS c"
        text = f"SELECT {', '.join(items)} FROM (SELECT {columns}) AS p"
        answer = self._bound.get(text)
        if answer is None:
            answer = self._serialize(text)
            self._remember(self._bound, text, answer)
        plans: list[dict[str, Any]] = msgspec.json.decode(answer)
        return plans[0]

    def evaluate(self, expression: str, cache: bool = True) -> Constant | None:
        """Type and value of a constant expression in DuckDB's SQL; None if evaluating it fails."""
        if expression in self._values:
            return self._values[expression]
        try:
            with self._lock:
                cursor = self._connection.execute(
                    f"SELECT v, typeof(v) AS t FROM (SELECT {expression} AS v)"
                )
                row = cursor.to_arrow_table()
        except duckdb.Error:
            value = None
        else:
            if row.num_rows != 1:
                raise UnsupportedSqlError(f"{expression} is not supported: it is not one value")
            value = (row.column(1)[0].as_py(), _python(row.column(0)[0]))
        if cache:
            self._remember(self._values, expression, value)
        return value

    def describe(self, text: str) -> list[tuple[str, str]]:
        """Names and DuckDB types of a query's columns, over the tables that `define_table` made.

        Raises
        ------
        SqlError
            If DuckDB refuses the query; in its words.
        """
        with self._lock:
            return _described(self._connection, text)

    def describe_beside(self, text: str) -> Future[list[tuple[str, str]]]:
        """What `describe` gives, while the caller goes on."""
        return self._beside.submit(_described, self._describing, text)

    def define_table(self, name: str, schema: Schema) -> None:
        """Make an empty table of this name and schema, for `describe`."""
        if self._tables.get(name.lower()) == schema:  # DuckDB's names ignore case
            return
        columns = ", ".join(
            f"{quote(f.name)} {duck_type(f.type)}" for f in schema
        )  # fmt: skip
        with self._lock:
            self._connection.execute(f"CREATE OR REPLACE TABLE {quote(name)} ({columns})")
        self._tables[name.lower()] = schema

    @property
    def unstable_functions(self) -> frozenset[str]:
        """Functions whose value differs from row to row or from query to query, in lower case."""
        return _functions_by_stability()[0]

    @property
    def volatile_functions(self) -> frozenset[str]:
        """Functions whose value differs from row to row, in lower case."""
        return _functions_by_stability()[1]

    def _serialize(self, text: str) -> msgspec.Raw:
        # A parameter would make DuckDB import pandas, which takes a quarter of a second.
        literal = "'" + text.replace("'", "''") + "'"
        try:
            with self._lock:
                row = self._connection.execute(
                    f"SELECT json_serialize_plan({literal}, skip_null := true, skip_empty := true)"
                ).fetchone()
        except duckdb.Error as error:
            raise SqlError(one_line(error)) from None
        if row is None:
            raise PlanningError("DuckDB gave no plan")
        # Of what is no number to JSON, DuckDB writes the bare name.
        answer = msgspec.json.decode(_NO_NUMBER.sub(r'"value":"\1"', row[0]), type=_Answer)
        if answer.error:
            raise SqlError(one_line(Exception(answer.error_message)))
        return answer.plans

    def _remember(self, cache: dict[str, Any], key: str, value: Any) -> None:
        if len(cache) >= _CACHE_LIMIT:
            cache.clear()
        cache[key] = value


def _private(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    # Names are for the catalog alone to resolve: neither Python variables nor files are tables.
    connection.execute("SET python_enable_replacements = false")
    # One row at most is ever computed.
    connection.execute("PRAGMA disable_optimizer")
    return connection


def _described(connection: duckdb.DuckDBPyConnection, text: str) -> list[tuple[str, str]]:
    try:
        rows = connection.execute(f"DESCRIBE {text}").fetchall()
    except duckdb.Error as error:
        raise SqlError(one_line(error)) from None
    return [(str(r[0]), str(r[1])) for r in rows]


@cache
def _functions_by_stability() -> tuple[frozenset[str], frozenset[str]]:
    """Scalar functions that are not consistent, and those of them that are volatile.

    DuckDB makes the list of all its functions anew each time that it is asked, which takes 30 ms.
    """
    with duckdb.connect(config={"threads": 1}) as connection:
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name), stability FROM duckdb_functions() "
            "WHERE stability <> 'CONSISTENT' AND function_type = 'scalar'"
        ).fetchall()
    return frozenset(n for n, _ in rows), frozenset(n for n, kind in rows if kind == "VOLATILE")


def _python(scalar: pa.Scalar) -> Any:
    """A value that `pa.scalar` takes back exactly: dates and times as integers."""
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.Date32Scalar | pa.TimestampScalar | pa.Time64Scalar):
        return scalar.value
    if isinstance(scalar, pa.MonthDayNanoIntervalScalar):
        return tuple(scalar.as_py())
    return scalar.as_py()
