"""Estimates of how many rows a plan makes, and what is known of their columns.

The formulas are the textbook ones (uniform values, independent columns, containment of join
keys).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from operators.expr import Call, Cast, Column, Expr, InList, Lit
from operators.rel import (
    Aggregation,
    Filter,
    Join,
    Leading,
    Limit,
    Project,
    Rel,
    Scan,
    SetOperation,
    Values,
)
from operators.selectivity import bounds_of, selectivity, share_inside, terms_of
from operators.stats import ColumnStats, Lookup, TableStats, as_number

__all__ = ["estimate"]


def estimate(
    rel: Rel, lookup: Lookup, known: dict[int, tuple[Rel, TableStats]] | None = None
) -> TableStats:
    """Estimated rows and columns of what `rel` makes.

    A source that `lookup` does not know counts as a million rows. Relations that occur twice
    are estimated once; with the same `known` also those of other calls with this `lookup`.
    """
    done = {} if known is None else known

    def go(r: Rel) -> TableStats:
        if id(r) not in done:
            done[id(r)] = (r, _estimate(r, go, lookup))
        return done[id(r)][1]

    return go(rel)


def _estimate(rel: Rel, go: Callable[[Rel], TableStats], lookup: Lookup) -> TableStats:
    match rel:
        case Scan(source=source):
            stats = lookup(source)
            if stats is None or len(stats.columns) != len(rel.source_schema):
                rows = 1e6 if stats is None else stats.rows
                stats = TableStats(rows, (ColumnStats(),) * len(rel.source_schema))
            kept = stats
            if rel.predicate is not None:
                whole = tuple(c._replace(domain=c.distinct) for c in stats.columns)
                kept = _filtered(TableStats(stats.rows, whole), rel.predicate)
            origin = id(rel), kept.rows
            columns = tuple(
                kept.columns[i]._replace(domain=stats.columns[i].distinct, origin=origin)
                for i in rel.columns
            )
            return TableStats(kept.rows, columns)
        case Values(rows=rows_):
            return TableStats(float(len(rows_)), (ColumnStats(),) * len(rel.schema))
        case Filter(predicate=predicate):
            kept = _filtered(go(rel.input), predicate)
            if isinstance(rel.input, Scan):
                origin = id(rel.input), kept.rows
                columns = tuple(c._replace(origin=origin) for c in kept.columns)
                return TableStats(kept.rows, columns)
            return kept
        case Project(exprs=exprs):
            below = go(rel.input)
            return TableStats(below.rows, tuple(_projected(e, below) for e in exprs))
        case Join():
            return _joined(rel, go(rel.left), go(rel.right))
        case Aggregation():
            return _grouped(rel, go(rel.input))
        case Limit(count=count, offset=offset):
            below = go(rel.input)
            left = max(below.rows - offset, 0.0)
            return _scaled(below, left if count is None else min(left, float(count)))
        case Leading(partition_by=partition_by, count=count):
            below = go(rel.input)
            groups = 1.0
            for expr in partition_by:
                known = below.columns[expr.index].distinct if isinstance(expr, Column) else None
                groups *= below.rows if known is None else known + 1.0
            return _scaled(below, min(below.rows, groups * count))
        case SetOperation():
            return _united(rel, [go(o) for o in rel.operands])
    return go(rel.inputs()[0])


def _scaled(stats: TableStats, rows: float) -> TableStats:
    """The same columns in fewer rows: distinct values shrink as if rows were drawn at random."""
    columns = tuple(
        [
            c if c.distinct is None else c.with_distinct(_drawn(c.distinct, stats.rows, rows))
            for c in stats.columns
        ]
    )
    return TableStats(rows, columns)


def _drawn(distinct: float, rows: float, kept: float) -> float:
    """Expected number of distinct values left when `kept` of `rows` rows stay."""
    if rows <= 0 or kept <= 0 or distinct <= 0:
        return 0.0
    if kept >= rows:
        return min(distinct, kept)
    per_value = rows / distinct
    return min(distinct * -math.expm1(per_value * math.log1p(-min(kept / rows, 1 - 1e-12))), kept)


def _filtered(stats: TableStats, predicate: Expr | None) -> TableStats:
    if predicate is None:
        return stats
    kept = _scaled(stats, stats.rows * selectivity(predicate, stats))
    columns = list(kept.columns)
    terms = terms_of(predicate)
    for i, bounds in bounds_of(terms).items():
        low, high = stats.columns[i].clipped(*bounds)
        if low is not None and high is not None:
            known = stats.columns[i].distinct
            inside = (
                None if known is None else max(known * share_inside(stats.columns[i], bounds), 1.0)
            )
            columns[i] = columns[i]._replace(min=low, max=high, null_fraction=0.0, distinct=inside)
    for term in terms:
        points = _points(term)
        if points is None:
            continue
        i, values = points
        numbers = [n for v in values if (n := as_number(v)) is not None]
        given = stats.columns[i].distinct
        most = float(len(values)) if given is None else min(float(len(values)), given)
        columns[i] = columns[i]._replace(null_fraction=0.0, distinct=most)
        if len(numbers) == len(values):
            columns[i] = columns[i]._replace(min=min(numbers), max=max(numbers))
    return TableStats(kept.rows, tuple(columns))


def _points(term: Expr) -> tuple[int, list[object]] | None:
    """The column that `term` holds to some values, and the values."""
    match term:
        case Call(function="equal", args=(Column(index=i), Lit(value=v))) if v is not None:
            return i, [v]
        case InList(arg=Column(index=i), options=options) if all(
            isinstance(o, Lit) and o.value is not None for o in options
        ):
            return i, [o.value for o in options if isinstance(o, Lit)]
        case Call(function="or", args=args):
            parts = [_points(a) for a in args]
            known = [p for p in parts if p is not None]
            if len(known) == len(parts) and len({p[0] for p in known}) == 1:
                return known[0][0], list(dict.fromkeys(v for p in known for v in p[1]))
    return None


def _projected(expr: Expr, stats: TableStats) -> ColumnStats:
    match expr:
        case Column(index=i):
            return stats.columns[i]
        case Lit(value=value):
            number = as_number(value)
            return ColumnStats(number, number, float(value is None), 1.0)
        case Cast(arg=arg):
            return _projected(arg, stats)
    return ColumnStats()


def _joined(rel: Join, left: TableStats, right: TableStats) -> TableStats:
    share = 1.0  # of the cross product, and of left rows that find a partner
    matched = 1.0
    keys_left = keys_right = domain = 1.0  # combinations of all keys
    for a, b in zip(rel.left_keys, rel.right_keys, strict=True):
        one, other = left.columns[a], right.columns[b]
        ones, others = one.distinct or left.rows, other.distinct or right.rows
        known = max(_within(one, other), _within(other, one))
        keys_left, keys_right = keys_left * max(ones, 1.0), keys_right * max(others, 1.0)
        domain *= max(ones, others, known, 1.0)
        share *= (1 - one.null_fraction) * (1 - other.null_fraction)
        matched *= 1 - one.null_fraction
        matched *= min(others / max(ones, _within(other, one), 1.0), 1.0)
    if len(rel.left_keys) > 1:
        # Keys that together name a row (an order and an item) are not independent: there are no
        # more combinations than rows.
        largest = max(min(keys_left, left.rows), min(keys_right, right.rows), 1.0)
        domain = min(domain, largest)
    share /= max(domain, 1.0)
    both = TableStats(left.rows * right.rows, left.columns + right.columns)
    if rel.condition is not None:
        residual = selectivity(rel.condition, both)
        share *= residual
        matched *= residual if not rel.left_keys else max(residual, 0.5)
    matches = left.rows * right.rows * share
    matched = min(matched, right.rows * share)  # no more rows find a partner than there are pairs
    if rel.kind == "semi":
        return _scaled(left, left.rows * matched)
    if rel.kind == "anti":
        return _scaled(left, left.rows * max(1 - matched, 0.01))
    if rel.kind == "mark":
        return TableStats(left.rows, (*left.columns, ColumnStats(0.0, 1.0, 0.0, 2.0)))
    rows = left.rows if rel.kind == "asof" else matches
    if rel.kind in ("left", "full"):
        rows = max(rows, left.rows)
    if rel.kind in ("right", "full"):
        rows = max(rows, right.rows)
    columns = tuple(
        c if c.distinct is None or c.distinct <= rows else c.with_distinct(max(rows, 0.0))
        for c in both.columns
    )
    if rel.kind == "left" and rows > 0:
        filled = max(left.rows * (1 - matched), 0.0) / rows
        columns = columns[: len(left.columns)] + tuple(
            c._replace(null_fraction=max(c.null_fraction, min(filled, 1.0)))
            for c in columns[len(left.columns) :]
        )
    return TableStats(rows, columns)


def _within(one: ColumnStats, other: ColumnStats) -> float:
    """How many values `one` had, before rows were filtered, in the range of `other`.

    Filters on a dimension often keep a run of keys (the dates of a year), and facts know only some
    of its keys (the dates of five years): those kept are taken to be among those known.
    """
    if one.domain is None or one.min is None or one.max is None:
        return 0.0
    low, high = one.clipped(*_known_range(other))
    if low is None or high is None or low > high:
        return 0.0
    return one.domain * (high - low + 1) / (one.max - one.min + 1)


def _known_range(column: ColumnStats) -> tuple[float, float]:
    low = -math.inf if column.min is None else column.min
    return low, math.inf if column.max is None else column.max


def _grouped(rel: Aggregation, below: TableStats) -> TableStats:
    keys = [_projected(k, below) for k in rel.keys]
    distinct = [(k.distinct or max(below.rows, 1.0) ** 0.5) + (k.null_fraction > 0) for k in keys]
    sets = rel.grouping_sets or (tuple(range(len(keys))),)
    rows = 0.0
    for chosen in sets:
        groups = _combinations([(keys[i].origin, distinct[i]) for i in chosen])
        rows += min(groups, max(below.rows, 0.0)) if chosen else 1.0
    columns = [*keys, *([ColumnStats()] if len(sets) > 1 else [])]
    columns += [ColumnStats() for _ in rel.measures]
    limited = (
        c if c.distinct is None or c.distinct <= rows else c.with_distinct(rows) for c in columns
    )
    return TableStats(rows, tuple(limited))


def _combinations(keys: Sequence[tuple[tuple[int, float] | None, float]]) -> float:
    """Combinations of keys: independent, but those of one scan are no more than its rows."""
    by_scan: dict[int, tuple[float, float]] = {}
    total = 1.0
    for origin, distinct in keys:
        if origin is None:
            total *= distinct
            continue
        scan, rows = origin
        product, least = by_scan.get(scan, (1.0, math.inf))
        by_scan[scan] = product * distinct, min(least, max(rows, 1.0))
    return total * math.prod(min(product, rows) for product, rows in by_scan.values())


def _united(rel: SetOperation, operands: list[TableStats]) -> TableStats:
    first = operands[0]
    if rel.operation == "intersect":
        return _scaled(first, min(o.rows for o in operands))
    if rel.operation == "except":
        return first
    rows = sum(o.rows for o in operands)
    columns = []
    for parts in zip(*(o.columns for o in operands), strict=True):
        low, high = [p.min for p in parts], [p.max for p in parts]
        counts = [p.distinct for p in parts]
        columns.append(
            ColumnStats(
                None if None in low else min(v for v in low if v is not None),
                None if None in high else max(v for v in high if v is not None),
                max(p.null_fraction for p in parts),
                None if None in counts else min(sum(c for c in counts if c is not None), rows),
            )
        )
    return TableStats(rows, tuple(columns))
