"""Whether an answer is right: our Arrow table against DuckDB's, value by value.

Exact, except that floating values need only agree to a relative 1e-9. The order of rows must
respect the query's ORDER BY; rows that it ties may stand in any order, and where the LIMIT cuts
through a tie any choice among the tied rows is right. Integers and decimals of one scale may
differ in width (which is noted), other types may not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tpcds.ties import close, tie_groups

__all__ = ["Difference", "Verdict", "Widened", "verify"]

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing that is wrong.

    Attributes
    ----------
    kind
        ``columns``, ``type``, ``rows`` (their number), ``value`` or ``order``.
    message
        One line for people.
    row, column
        Where, counted from 0; None where it has no such place.
    """

    kind: str
    message: str
    row: int | None = None
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison found: right unless there is a `difference`; `notes` are tolerated
    oddities.
    """

    rows: int
    difference: Difference | None = None
    notes: tuple[str, ...] = ()

    @property
    def matches(self) -> bool:
        """Whether the answer is right."""
        return self.difference is None


@dataclass(frozen=True, slots=True)
class Widened:
    """The oracle's rows without the LIMIT, at least through the tie that it cuts.

    Attributes
    ----------
    table
        In the order of the query's ORDER BY; the sort keys are the last columns.
    keys
        Number of sort keys; 0 for a query without ORDER BY.
    """

    table: pa.Table
    keys: int


def verify(
    ours: pa.Table, oracle: pa.Table, widened: Callable[[], Widened] | None = None
) -> Verdict:
    """Compare an answer with the oracle's.

    Parameters
    ----------
    ours
        The answer in question.
    oracle
        DuckDB's answer to the same query.
    widened
        Asks the oracle again, without LIMIT and with sort keys; called only if the two differ as
        they stand. Without it the rows must be the same in the same order.
    """
    notes: list[str] = []

    def wrong(difference: Difference) -> Verdict:
        return Verdict(ours.num_rows, difference, tuple(notes))

    if ours.num_columns != oracle.num_columns:
        return wrong(
            Difference("columns", f"{ours.num_columns} columns, DuckDB has {oracle.num_columns}")
        )
    for mine, theirs in zip(ours.schema, oracle.schema, strict=True):
        if _family(mine.type) != _family(theirs.type):
            message = f"column {theirs.name} is {mine.type}, DuckDB has {theirs.type}"
            return wrong(Difference("type", message, column=theirs.name))
        if mine.type != theirs.type and _width_matters(mine.type):
            notes.append(f"{theirs.name}: {mine.type} for {theirs.type}")
        if mine.name.lower() != theirs.name.lower():
            notes.append(f"column {theirs.name} is called {mine.name}")
    if ours.num_rows != oracle.num_rows:
        return wrong(Difference("rows", f"{ours.num_rows} rows, DuckDB has {oracle.num_rows}"))

    names = oracle.column_names
    mine, theirs = _rows(ours), _rows(oracle)
    plain = _first_difference(mine, theirs, names)
    if plain is None:
        return Verdict(ours.num_rows, None, tuple(notes))
    if widened is None:
        return wrong(plain)
    wide = widened()
    split = wide.table.num_columns - wide.keys
    pool_rows = _rows(wide.table)
    pool, keys = [row[:split] for row in pool_rows], [row[split:] for row in pool_rows]
    strict = _check_groups(mine, pool, keys, names, loose=False)
    if strict is None:
        return Verdict(ours.num_rows, None, tuple(notes))
    if _check_groups(mine, pool, keys, names, loose=True) is None:
        notes.append("order among equal floating sort keys differs")
        return Verdict(ours.num_rows, None, tuple(notes))
    return wrong(strict)


def _family(kind: pa.DataType) -> object:
    """What two types must share to be compared at all."""
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        return "integer"
    if pa.types.is_decimal(kind):
        return ("decimal", kind.scale)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return "binary"
    return str(kind)


def _width_matters(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _rows(table: pa.Table) -> list[Row]:
    if table.num_columns == 0:
        return [()] * table.num_rows
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return close(left, right)
    return bool(left == right)


def _first_difference(
    mine: Sequence[Row], theirs: Sequence[Row], names: Sequence[str], start: int = 0
) -> Difference | None:
    for number, (a, b) in enumerate(zip(mine, theirs, strict=True), start):
        if a == b:
            continue
        for name, x, y in zip(names, a, b, strict=True):
            if not _equal(x, y):
                message = f"row {number}, column {name}: {_shown(x)}, DuckDB has {_shown(y)}"
                return Difference("value", message, number, name)
    return None


def _check_groups(
    mine: Sequence[Row],
    pool: Sequence[Row],
    keys: Sequence[Row],
    names: Sequence[str],
    *,
    loose: bool,
) -> Difference | None:
    """Check each tie's rows against the oracle's rows of that tie, as multisets.

    Positions carry the order: our rows at the places of a tie must be rows of that tie. Where our
    rows end inside a tie (the LIMIT cuts it) they may be any of its rows, otherwise they are all
    of them.
    """
    if len(pool) < len(mine):
        return Difference("rows", f"{len(mine)} rows, DuckDB without its LIMIT has {len(pool)}")
    for start, stop in tie_groups(keys, loose=loose):
        if start >= len(mine):
            break
        lost = _unmatched(mine[start:stop], pool[start:stop])
        if lost is None:
            continue
        row = start + lost
        if _unmatched(mine, pool) is None:
            return Difference("order", f"row {row} is out of order: {_shown_row(mine[row])}", row)
        if stop - start == 1:
            return _first_difference(mine[start:stop], pool[start:stop], names, start)
        message = f"row {row} is not in DuckDB's answer: {_shown_row(mine[row])}"
        return Difference("value", message, row)
    return None


def _unmatched(wanted: Sequence[Row], pool: Sequence[Row]) -> int | None:
    """Position of a wanted row that finds no row of its own in the pool; None if all do.

    Rows are sorted into buckets by everything exact in them. Inside a bucket each takes the first
    free row with close floating values; what is found is always a true one-to-one matching.
    """
    free: dict[Row, list[Row]] = defaultdict(list)
    for row in pool:
        exact, floating = _split(row)
        free[exact].append(floating)
    for bucket in free.values():
        bucket.sort(key=_ordering)
    order = sorted(range(len(wanted)), key=lambda n: _ordering(_split(wanted[n])[1]))
    lost = []
    for number in order:
        exact, floating = _split(wanted[number])
        bucket = free.get(exact, [])
        for place, candidate in enumerate(bucket):
            if all(map(close, floating, candidate)):
                del bucket[place]
                break
        else:
            lost.append(number)
    return min(lost, default=None)


def _split(row: Row) -> tuple[Row, tuple[float, ...]]:
    exact = tuple(float if isinstance(value, float) else value for value in row)
    return exact, tuple(value for value in row if isinstance(value, float))


def _ordering(values: tuple[float, ...]) -> tuple[tuple[bool, float], ...]:
    # NaN compares as nothing; put it last.
    return tuple((value != value, 0.0 if value != value else value) for value in values)


def _shown(value: Any) -> str:
    return "NULL" if value is None else str(value)


def _shown_row(row: Row) -> str:
    return " | ".join(_shown(value) for value in row)
