"""Lower a plan to one DuckDB statement that reads as a person would have written it.

Filters, projections, aggregations, sorts and limits are merged into one SELECT as far as SQL's
order of evaluation allows; what cannot be merged becomes a common table expression. Relations
that occur twice in the plan (the same object) become one CTE that is read twice, materialized
if they are more than a filtered scan; so are limits below joins. Every column
is written with its table's alias, so that duplicate names and aliases cannot be confused; ORDER
BY says where NULLs go.

A mark join's column is true or false, never NULL (EXISTS); semi and anti joins are EXISTS and
NOT EXISTS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow.types as pt

from operators.duckdb.expressions import Writer
from operators.duckdb.fragment import Fragment
from operators.duckdb.select import Select, as_term, distinct_names, indent, is_reference
from operators.duckdb.sqltypes import identifier, sql_type
from operators.duckdb.statement import Statement
from operators.duckdb.streaming import streamed_unions
from operators.errors import PlanError
from operators.expr import (
    Call,
    Column,
    Expr,
    Lit,
    Window,
)
from operators.implied import implied_bounds
from operators.rel import (
    Aggregation,
    Filter,
    InputSource,
    Join,
    Leading,
    Limit,
    ParquetSource,
    Project,
    Query,
    Rel,
    Scan,
    SetOperation,
    Sort,
    Source,
    Values,
)
from operators.rewrite import columns_used, conjuncts, walk_expr
from operators.schema import Field, Schema
from operators.types import BOOL, is_hugeint
from operators.work import is_work

__all__ = ["lower"]


def lower(plan: Rel, names: Mapping[Source, str] | None = None) -> Fragment:
    """The DuckDB statement that computes `plan`.

    Parameters
    ----------
    plan
        What to compute.
    names
        What inputs are called in other statements, and so in this one.

    Raises
    ------
    PlanError
        If the plan holds something that DuckDB cannot say.
    """
    lowering = _Lowering(plan, names)
    select = lowering.select(plan)
    for union in streamed_unions(plan):
        lowering.statement.materialize(lowering.unions[id(union)])
    text = lowering.statement.text(select.render(plan.schema.names))
    statement = lowering.statement
    return Fragment(
        text, statement.inputs, plan.schema, lowering.fixed_joins, lowering.join_filters
    )


def _columns(expr: Expr) -> Iterator[int]:
    """The column of each reference in it."""
    return (e.index for e in walk_expr(expr) if isinstance(e, Column))


class _Lowering:
    def __init__(self, plan: Rel, names: Mapping[Source, str] | None = None) -> None:
        self.statement = Statement(names)
        self.fixed_joins = False
        self.join_filters = True
        self._joined = False
        self.unions: dict[int, str] = {}
        self._uses: Counter[int] = Counter()
        self._shared: dict[int, str] = {}
        self._count(plan)

    def _count(self, rel: Rel) -> None:
        self._uses[id(rel)] += 1
        if self._uses[id(rel)] > 1:
            return
        if isinstance(rel, Join) and rel.build is not None:
            self.fixed_joins = True
        if isinstance(rel, Join | Query) or rel.subqueries():
            self._joined = True
        if isinstance(rel, Query):
            # Inside the statement these hide what is outside: nothing there may be called so.
            self.statement.avoid(rel.names)
            # Limits in there, or in a table that it reads, are not ours to materialize.
            self.join_filters = False
        for child in (*rel.inputs(), *rel.subqueries()):
            self._count(child)

    # Relations

    def select(self, rel: Rel) -> Select:
        """The SELECT of `rel`; a relation used more than once is read from its CTE."""
        if self._uses[id(rel)] > 1 and not isinstance(rel, Scan | Values):
            name = self._shared.get(id(rel))
            if name is None:
                name = self._shared[id(rel)] = self._cte(self._build(rel), rel, "shared")
                if is_work(rel):
                    self.statement.materialize(name)
            return self._from_table(name, rel)
        return self._build(rel)

    def _build(self, rel: Rel) -> Select:
        match rel:
            case Scan():
                return self._scan(rel)
            case Values():
                return self._values(rel)
            case Filter():
                return self._filter(rel)
            case Project():
                return self._project(rel)
            case Aggregation():
                return self._aggregation(rel)
            case Sort():
                return self._sort(rel)
            case Limit():
                return self._limit(rel)
            case Leading():
                return self._leading(rel)
            case Join():
                return self._join(rel)
            case SetOperation():
                return self._set(rel)
            case Query():
                return self._query(rel)
        raise PlanError(f"DuckDB lowering does not know {type(rel).__name__}")

    def _writer(self, columns: Sequence[str]) -> Writer:
        return Writer(columns, self._subquery)

    def _subquery(self, rel: Rel) -> str:
        return self.select(rel).render(rel.schema.names).replace("\n", " ")

    def _cte(self, select: Select, rel: Rel, hint: str = "t") -> str:
        name = self.statement.define(hint, select.render(rel.schema.names))
        if select.limit and self._joined:
            # DuckDB 1.5.5 looks for the keys of a join below limits (duckdb/duckdb#22963).
            self.statement.materialize(name)
        return name

    def _from_table(self, table: str, rel: Rel) -> Select:
        """Read all columns of a CTE that was made from `rel`."""
        alias = self.statement.fresh(f"{table}_r") if table in self._shared.values() else table
        source = table if alias == table else f"{table} AS {alias}"
        columns = [f"{alias}.{identifier(n)}" for n in distinct_names(rel.schema.names)]
        return Select(source, columns, [True] * len(columns), table=alias)

    def _nested(self, select: Select, rel: Rel) -> Select:
        return self._from_table(self._cte(select, rel), rel)

    def _scan(self, scan: Scan) -> Select:
        match scan.source:
            case ParquetSource(table=name) | InputSource(name=name):
                pass
            case _:
                raise PlanError(f"DuckDB cannot scan a {type(scan.source).__name__}")
        known, alias = self.statement.read(scan.source, name)
        used = set(scan.columns)
        if scan.predicate is not None:
            used.update(_columns(scan.predicate))
        wanted = set(known.columns) | {scan.source_schema[i].name for i in used}
        known.columns = [n for n in dict.fromkeys(scan.source_schema.names) if n in wanted]
        table = identifier(known.name)
        source = table if alias == known.name else f"{table} AS {identifier(alias)}"
        files = isinstance(scan.source, ParquetSource)
        texts = [_scanned(f, identifier(alias), files) for f in scan.source_schema]
        where: list[str] = []
        if scan.predicate is not None:
            where = self._conditions(scan.predicate, texts, of_scan=True)
        columns = [texts[i] for i in scan.columns]
        simple = ["(" not in c for c in columns]
        return Select(source, columns, simple, where, table=alias)

    def _conditions(
        self, predicate: Expr, columns: Sequence[str], *, of_scan: bool = False
    ) -> list[str]:
        """The terms of a filter; those of a scan's after what its disjunctions imply."""
        writer = self._writer(columns)
        terms = conjuncts(predicate)
        implied = implied_bounds(terms) if of_scan else ()
        return [writer.condition(term) for term in (*implied, *terms)]

    def _differing(self, mark: Join, columns: Sequence[str]) -> Iterator[str]:
        """That what has to differ from some right value is not NULL.

        Of EXISTS as a value DuckDB 1.5.5 makes a join on IS DISTINCT FROM, by which NULL differs.
        """
        writer = self._writer(columns)
        for term in conjuncts(mark.condition):
            if isinstance(term, Call) and term.function == "not_equal":
                for side in term.args:
                    used = columns_used(side)
                    if used and max(used) < len(columns):
                        yield writer.condition(Call(BOOL, "is_not_null", (side,)))

    def _values(self, rel: Values) -> Select:
        writer = self._writer([])
        if len(rel.rows) == 1:
            return Select(
                "",
                [writer.write(cell) for cell in rel.rows[0]],
                [isinstance(cell, Lit) for cell in rel.rows[0]],
            )
        alias = self.statement.fresh("v")
        names = [identifier(n) for n in distinct_names(rel.schema.names)] or ["one"]
        rows = ", ".join(
            "(" + (", ".join(writer.write(c) for c in row) or "1") + ")" for row in rel.rows
        )
        columns = [f"{alias}.{n}" for n in names][: len(rel.schema)]
        source = f"(VALUES {rows}) AS {alias}({', '.join(names)})"
        if not rel.rows:
            cells = ", ".join(f"NULL::{sql_type(f.type)}" for f in rel.schema) or "1"
            source = f"(SELECT {cells} WHERE FALSE) AS {alias}({', '.join(names)})"
        return Select(source, columns, [True] * len(columns))

    def _filter(self, rel: Filter) -> Select:
        child = self.select(rel.input)
        used = Counter(_columns(rel.predicate))
        mergeable = not (child.windowed or child.limit) and (
            child.aggregated or all(child.simple[i] for i in used)
        )
        if not mergeable or (not child.source and not child.aggregated):
            child = self._nested(child, rel.input)
        of_scan = isinstance(rel.input, Scan)
        terms = self._conditions(rel.predicate, child.tight_columns(), of_scan=of_scan)
        if child.aggregated:
            return replace(child, having=[*child.having, *terms])
        return replace(child, where=[*child.where, *terms])

    def _project(self, rel: Project) -> Select:
        child = self.select(rel.input)
        uses = Counter(i for e in rel.exprs for i in _columns(e))
        windows = any(isinstance(e, Window) for e in rel.exprs)
        plain = all(isinstance(e, Column) for e in rel.exprs)
        repeated = any(n > 1 and not child.simple[i] for i, n in uses.items())
        if child.windowed:
            nest = not plain
        elif windows:
            nest = bool(child.order or child.limit) or (repeated and not child.aggregated)
        else:
            nest = repeated and not child.aggregated
        if nest:
            child = self._nested(child, rel.input)
        writer = self._writer(child.tight_columns())
        columns, simple = [], []
        for expr in rel.exprs:
            if isinstance(expr, Column):
                columns.append(child.columns[expr.index])
                simple.append(child.simple[expr.index])
            else:
                columns.append(writer.write(expr))
                simple.append(isinstance(expr, Lit))
        return replace(child, columns=columns, simple=simple, windowed=child.windowed or windows)

    def _aggregation(self, rel: Aggregation, *, apart: bool = False) -> Select:
        child = self.select(rel.input)
        expressions = [*rel.keys, *(a for m in rel.measures for a in m.args)]
        uses = Counter(i for e in expressions for i in _columns(e))
        repeated = any(n > 1 and not child.simple[i] for i, n in uses.items())
        if (
            child.aggregated
            or child.windowed
            or child.limit
            or repeated
            or not child.source
            or apart
        ):
            child = self._nested(child, rel.input)
        writer = self._writer(child.tight_columns())
        terms = [as_term(writer.write(key), key) for key in rel.keys]
        columns = list(terms)
        group: str | None = ", ".join(terms) if terms else None
        if rel.grouping_sets is not None:
            if len(set(terms)) < len(terms):  # DuckDB takes equal keys for one
                return self._aggregation(_keys_as_columns(rel), apart=True)
            sets = ["(" + ", ".join(terms[i] for i in s) + ")" for s in rel.grouping_sets]
            group = f"GROUPING SETS ({', '.join(sets)})"
            if len(rel.grouping_sets) > 1:
                columns.append(f"GROUPING({', '.join(terms)})" if terms else "0::BIGINT")
        measures = tuple(writer.aggregate(m) for m in rel.measures)
        columns += measures
        simple = [is_reference(c) for c in columns]
        return replace(
            child,
            columns=columns,
            simple=simple,
            group=group,
            having=[],
            order=[],
            aggregated=True,
            measures=measures,
            table=None,
        )

    def _sort(self, rel: Sort) -> Select:
        child = self.select(rel.input)
        complex_keys = any(not isinstance(k.expr, Column) for k in rel.keys)
        if child.limit or (child.windowed and complex_keys):
            child = self._nested(child, rel.input)
        writer = self._writer(child.tight_columns())
        order = []
        for key in rel.keys:
            expr = key.expr
            text = child.columns[expr.index] if isinstance(expr, Column) else writer.write(expr)
            order.append((as_term(text, expr), Writer.sort_key(key, "")))
        return replace(child, order=order)

    def _limit(self, rel: Limit) -> Select:
        child = self.select(rel.input)
        if child.limit:
            child = self._nested(child, rel.input)
        text = "" if rel.count is None else f"\nLIMIT {rel.count}"
        if rel.offset:
            text += f"\nOFFSET {rel.offset}" if not text else f" OFFSET {rel.offset}"
        return replace(child, limit=text) if text else child

    def _leading(self, rel: Leading) -> Select:
        """All rows up to the last that counts, which the kernel finds without sorting."""
        child = self.select(rel.input)
        if child.table is None or not child.bare:
            name = self._cte(child, rel.input)
            if is_work(rel.input):
                self.statement.materialize(name)  # read twice
            child = self._from_table(name, rel.input)
        key = child.columns[_column(rel.key.expr)]
        groups = [child.columns[_column(e)] for e in rel.partition_by]
        function = "max" if rel.key.descending else "min"
        terms = [f"{g} AS g{i}" for i, g in enumerate(groups)]
        terms.append(f"{function}({key}, {rel.count})[{rel.count}] AS key")
        by = ", ".join(map(as_term, groups, rel.partition_by))
        by = f"\nGROUP BY {by}" if groups else ""
        text = f"SELECT {', '.join(terms)}\nFROM {child.source}{by}"
        last = self.statement.define("last", text)
        alike = [f"{g} IS NOT DISTINCT FROM {last}.g{i}" for i, g in enumerate(groups)]
        source = f"{child.source}\n  JOIN {last} ON {' AND '.join(alike) or 'TRUE'}"
        among = [f"{last}.key IS NULL", f"{key} {'>=' if rel.key.descending else '<='} {last}.key"]
        if rel.key.nulls_first:
            among.append(f"{key} IS NULL")
        return replace(child, source=source, where=[f"({' OR '.join(among)})"], table=None)

    # Joins and sets

    def _operand(self, rel: Rel, filled: bool, *, first: bool = False) -> Select:
        """`rel` as something that may stand beside JOIN; `filled` if the join may fill its columns
        with NULL. Where it comes `first` a chain of joins may simply go on.
        """
        child = self.select(rel)
        alone = first or "\n" not in child.source
        if child.bare and child.source and alone and child.joins(filled):
            return child
        return self._nested(child, rel)

    def _join(self, rel: Join) -> Select:
        swap = rel.build == "left" and rel.kind in ("inner", "left", "right", "full", "cross")
        left_filled = rel.kind in ("right", "full")
        right_filled = rel.kind in ("left", "full", "asof")
        if swap:
            right = self._operand(rel.left, left_filled)
            left = self._operand(rel.right, right_filled, first=True)
            mine, other = right, left
        else:
            left = self._operand(rel.left, left_filled, first=True)
            right = self._operand(rel.right, right_filled)
            mine, other = left, right
        terms = [
            f"{mine.columns[a]} {'IS NOT DISTINCT FROM' if nulls else '='} {other.columns[b]}"
            for a, b, nulls in zip(rel.left_keys, rel.right_keys, rel.null_equal, strict=True)
        ]
        both = mine.columns + other.columns
        if rel.condition is not None:
            terms += self._conditions(rel.condition, both)
        on = " AND ".join(terms) or "TRUE"
        if rel.kind == "mark":
            mark = f"EXISTS (SELECT 1 FROM {right.source.replace(chr(10), ' ')} WHERE {on})"
            if known := list(self._differing(rel, left.columns)):
                mark = f"({' AND '.join(known)} AND {mark})"
            return replace(
                left, columns=[*left.columns, mark], simple=[*left.simple, False], table=None
            )
        words = {"left": "RIGHT", "right": "LEFT"} if swap else {}
        kind = "ASOF LEFT" if rel.kind == "asof" else words.get(rel.kind, rel.kind.upper())
        if rel.kind in ("semi", "anti"):
            source = f"{left.source}\n  {kind} JOIN {right.source} ON {on}"
            return replace(left, source=source, table=None)
        if rel.kind == "cross" or (rel.kind == "inner" and not terms):
            source = f"{left.source}\n  CROSS JOIN {right.source}"
        else:
            word = "JOIN" if kind == "INNER" else f"{kind} JOIN"
            source = f"{left.source}\n  {word} {right.source} ON {on}"
        return Select(source, both, [True] * len(both))

    def _set(self, rel: SetOperation) -> Select:
        texts = []
        for operand in rel.operands:
            child = self.select(operand)
            if child.order or child.limit:
                child = self._nested(child, operand)
            texts.append(child.render(rel.schema.names))
        word = rel.operation.upper() + (" ALL" if rel.all else "")
        name = self.unions[id(rel)] = self.statement.define("t", f"\n{word}\n".join(texts))
        return self._from_table(name, rel)

    def _query(self, rel: Query) -> Select:
        """The statement as it is, its tables in a WITH clause of its own, which hides all else."""
        tables = [
            f"{identifier(name)} AS (\n{indent(self.select(t).render(t.schema.names))}\n)"
            for name, t in zip(rel.names, rel.tables, strict=True)
        ]
        columns = [f"c{i}" for i in range(len(rel.schema))]
        head = f"WITH {', '.join(tables)}\n" if tables else ""
        text = f"{head}SELECT * FROM (\n{rel.text}\n) AS q({', '.join(columns)})"
        name = self.statement.define("query", text)
        return Select(name, [f"{name}.{c}" for c in columns], [True] * len(columns), table=name)


def _column(expr: Expr) -> int:
    assert isinstance(expr, Column)
    return expr.index


def _keys_as_columns(rel: Aggregation) -> Aggregation:
    """The same aggregation over an input that has its keys as columns."""
    inputs = rel.input.schema.fields
    known = tuple(Column(f.type, i) for i, f in enumerate(inputs))
    fields = (*inputs, *(Field(f"group{i}", k.type, True) for i, k in enumerate(rel.keys)))
    widened = Project(Schema(fields), rel.input, (*known, *rel.keys))
    keys = tuple(Column(k.type, len(inputs) + i) for i, k in enumerate(rel.keys))
    return replace(rel, input=widened, keys=keys)


def _scanned(field_: Field, alias: str, files: bool) -> str:
    """A source's column; types that Arrow or Parquet may hold in another form are cast to the
    plan's.

    The bounds in footers leave NaN out, and DuckDB 1.5.5 believes them: it finds no NaN, none that
    is greater than a number, none that is the maximum. Of a product it knows no bounds.
    """
    text = f"{alias}.{identifier(field_.name)}"
    if files and pt.is_floating(field_.type):
        return f"({text} * 1)"
    if is_hugeint(field_.type) or pt.is_timestamp(field_.type):
        return f"CAST({text} AS {sql_type(field_.type)})"
    return text
