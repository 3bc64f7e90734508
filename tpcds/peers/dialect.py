"""Queries in DuckDB's dialect, put into Polars'.

Polars 2.1 plans all 99 texts as they are. In `DIVIDING` they mean something else there: `/` of two
decimals is a decimal, cut after a few digits, where DuckDB's is a floating-point quotient, and a
decimal is not what the answer is compared with. Those get the conversion that DuckDB makes
silently; nothing else is touched, join orders least of all.
"""

from __future__ import annotations

from functools import cache

from sqlglot import exp, parse_one

__all__ = ["DIVIDING", "for_polars"]

DIVIDING = frozenset({2, 12, 20, 31, 36, 49, 58, 59, 61, 66, 78, 83, 90, 98})
"""Queries whose answers have a quotient of decimals in them."""


@cache
def for_polars(number: int, sql: str) -> str:
    """The text of a query for Polars."""
    return _floating_quotients(sql) if number in DIVIDING else sql


def _floating_quotients(sql: str) -> str:
    tree = parse_one(sql, read="duckdb")
    # The outer of two nested ones comes first and copies the inner: begin with the inner.
    for quotient in reversed(list(tree.find_all(exp.Div))):
        quotient.this.replace(exp.cast(quotient.this.copy(), exp.DataType.Type.DOUBLE))
    return tree.sql("duckdb")
