"""Aggregations over parted rows: where they are, in two phases, or after a move.

1. *In place*: rows of a group are together already.
2. *Two phases*: every copy aggregates its own rows, and what comes out (few rows) is merged.
   Values are those of DuckDB's one-phase aggregate: sums of decimals stay decimals, an average is
   the quotient of exact sum and count.
3. *Moved*: the columns that are needed are scattered by group keys, or gathered when there are
   none.

Deviations, medians and their like take way 3: their states do not travel as SQL values without
losing digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.types as pt

from engine.optimizer.expressions import column_refs, with_inputs
from engine.stages.fragments import Fragment, Keys, Workshop, remap
from operators.expr import Aggregate, Call, Cast, Column, Expr, Lit
from operators.functions import aggregate_type
from operators.rel import Aggregation, Project, Rel
from operators.schema import Field, Schema
from operators.types import FLOAT64, INT64, is_hugeint

if TYPE_CHECKING:
    from engine.stages.cutter import Cutter

__all__ = ["cut_aggregation"]

_MERGED_BY_ITSELF = frozenset({"sum", "min", "max", "bool_and", "bool_or", "any_value"})
_MERGED_BY_SUM = frozenset({"count"})
# A first phase that leaves more than this share of the rows is work for nothing.
_WORTHWHILE = 0.5


def cut_aggregation(cutter: Cutter, rel: Aggregation, wish: Keys | None) -> Fragment:
    """Place an aggregation; its input has not been visited."""
    workshop = cutter.workshop
    common = _common_keys(rel)
    plain = {p: k.index for p in common if isinstance(k := rel.keys[p], Column)}
    wanted = tuple(plain[p] for p in wish or () if p in plain) or tuple(plain.values())
    below = cutter.visit(rel.input, wanted or _distinct_columns(rel) or None)
    if not below.parted or below.within(plain.values()):
        return _in_place(rel, below)
    if _has_phases(rel, below) and not (common and _keeps_most(workshop, rel, below)):
        return _two_phases(workshop, rel, below, wish)
    rel, below = _narrowed(rel, below)
    # From here on the keys are the first columns of the input.
    if common:
        keys = tuple(p for p in wish or () if p in common) or tuple(sorted(common))
        return _in_place(rel, workshop.hash(below, keys))
    distinct = _distinct_columns(rel)
    if distinct:
        scattered = workshop.hash(below, distinct)
        if _has_phases(rel, scattered):
            return _two_phases(workshop, rel, scattered, wish)
    return _in_place(rel, workshop.gather(below))


def _common_keys(rel: Aggregation) -> set[int]:
    """Positions of the keys that stand in every grouping set: rows of a group agree on them."""
    if rel.grouping_sets is None:
        return set(range(len(rel.keys)))
    return set.intersection(*(set(s) for s in rel.grouping_sets)) if rel.grouping_sets else set()


def _distinct_columns(rel: Aggregation) -> Keys:
    """The columns that every DISTINCT aggregate is over; empty if they are over different
    things.
    """
    over = {m.args for m in rel.measures if m.distinct}
    if len(over) != 1:
        return ()
    (args,) = over
    columns = tuple(a.index for a in args if isinstance(a, Column))
    return columns if len(columns) == len(args) else ()


def _in_place(rel: Aggregation, below: Fragment) -> Fragment:
    """The aggregation right here; the keys that it was placed by are among its output."""
    placement = below.placement
    if placement is not None:
        positions: dict[int, int] = {}
        for p in sorted(_common_keys(rel)):
            key = rel.keys[p]
            if isinstance(key, Column):
                positions.setdefault(key.index, p)
        placement = remap(placement, positions)
    return Fragment(with_inputs(rel, [below.rel]), placement)


def _keeps_most(workshop: Workshop, rel: Aggregation, below: Fragment) -> bool:
    groups = workshop.estimates.rows(with_inputs(rel, [below.rel]))
    return groups > max(workshop.settings.gather_rows, _WORTHWHILE * workshop.rows(below))


def _narrowed(rel: Aggregation, below: Fragment) -> tuple[Aggregation, Fragment]:
    """The same aggregation over a projection of exactly what it needs, keys first, everything a
    plain column.
    """
    exprs: list[Expr] = list(rel.keys)
    names = list(rel.schema.names[: len(rel.keys)])

    def column(expr: Expr) -> Expr:
        for position, known in enumerate(exprs):
            if known == expr and position >= len(rel.keys):
                return Column(expr.type, position)
        exprs.append(expr)
        names.append(f"v{len(exprs)}")
        return Column(expr.type, len(exprs) - 1)

    measures = tuple(
        replace(
            m,
            args=tuple(a if isinstance(a, Lit) else column(a) for a in m.args),
            filter=None if m.filter is None else column(m.filter),
            order=tuple(replace(k, expr=column(k.expr)) for k in m.order),
        )
        for m in rel.measures
    )
    if not exprs:  # count(*) of rows that are to be gathered: a row needs a column to stand in
        exprs, names = [Lit(pa.bool_(), True)], ["v0"]
    schema = Schema(tuple(Field(n, e.type) for n, e in zip(names, exprs, strict=True)))
    positions: dict[int, int] = {}
    for position, expr in enumerate(exprs):
        if isinstance(expr, Column):
            positions.setdefault(expr.index, position)
    placement = None if below.placement is None else remap(below.placement, positions)
    keys = column_refs(schema, range(len(rel.keys)))
    project = Project(schema, below.rel, tuple(exprs))
    return replace(rel, input=project, keys=keys, measures=measures), Fragment(project, placement)


# Two phases


def _has_phases(rel: Aggregation, below: Fragment) -> bool:
    """Whether every measure can be computed from its values over the copies' own rows."""
    sets = rel.grouping_sets
    if sets is not None and len({frozenset(s) for s in sets}) < len(sets):
        return False  # equal sets put out equal rows twice, which merging would make one
    keys = {k.index for p in _common_keys(rel) if isinstance(k := rel.keys[p], Column)}
    return all(_mergeable(m, keys, below) for m in rel.measures)


def _mergeable(measure: Aggregate, keys: set[int], below: Fragment) -> bool:
    if measure.order or measure.function not in (_MERGED_BY_ITSELF | _MERGED_BY_SUM | {"avg"}):
        return False
    if measure.function == "avg" and pt.is_temporal(measure.type):
        return False  # of dates and intervals there is an average, but no sum
    if not measure.distinct or measure.function in ("min", "max", "bool_and", "bool_or"):
        return True
    # Distinct values count once only if equal ones are in one copy.
    values = {a.index for a in measure.args if isinstance(a, Column)}
    return bool(below.within(keys | values))


def _two_phases(
    workshop: Workshop, rel: Aggregation, below: Fragment, wish: Keys | None
) -> Fragment:
    """Aggregate in every copy, move what comes out, merge it."""
    several = rel.grouping_sets is not None and len(rel.grouping_sets) > 1
    heads = rel.schema.fields[: len(rel.keys) + several]
    partial: list[Aggregate] = []
    states: list[tuple[int, ...]] = []
    for measure in rel.measures:
        wanted = _first_phase(measure)
        states.append(tuple(len(heads) + _position(partial, state) for state in wanted))
    names = [f"p{i}" for i in range(len(partial))]
    fields = tuple(Field(n, m.type) for n, m in zip(names, partial, strict=True))
    schema = Schema(heads + fields)
    first = Aggregation(schema, below.rel, rel.keys, tuple(partial), rel.grouping_sets)
    moved = _move_groups(workshop, Fragment(first, frozenset()), len(heads), wish)
    return _second_phase(rel, moved, states, len(heads))


def _position(known: list[Aggregate], state: Aggregate) -> int:
    """Where `state` stands among the first phase's measures; it is added if it is new."""
    if state not in known:
        known.append(state)
    return known.index(state)


def _first_phase(measure: Aggregate) -> tuple[Aggregate, ...]:
    if measure.function != "avg":
        return (measure,)
    count = replace(measure, function="count", type=INT64)
    total = replace(measure, function="sum", type=aggregate_type("sum", measure.args))
    return total, count


def _move_groups(workshop: Workshop, partial: Fragment, heads: int, wish: Keys | None) -> Fragment:
    """Groups that may have rows in several copies, brought together."""
    copies = workshop.settings.parallelism
    if heads == 0 or workshop.rows(partial) * copies <= workshop.settings.gather_rows:
        return workshop.gather(partial)
    keys = tuple(dict.fromkeys(c for c in wish or () if c < heads)) or tuple(range(heads))
    return workshop.hash(partial, keys)


def _second_phase(
    rel: Aggregation, moved: Fragment, states: Sequence[tuple[int, ...]], heads: int
) -> Fragment:
    """Merge states; where a value is more than a merged state, a projection computes it."""
    schema = moved.rel.schema
    keys = column_refs(schema, range(heads))
    merged: list[Aggregate] = []
    values: list[Expr] = list(keys)
    for measure, positions in zip(rel.measures, states, strict=True):
        columns = []
        for position in positions:
            state = Column(schema[position].type, position)
            merge = _merge(measure.function, state)
            columns.append(Column(merge.type, heads + _position(merged, merge)))
        values.append(_value(measure, columns))
    fields = schema.fields[:heads] + tuple(Field(f"p{i}", m.type) for i, m in enumerate(merged))
    final: Rel = Aggregation(Schema(fields), moved.rel, keys, tuple(merged))
    if all(isinstance(v, Column) and v.index == i for i, v in enumerate(values)):
        final = replace(final, schema=rel.schema)
    else:
        final = Project(rel.schema, final, tuple(values))
    placement = moved.placement
    return Fragment(final, placement)


def _merge(function: str, state: Column) -> Aggregate:
    """The aggregate that makes one state of several."""
    name = function if function in _MERGED_BY_ITSELF else "sum"
    return Aggregate(aggregate_type(name, (state,)), name, (state,))


def _value(measure: Aggregate, merged: Sequence[Column]) -> Expr:
    """What a measure is, given its merged states."""
    if measure.function == "avg":
        return _quotient(measure, *merged)
    (value,) = merged
    return value if value.type == measure.type else Cast(measure.type, value)


def _quotient(measure: Aggregate, total: Column, count: Column) -> Expr:
    """Sum divided by count, to the digit as DuckDB's `avg`.

    DuckDB divides the unscaled sum of decimals by count times the scale. Dividing the (already
    rounded) double of the decimal sum by the count would differ in the last place.
    """
    number = Cast(FLOAT64, count)
    sum_type = total.type
    amount: Expr = Cast(FLOAT64, total)
    if pt.is_decimal(sum_type) and not is_hugeint(sum_type) and sum_type.scale:
        unit = Lit(FLOAT64, float(10**sum_type.scale))
        amount = Call(FLOAT64, "round", (Call(FLOAT64, "multiply", (amount, unit)),))
        return Call(FLOAT64, "divide", (amount, Call(FLOAT64, "multiply", (number, unit))))
    quotient = Call(FLOAT64, "divide", (amount, number))
    return quotient if measure.type == FLOAT64 else Cast(measure.type, quotient)
