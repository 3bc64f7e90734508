"""Text to syntax tree. Whether a text is SQL at all is for DuckDB's parser to say; the tree is
sqlglot's.
"""

from __future__ import annotations

import re

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from engine.dialect.syntax import DUCKDB, balanced
from engine.errors import NestingError, SqlError, SqlSyntaxError, UnsupportedSqlError

__all__ = ["parse"]

_PIVOT = re.compile(r"\b(un)?pivot\b", re.IGNORECASE)
_LINE = re.compile(r"^LINE (\d+): (.*)$", re.MULTILINE)


def parse(text: str, connection: duckdb.DuckDBPyConnection) -> exp.Expr:
    """The syntax tree of a query.

    Raises
    ------
    SqlSyntaxError
        If DuckDB's parser refuses the text; with line and column.
    NestingError
        If it nests too deeply.
    UnsupportedSqlError
        If it is another statement than a query, or sqlglot does not know a construct.
    SqlError
        If there is no statement, or more than one.
    """
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise _syntax_error(text, error) from None
    if len(statements) > 1 and _PIVOT.search(text):
        raise UnsupportedSqlError("PIVOT and UNPIVOT are not supported")
    if not statements:
        raise SqlError("the query is empty")
    if len(statements) != 1:
        raise SqlError(f"one statement is wanted, not {len(statements)}")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise UnsupportedSqlError(f"{kind.name} statements are not supported: only queries are")
    try:
        tree = sqlglot.parse_one(text, read=DUCKDB)
    except RecursionError:
        raise NestingError("the query nests too deeply") from None
    except SqlglotError as error:
        places = getattr(error, "errors", None) or [{}]
        line, column = places[0].get("line"), places[0].get("col")
        where = f"line {line}, column {column}: " if line else ""
        raise UnsupportedSqlError(f"{where}this construct is not supported") from None
    tree = balanced(tree)
    for node in list(tree.find_all(exp.WithinGroup, exp.DateAdd)):
        if isinstance(node, exp.WithinGroup):
            raise UnsupportedSqlError("WITHIN GROUP is not supported")
        # DuckDB's `date_add(x, interval)` is `x + interval`. sqlglot takes the second argument for
        # a number of days unless it looks like an interval.
        if node.args.get("unit") is None:
            node.replace(exp.Paren(this=exp.Add(this=node.this, expression=node.expression)))
    return tree


def _syntax_error(text: str, error: duckdb.Error) -> SqlSyntaxError:
    """DuckDB's message ends in the line and, below it, a caret under the place."""
    message = str(error)
    first = message.splitlines()[0].removeprefix("Parser Error: ").strip()
    match = _LINE.search(message)
    if match is None:
        lines = text.rstrip().split("\n")
        return SqlSyntaxError(first, len(lines), len(lines[-1]) + 1)
    line = int(match[1])
    picture = match[2]
    below = message[match.end() + 1 :].split("\n")[0]
    column = below.find("^") - len(f"LINE {line}: ")
    source = text.split("\n")[line - 1] if line <= len(text.split("\n")) else ""
    # Of a long line the picture shows a part, between dots.
    shown = picture.removeprefix("...").removesuffix("...")
    start = max(source.find(shown), 0)
    column = start + column - (3 if picture.startswith("...") else 0)
    return SqlSyntaxError(first, line, max(column, 0) + 1)
