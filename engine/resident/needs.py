"""What a query wants of base tables: their columns, and ranges that prune their zones."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from engine.optimizer.expressions import subqueries_of
from engine.resident.layout import Within
from engine.stages.fragments import all_relations
from operators.expr import Call, Column, Expr, InList, Lit
from operators.functions import COMPARISONS
from operators.rel import Filter, ParquetSource, Rel, Scan
from operators.rewrite import conjuncts
from operators.schema import Schema

__all__ = ["Needs", "columns_wanted", "ranges", "scan_nulls", "scan_ranges"]

Needs = dict[tuple[str, ...], dict[str, pa.DataType]]
"""Wanted columns and their types, by the files of a table."""

_EPOCH = datetime.date(1970, 1, 1)


def columns_wanted(plans: Sequence[Rel]) -> Needs:
    """The columns that the scans of some plans read, but for tables that have columns in their
    paths. Where rows are merely counted, one column stands for them.
    """
    needs: Needs = {}
    for scan in _scans(plans):
        assert isinstance(scan.source, ParquetSource)
        if scan.source.hive:  # some of its columns are in no file
            continue
        wanted = needs.setdefault(scan.source.paths, {})
        positions = {*scan.columns, *_positions(scan.predicate)} or {0}
        for at in sorted(positions):
            field = scan.source_schema[at]
            wanted[field.name] = field.type
    return needs


def ranges(plan: Rel, source: ParquetSource) -> Within:
    """Ranges that every row of a table that matters to `plan` lies in, by column."""
    # For each reader of a scan, as the filter is the reader's: a scan may have others.
    read: list[tuple[Scan, Filter | None]] = [(plan, None)] if isinstance(plan, Scan) else []
    for node in all_relations(plan):
        above = node if isinstance(node, Filter) else None
        read += [(below, above) for below in node.inputs() if isinstance(below, Scan)]
        read += [(below, None) for below in subqueries_of(node) if isinstance(below, Scan)]
    found = [scan_ranges(scan, above) for scan, above in read if scan.source == source]
    return _either(found)


def scan_ranges(scan: Scan, above: Filter | None = None) -> Within:
    """Ranges of every row that a scan, and a filter right above it, leave."""
    names = scan.source_schema.names
    within = _within(scan.predicate, scan.source_schema, names)
    if above is None:
        return within
    shown = [names[c] for c in scan.columns]
    return _both(within, _within(above.predicate, scan.schema, shown))


def scan_nulls(scan: Scan, above: Filter | None = None) -> tuple[str, ...]:
    """Columns that are NULL in every row that a scan, and a filter right above it, leave."""
    names = scan.source_schema.names
    found = [names[c] for c in _null(scan.predicate)]
    if above is not None:
        found += [names[scan.columns[c]] for c in _null(above.predicate)]
    return tuple(dict.fromkeys(found))


def _null(predicate: Expr | None) -> Iterator[int]:
    for term in conjuncts(predicate):
        match term:
            case Call(function="is_null", args=(Column(index=position),)):
                yield position


def _scans(plans: Sequence[Rel]) -> Iterator[Scan]:
    for plan in plans:
        for node in all_relations(plan):
            if isinstance(node, Scan) and isinstance(node.source, ParquetSource):
                yield node


def _positions(expr: Expr | None) -> set[int]:
    if expr is None:
        return set()
    own = {expr.index} if isinstance(expr, Column) else set()
    return own.union(*(_positions(c) for c in expr.children()))


def _within(predicate: Expr | None, schema: Schema, names: Sequence[str]) -> Within:
    result: Within = {}
    for term in conjuncts(predicate):
        if (one := _range(term)) is not None:
            position, low, high = one
            result = _both(result, {names[position]: (low, high)})
    return result


def _range(term: Expr) -> tuple[int, int | None, int | None] | None:
    """Column, least and greatest stored integer for which a condition can be true."""
    match term:
        case InList(arg=Column() as column, options=options) if options:
            values = [_stored(o, column.type) for o in options]
            if any(v is None for v in values):
                return None
            known = [v for v in values if v is not None]
            return column.index, min(a for a, _ in known), max(b for _, b in known)
        case Call(function=name, args=(Column() as column, Lit() as literal)):
            pass
        case Call(function=name, args=(Lit() as literal, Column() as column)):
            name = COMPARISONS.get(name, "")
        case _:
            return None
    ends = _stored(literal, column.type)
    if ends is None:
        return None
    low, high = ends
    match name:
        case "equal":
            return column.index, low, high
        case "greater" | "greater_equal":
            return column.index, low, None
        case "less" | "less_equal":
            return column.index, None, high
    return None


def _stored(literal: Expr, type: pa.DataType) -> tuple[int, int] | None:
    """The stored integers next to a constant: the one below or at it, and the one above or at
    it.
    """
    if not isinstance(literal, Lit) or literal.value is None or isinstance(literal.value, bool):
        return None
    value: Any = literal.value
    if pt.is_date32(type):
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            days = (value - _EPOCH).days
            return days, days
        return None
    if not isinstance(value, int | decimal.Decimal) or not (
        pt.is_integer(literal.type) or pt.is_decimal(literal.type)
    ):
        return None
    if pt.is_integer(type):
        scale = 0
    elif pt.is_decimal32(type) or pt.is_decimal64(type):
        scale = type.scale
    else:
        return None
    with decimal.localcontext(prec=80):
        exact = decimal.Decimal(value).scaleb(scale)
        return (
            int(exact.to_integral_value(decimal.ROUND_FLOOR)),
            int(exact.to_integral_value(decimal.ROUND_CEILING)),
        )


def _both(left: Within, right: Within) -> Within:
    result = dict(left)
    for column, (low, high) in right.items():
        low0, high0 = result.get(column, (None, None))
        result[column] = (
            max((v for v in (low, low0) if v is not None), default=None),
            min((v for v in (high, high0) if v is not None), default=None),
        )
    return result


def _either(found: Sequence[Within]) -> Within:
    """Ranges that hold whichever of several scans a row is for."""
    if not found:
        return {}
    result: Within = {}
    for column in found[0]:
        if all(column in one for one in found):
            lows, highs = zip(*(one[column] for one in found), strict=True)
            low = None if None in lows else min(lows)
            high = None if None in highs else max(highs)
            if low is not None or high is not None:
                result[column] = (low, high)
    return result
