"""The SQL front end: text to plan.

SQL → dialect rules (`engine.dialect`) → DataFusion → Substrait (`engine.substrait`) → IR.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from sqlglot import exp

from engine.catalog import Catalog
from engine.dialect import Oracle, QueryBinder, Signatures
from engine.dialect.types import ir_type
from engine.errors import PlanningError, UnsupportedSqlError
from engine.substrait import Planner, PlanReader
from operators.expr import Cast, Column, Expr
from operators.rel import Project, Rel
from operators.schema import Field, Schema
from operators.types import same_type

__all__ = ["FrontEnd", "plan_sql"]


def plan_sql(text: str, catalog: Catalog) -> Rel:
    """Plan a query over registered tables.

    The columns of the result have the names and types that DuckDB gives them. The planner is made
    on the catalog's first query and kept with it.

    Raises
    ------
    SqlSyntaxError
        If the text is not SQL.
    TableNotFoundError
        If it names a table that is not registered.
    UnsupportedSqlError
        If it uses a construct that this engine does not plan; it is named.
    SqlError
        If DuckDB's rules forbid the query.
    """
    return catalog.resource("front end", lambda: FrontEnd(catalog)).plan(text)


@dataclass(slots=True)
class FrontEnd:
    """The front end of one catalog: DuckDB as the authority on the dialect, DataFusion as the
    planner.
    """

    catalog: Catalog
    oracle: Oracle = field(default_factory=Oracle)
    signatures: Signatures = field(default_factory=Signatures)
    _planner: Planner | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, text: str) -> Rel:
        """Plan one query; see `plan_sql`."""
        tree = self.oracle.parse(text)
        self._define_tables(tree)
        described = self.oracle.describe(text)
        bound = QueryBinder(self.oracle, self.signatures, self.catalog).bind(tree)
        if len(bound.outputs) != len(described):
            raise PlanningError(
                f"{len(bound.outputs)} columns were bound where DuckDB sees {len(described)}"
            )
        planner = self._ready_planner(tree)
        data = planner.plan(bound.text)
        rel = PlanReader(data, self.signatures, self.catalog.source).plan()
        return _named(rel, [(n, ir_type(t)) for n, t in described])

    def close(self) -> None:
        """Close the private DuckDB connection."""
        self.oracle.close()

    def _define_tables(self, tree: exp.Expr) -> None:
        ctes = {c.alias.lower() for c in tree.find_all(exp.CTE)}
        for table in tree.find_all(exp.Table):
            if not isinstance(table.this, exp.Identifier):
                name = table.this.sql(dialect="duckdb")
                raise UnsupportedSqlError(f"the table function {name} is not supported")
            known = table.db or table.name.lower() in ctes or table.name in self.catalog
            if not known:
                raise self.catalog.missing(table.name)
        for name in self._tables(tree):
            self.oracle.define_table(name, self.catalog[name].schema)

    def _ready_planner(self, tree: exp.Expr) -> Planner:
        with self._lock:
            if self._planner is None:
                self._planner = Planner(self.signatures, self.oracle)
        for table in self._tables(tree):
            self._planner.define_table(table, self.catalog[table].schema)
        return self._planner

    def _tables(self, tree: exp.Expr) -> list[str]:
        """Registered tables that the query may mean (a CTE of the same name may hide one)."""
        names = {t.name.lower() for t in tree.find_all(exp.Table)}
        return [t for t in self.catalog if t.lower() in names]


def _named(rel: Rel, columns: list[tuple[str, object]]) -> Rel:
    """The plan with DuckDB's column names and types."""
    fields, exprs = [], list[Expr]()
    for index, (name, type) in enumerate(columns):
        have = rel.schema[index]
        column: Expr = Column(have.type, index)
        if not same_type(have.type, type):
            column = Cast(type, column)
        fields.append(Field(name, type, have.nullable))
        exprs.append(column)
    if Schema(tuple(fields)) == rel.schema:
        return rel
    return Project(Schema(tuple(fields)), rel, tuple(exprs))
