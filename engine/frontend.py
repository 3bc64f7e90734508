"""The SQL front end: text to plan.

SQL → dialect rules (`engine.dialect`) → DataFusion → Substrait (`engine.substrait`) → IR.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from engine.catalog import Catalog
from engine.dialect import Mentions, NarrowTables, Oracle, QueryBinder, Signatures
from engine.dialect.hidden import explained, leave_out
from engine.dialect.syntax import called_names, deepest
from engine.dialect.types import ir_type
from engine.errors import NestingError, PlanningError, SqlError, UnsupportedSqlError
from engine.optimizer.expressions import every_relation
from engine.recent import Recent
from engine.substrait import Planner, PlanReader, TableSource
from operators.expr import Cast, Column, Expr
from operators.rel import Aggregation, Filter, Project, Rel, Values
from operators.schema import Field, Schema
from operators.types import same_type

__all__ = ["FrontEnd", "plan_sql"]

_KEPT = 128


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

    Attributes
    ----------
    kept
        How many plans are kept for texts that come again, as long as no table is registered. Those
        that depend on the time are not.
    """

    catalog: Catalog
    kept: int = _KEPT
    oracle: Oracle = field(default_factory=Oracle)
    signatures: Signatures = field(default_factory=Signatures)
    _planner: Planner | None = None
    _plans: Recent[str, Rel] = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._plans = Recent(self.kept)

    def plan(self, text: str) -> Rel:
        """Plan one query; see `plan_sql`."""
        generation = self.catalog.generation
        plan = self._plans.get(text, generation)
        if plan is None:
            tree = self.oracle.parse(text)
            nodes = list(tree.walk())
            lasting = self.kept and self._is_stable(nodes)
            plan = self._plan(text, tree, nodes)
            if lasting:
                self._plans.put(text, generation, plan)
        return plan

    def _plan(self, text: str, tree: exp.Expr, nodes: Sequence[exp.Expr]) -> Rel:
        tables = self._tables(nodes)
        hidden = {n.lower(): self.catalog[n].hidden for n in tables if self.catalog[n].hidden}
        if hidden and leave_out(tree, nodes, hidden):
            nodes, text = list(tree.walk()), tree.sql(dialect="duckdb")
        mentions = Mentions.of(tree, nodes)
        try:
            return self._described(text, tree, tables, mentions)
        except SqlError as error:
            raise explained(error, hidden, mentions) from None

    def _described(
        self, text: str, tree: exp.Expr, tables: Sequence[str], mentions: Mentions
    ) -> Rel:
        """Plan a statement, with the names and types that DuckDB gives its columns."""
        for name in tables:
            self.oracle.define_table(name, self.catalog[name].schema)
        # DuckDB describes the query beside the planning.
        described = self.oracle.describe_beside(text)
        try:
            rel, width = self._planned(tree, tables, mentions)
        except Exception as error:
            described.result()  # what DuckDB itself refuses is told in its words
            if isinstance(error, RecursionError | NestingError):
                words = f"the query nests too deeply: {deepest(tree)}"
                raise NestingError(words) from None
            raise
        outputs = described.result()
        if width != len(outputs):
            raise PlanningError(f"{width} columns were bound where DuckDB sees {len(outputs)}")
        return _named(rel, [(n, ir_type(t)) for n, t in outputs])

    def _planned(
        self, tree: exp.Expr, tables: Sequence[str], mentions: Mentions
    ) -> tuple[Rel, int]:
        """A query's plan, and how many columns were bound for it."""
        lookup = NarrowTables(self.catalog, mentions)
        bound = QueryBinder(self.oracle, self.signatures, lookup).bind(tree)
        sources = {name: self._source(name, mentions) for name in tables}
        narrowed = {n: s.narrowed() for n, s in sources.items()}

        def planned(planner: Planner) -> Rel:
            data = planner.plan(bound.text, narrowed)
            return PlanReader(data, self.signatures, sources.__getitem__).plan()

        rel = planned(self._ready_planner())
        if _aggregates_nothing(rel):
            # Nothing tells a filter above the aggregate that went below it from one that was there.
            rel = planned(Planner(self.signatures, self.oracle, push_filters=False))
        return rel, len(bound.outputs)

    def close(self) -> None:
        """Close the private DuckDB connection."""
        self.oracle.close()

    def _is_stable(self, nodes: Sequence[exp.Expr]) -> bool:
        """Whether a statement means the same whenever it is planned."""
        return self.oracle.unstable_functions.isdisjoint(called_names(nodes))

    def _tables(self, nodes: Sequence[exp.Expr]) -> list[str]:
        """Registered tables that the query may mean (a CTE of the same name may hide one).

        Raises
        ------
        TableNotFoundError
            If it names one that is not registered.
        """
        ctes = {c.alias.lower() for c in nodes if isinstance(c, exp.CTE)}
        names = set()
        for table in nodes:
            if not isinstance(table, exp.Table):
                continue
            if not isinstance(table.this, exp.Identifier):
                name = table.this.sql(dialect="duckdb")
                raise UnsupportedSqlError(f"the table function {name} is not supported")
            names.add(table.name.lower())
            known = table.db or table.name.lower() in ctes or table.name in self.catalog
            if not known:
                raise self.catalog.missing(table.name)
        return [t for t in self.catalog if t.lower() in names]

    def _source(self, name: str, mentions: Mentions) -> TableSource:
        table = self.catalog[name]
        return TableSource(table.source, table.schema, mentions.columns(name, table.schema.names))

    def _ready_planner(self) -> Planner:
        with self._lock:
            if self._planner is None:
                self._planner = Planner(self.signatures, self.oracle)
            return self._planner


def _aggregates_nothing(plan: Rel) -> bool:
    """Whether an aggregate without groups stands over a relation that is known to be empty."""
    for rel in every_relation(plan):
        if isinstance(rel, Aggregation) and not rel.keys:
            below = rel.input
            while isinstance(below, Project | Filter):
                below = below.input
            if isinstance(below, Values) and not below.rows:
                return True
    return False


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
