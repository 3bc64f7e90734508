"""The SQL dialect: DuckDB's rules, applied before the planner sees a query."""

from __future__ import annotations

from engine.dialect.mentions import Mentions, NarrowTables
from engine.dialect.oracle import Oracle
from engine.dialect.parse import parse
from engine.dialect.query import BoundQuery, QueryBinder, TableLookup
from engine.dialect.signatures import Signatures

__all__ = [
    "BoundQuery",
    "Mentions",
    "NarrowTables",
    "Oracle",
    "QueryBinder",
    "Signatures",
    "TableLookup",
    "parse",
]
