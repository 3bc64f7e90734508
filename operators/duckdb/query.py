"""Statements as relations: what a SELECT in DuckDB's SQL says about its columns."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from operators.duckdb.sqltypes import identifier, sql_type
from operators.errors import PlanError
from operators.rel import Query, Rel
from operators.schema import Schema
from operators.types import canonical_schema

__all__ = ["query"]


def query(text: str, tables: Mapping[str, Rel]) -> Query:
    """The relation that a SELECT statement describes.

    The statement is bound, never run, on a connection that knows the tables' columns and nothing
    else: no file, no variable of the program, no other table.

    Raises
    ------
    PlanError
        If it is not one SELECT statement, or names something that is not there; in DuckDB's words.
    """
    names = [n.lower() for n in tables]
    if len(set(names)) < len(names):
        raise PlanError(f"two tables are called {max(names, key=names.count)!r}")
    with duckdb.connect(config={"threads": 1, "enable_external_access": False}) as connection:
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET arrow_output_version = '1.5'")
        connection.execute("SET produce_arrow_string_view = false")
        try:
            statements = connection.extract_statements(text)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise PlanError("sql() takes one SELECT statement")
            body = statements[0].query.strip().rstrip(";")
            for name, rel in tables.items():
                connection.execute(f"CREATE TABLE {identifier(name)} ({_columns(rel.schema)})")
            answer = connection.execute(f"SELECT * FROM (\n{body}\n) AS q LIMIT 0")
            schema = canonical_schema(answer.to_arrow_table().schema)
        except duckdb.Error as error:
            raise PlanError(" ".join(str(error).split("\n\nLINE ")[0].split())) from None
    return Query(schema, body, tuple(tables), tuple(tables.values()))


def _columns(schema: Schema) -> str:
    return ", ".join(f"{identifier(f.name)} {sql_type(f.type)}" for f in schema) or '"one" INTEGER'
