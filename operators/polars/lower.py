"""Lower a plan to a function of Polars' lazy frames, written as a person would write it.

Each relation is a method call on the frame of its input. Columns go by name in Polars, so that
every frame here has names of its own, made unique; what the plan calls by position is looked up.
Relations that occur twice (the same object) are assigned to a variable that is read twice: Polars
computes them once.

Joins of unlike kinds, conditions and functions that Polars would answer otherwise than DuckDB are
refused (`UnsupportedPlan`); whoever lowers has another kernel for those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow.types as pt

from operators.errors import UnsupportedPlan
from operators.expr import Aggregate, Call, Case, Column, Expr, Lit, ScalarSubquery, Window
from operators.fragment import FragmentInput
from operators.polars.coding import CODE, Worth, coded_columns
from operators.polars.expressions import Writer
from operators.polars.fragment import FUNCTION, PolarsFragment
from operators.polars.frame import (
    Frame,
    call,
    flags,
    free_name,
    indented,
    listed,
    one_or_list,
    parenthesized,
    quoted_name,
    unique_names,
)
from operators.polars.joins import Joins
from operators.polars.properties import has_one_row
from operators.polars.statements import Input
from operators.polars.types import polars_type
from operators.rel import (
    Aggregation,
    Filter,
    InputSource,
    Join,
    Leading,
    Limit,
    ParquetSource,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
    Values,
)
from operators.rewrite import columns_used, conjuncts, subqueries

__all__ = ["lower"]


def lower(plan: Rel, worth: Worth | None = None) -> PolarsFragment:
    """The function that computes `plan`.

    Parameters
    ----------
    worth
        Says where strings should stand as numbers while they are grouped by; None: nowhere.

    Raises
    ------
    UnsupportedPlan
        If Polars has not, or answers otherwise, something in the plan.
    """
    lowering = _Lowering(plan, {} if worth is None else coded_columns(plan, worth))
    frame = lowering.frame(plan).exact()
    inputs = tuple(FragmentInput(i.name, i.source, tuple(i.columns)) for i in lowering.inputs)
    head = f"def {FUNCTION}({', '.join(i.name for i in inputs)}):"
    body = [*lowering.statements, f"return {frame.chained()}"]
    text = head + "".join("\n" + indented(line) for line in body)
    return PolarsFragment(text, inputs, plan.schema)


class _Lowering(Joins):
    """Writes what has one input, or none."""

    def __init__(self, plan: Rel, coded: Mapping[int, frozenset[int]]) -> None:
        super().__init__(plan)
        self._coded = coded

    def build(self, rel: Rel) -> Frame:
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
            case Limit(count=count, offset=offset):
                frame = self.coded(rel.input)
                if count is None:
                    return frame.then(f"slice({offset})") if offset else frame
                return frame.then(f"slice({offset}, {count})" if offset else f"head({count})")
            case Leading():
                return self._leading(rel)
            case Join():
                return self.join(rel)
            case SetOperation():
                return self.set(rel)
        raise UnsupportedPlan(f"Polars has no {type(rel).__name__}")

    # What has one input

    def _scan(self, scan: Scan) -> Frame:
        match scan.source:
            case InputSource(name=name):
                pass
            case ParquetSource(table=name, part=None, hive=(), intervals=False):
                pass
            case _:
                raise UnsupportedPlan(
                    "parts of tables, columns in paths, and intervals, over which Polars panics"
                )
        if len(set(scan.source_schema.names)) < len(scan.source_schema):
            raise UnsupportedPlan("a table with two columns of one name")
        used = {*scan.columns, *columns_used(scan.predicate)} or {0}  # some column has the rows
        for i in used:
            polars_type(scan.source_schema[i].type)
        names = scan.source_schema.names
        # A frame for each reader: of what two read alike, Polars would hold all rows.
        read = Input(self.fresh(name), scan.source, [names[i] for i in sorted(used)])
        self.inputs.append(read)
        frame = Frame(read.name, (), names, scan.source_schema.types, whole=False)
        casts = [
            f'pl.col({quoted_name(names[i])}).cast(pl.Datetime("us"))'
            for i in sorted(used)
            if pt.is_timestamp(scan.source_schema[i].type)
        ]
        if casts:  # files and Arrow data may have other units
            frame = frame.then(call("with_columns", casts))
        if scan.predicate is not None:
            frame = self._filtered(frame, scan.predicate)
        frame = self.selected(frame, scan.columns, scan.schema.names)
        return self._encoded(scan, frame)

    def _encoded(self, rel: Rel, frame: Frame) -> Frame:
        """With those strings as numbers for which that pays."""
        coded = frozenset(frame.names[i] for i in self._coded.get(id(rel), ()))
        return replace(frame.cast(coded, CODE), coded=frame.coded | coded) if coded else frame

    def _values(self, rel: Values) -> Frame:
        if not rel.rows or not len(rel.schema):
            raise UnsupportedPlan("literal rows without rows or columns")
        writer = Writer((), ())
        rows = []
        for row in rel.rows:
            if not all(isinstance(cell, Lit) for cell in row):
                raise UnsupportedPlan("literal rows of expressions")
            names = unique_names(rel.schema.names)
            cells = [
                f"{writer.write(c)}.cast({polars_type(f.type)}).alias({quoted_name(n)})"
                for n, c, f in zip(names, row, rel.schema, strict=True)
            ]
            rows.append(f"pl.select({', '.join(cells)}).lazy()")
        base = rows[0] if len(rows) == 1 else call("pl.concat", [listed(rows)])
        return Frame(base, (), unique_names(rel.schema.names), rel.schema.types)

    def _filtered(self, frame: Frame, predicate: Expr) -> Frame:
        rest = []
        for term in conjuncts(predicate):
            looked_up = self._equal_to_scalar(frame, term)
            if looked_up is None:
                rest.append(term)
            else:
                frame = looked_up
        if not rest:
            return frame
        frame, rest = self.with_scalars(frame, rest)
        terms = [frame.writer.condition(t) for t in rest]
        return frame.then(call("filter", terms))

    def _equal_to_scalar(self, frame: Frame, term: Expr) -> Frame | None:
        """The rows where a column is what a scalar subquery gives, by a join: Polars takes it to
        leave few rows, and orders other joins by that.
        """
        match term:
            case Call(function="equal", args=(Column() as column, ScalarSubquery() as scalar)):
                pass
            case Call(function="equal", args=(ScalarSubquery() as scalar, Column() as column)):
                pass
            case _:
                return None
        if column.type != scalar.type:
            return None
        value = self.frame(scalar.rel)
        name = quoted_name(value.names[0])
        if not has_one_row(scalar.rel):
            value = value.then(f"select(pl.col({name}).item(allow_empty=True))")
        on = [f"left_on={quoted_name(frame.names[column.index])}", f"right_on={name}"]
        one = self.operand(value).argument()
        return frame.then(call("join", [one, *on, 'how="semi"']))

    def _filter(self, rel: Filter) -> Frame:
        frame = self.coded(rel.input).decoded(columns_used(rel.predicate))
        filtered = self._filtered(frame, rel.predicate)
        width = len(frame.names)
        return replace(filtered, names=filtered.names[:width], types=filtered.types[:width])

    def _project(self, rel: Project) -> Frame:
        if all(isinstance(e, Column) for e in rel.exprs):
            positions = [e.index for e in rel.exprs if isinstance(e, Column)]
            return self.selected(self.coded(rel.input), positions, rel.schema.names)
        computed = [e for e in rel.exprs if not isinstance(e, Column)]
        below = self.coded(rel.input).decoded(columns_used(*computed))
        frame, exprs = self.with_scalars(below, rel.exprs)
        writer, names, terms = frame.writer, unique_names(rel.schema.names), []
        for expr, name in zip(exprs, names, strict=True):
            if isinstance(expr, Column) and frame.names[expr.index] == name:
                terms.append(quoted_name(name))
                continue
            text = writer.window(expr) if isinstance(expr, Window) else writer.write(expr)
            terms.append(f"{parenthesized(text)}.alias({quoted_name(name)})")
        constant = frozenset(
            n
            for e, n in zip(exprs, names, strict=True)
            if isinstance(e, Case)
            or not columns_used(e)
            or (isinstance(e, Column) and frame.names[e.index] in frame.constant)
        )
        coded = frozenset(
            n
            for e, n in zip(exprs, names, strict=True)
            if isinstance(e, Column) and frame.names[e.index] in frame.coded
        )
        frame = replace(frame, constant=constant, coded=coded)
        if not any(columns_used(e) for e in exprs):
            # In `select` constants are one row, however many there are below.
            frame = frame.then(call("with_columns", terms), whole=False)
            return replace(frame, names=names, types=rel.schema.types).exact()
        frame = frame.then(call("select", terms))
        frame = replace(frame, names=names, types=rel.schema.types, whole=True)
        return self._encoded(rel, frame)

    def _aggregation(self, rel: Aggregation) -> Frame:
        frame = self.coded(rel.input)
        several = rel.grouping_sets is not None and len(rel.grouping_sets) > 1
        if rel.grouping_sets is not None and not several:
            raise UnsupportedPlan("one grouping set")
        exprs = [*rel.keys]
        scalars = [e for m in rel.measures for e in m.args if any(True for _ in subqueries(e))]
        if scalars or any(True for k in exprs for _ in subqueries(k)):
            raise UnsupportedPlan("a subquery among groups and aggregates")
        computed = [k for k in rel.keys if not isinstance(k, Column)]
        frame = frame.decoded(None if several else columns_used(*computed, *rel.measures))
        names = unique_names(rel.schema.names)
        coded = frozenset(
            n
            for k, n in zip(rel.keys, names, strict=False)
            if isinstance(k, Column) and frame.names[k.index] in frame.coded
        )
        keys = [
            quoted_name(n)
            if isinstance(k, Column) and frame.names[k.index] == n
            else f"{parenthesized(frame.writer.write(k))}.alias({quoted_name(n)})"
            for k, n in zip(rel.keys, names, strict=False)
        ]
        if several:
            return self._grouping_sets(rel, frame, names, keys)
        measures = self._measures(rel.measures, frame, names[len(keys) :], bool(keys))
        if keys and measures:
            frame = frame.then(call("group_by", keys)).then(call("agg", measures))
        elif keys:
            frame = frame.then(call("select", keys)).then("unique()")
        elif measures:
            frame = frame.then(call("select", measures))
        else:
            raise UnsupportedPlan("an aggregation to nothing")
        return replace(frame, names=names, types=rel.schema.types, whole=True, coded=coded)

    def _measures(
        self, measures: Sequence[Aggregate], frame: Frame, names: Sequence[str], grouped: bool
    ) -> list[str]:
        return [
            f"{parenthesized(frame.writer.aggregate(m, grouped=grouped))}.alias({quoted_name(n)})"
            for m, n in zip(measures, names, strict=True)
        ]

    def _grouping_sets(
        self, rel: Aggregation, frame: Frame, names: Sequence[str], keys: Sequence[str]
    ) -> Frame:
        """One aggregation for each set, put together."""
        assert rel.grouping_sets is not None
        if not rel.measures:
            raise UnsupportedPlan("grouping sets without aggregates")
        frame = self.variable(frame, "grouped")
        measures = self._measures(rel.measures, frame, names[len(keys) + 1 :], False)
        parts = []
        for chosen in rel.grouping_sets:
            one = frame
            if chosen:
                one = one.then(call("group_by", [keys[i] for i in chosen]))
                one = one.then(call("agg", measures))
            else:
                one = one.then(call("select", measures))
            absent = [i for i in range(len(keys)) if i not in chosen]
            # SQL's GROUPING: the first key is the highest bit.
            grouping = sum(1 << (len(keys) - 1 - i) for i in absent)
            added = [
                f"pl.lit(None, {polars_type(rel.keys[i].type)}).alias({quoted_name(names[i])})"
                for i in absent
            ]
            added.append(f"pl.lit({grouping}, pl.Int64).alias({quoted_name(names[len(keys)])})")
            one = one.then(call("with_columns", added)).then(
                call("select", map(quoted_name, names))
            )
            parts.append(self.operand(one).argument())
        base = f"pl.concat({listed(parts)})"
        return Frame(base, (), tuple(names), rel.schema.types)

    def _leading(self, rel: Leading) -> Frame:
        """All rows up to the last that counts, which is found without sorting."""
        frame = self.coded(rel.input).decoded(columns_used(rel.key)).exact()
        if frame.calls:
            frame = self.variable(frame.then("cache()"), "rows")
        key = frame.names[_index(rel.key.expr)]
        groups = [quoted_name(frame.names[_index(e)]) for e in rel.partition_by]
        last = free_name("last", frame.names)
        column = f"pl.col({quoted_name(key)})"
        n, large = rel.count, rel.key.descending
        end = f"{column}.top_k({n}).min()" if large else f"{column}.bottom_k({n}).max()"
        term = f"pl.when({column}.count() >= {n}).then({end}).alias({quoted_name(last)})"
        if groups:
            ends = frame.then(call("group_by", groups)).then(call("agg", [term]))
            how = [f"on={one_or_list(groups)}", 'how="inner"', "nulls_equal=True"]
        else:
            ends = frame.then(call("select", [term]))
            how = ['how="cross"']
        joined = frame.then(call("join", [self.variable(ends, "ends").base, *how]), whole=False)
        among = (
            f"pl.col({quoted_name(last)}).is_null()"
            f" | ({column} {'>=' if large else '<='} pl.col({quoted_name(last)}))"
        )
        if rel.key.nulls_first:
            among += f" | {column}.is_null()"
        return joined.then(call("filter", [among])).exact()

    def _sort(self, rel: Sort) -> Frame:
        frame = self.coded(rel.input).decoded(columns_used(*rel.keys))
        keys = [k for k in rel.keys if columns_used(k.expr)]  # a constant orders nothing
        if not keys:
            return frame
        if any(any(True for _ in subqueries(k.expr)) for k in keys):
            raise UnsupportedPlan("a subquery in ORDER BY")
        ordering = frame.writer.sort(keys)
        terms = [
            quoted_name(frame.names[k.expr.index]) if isinstance(k.expr, Column) else text
            for k, text in zip(keys, ordering.keys, strict=True)
        ]
        arguments = [terms[0] if len(terms) == 1 else listed(terms)]
        if any(ordering.descending):
            arguments.append(f"descending={flags(ordering.descending)}")
        if any(ordering.nulls_last):
            arguments.append(f"nulls_last={flags(ordering.nulls_last)}")
        return frame.then(call("sort", arguments))


def _index(expr: Expr) -> int:
    assert isinstance(expr, Column)
    return expr.index
