"""Leaving out zones of resident tables that hold no key which the other tables of a statement have.

Which keys may be asked for is known when the element is made (`engine.resident.keys`), which pay
when its tables are open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from engine.resident.reader import ResidentTable
from operators.rel import ParquetSource

__all__ = ["QUICK_ROWS", "Answer", "KeyRange", "narrowed"]

KeyRange: TypeAlias = tuple[str, str, Sequence[str], str]
"""A table, its column, the tables that a statement reads, and the statement for the two ends."""

Answer: TypeAlias = Sequence[tuple[str, str]]
"""Names and types of a statement's columns."""

QUICK_ROWS = 300_000
"""Most rows of a table that is asked for its keys before the statement: a millisecond or two."""

_ENDS = (("number", "int32"), ("low", "int64"), ("high", "int64"))

Opened = TypeVar("Opened")


def narrowed(
    tables: Mapping[str, Opened],
    keys: Sequence[KeyRange],
    ask: Callable[[str, Mapping[str, Opened], Answer], list[dict[str, Any]]],
) -> dict[str, ResidentTable]:
    """Those of the resident tables of which zones are left out, by their names.

    Parameters
    ----------
    tables
        What a statement reads.
    keys
        Ranges outside of which rows do not matter, as far as they are worth asking for.
    ask
        Runs a statement over some of the tables. It is called once for all ranges, or not at all:
        what a statement takes is mostly not its rows.
    """
    asked: list[tuple[ResidentTable, KeyRange]] = []
    for one in keys:
        name, column, reads, _ = one
        table = tables[name]
        if (
            isinstance(table, ResidentTable)
            and table.prunable(column)
            and all(_asked_quickly(tables[r], table) for r in reads)
        ):
            asked.append((table, one))
    if not asked:
        return {}
    text = "\nUNION ALL\n".join(
        f"SELECT {number} AS number, low, high FROM (\n{ends}\n)"
        for number, (_, (_, _, _, ends)) in enumerate(asked)
    )
    read = {name: tables[name] for _, (_, _, reads, _) in asked for name in reads}
    found: dict[str, ResidentTable] = {}
    for row in ask(text, read, _ENDS):
        table, (name, column, _, _) = asked[row["number"]]
        found[name] = found.get(name, table).narrowed(column, row["low"], row["high"])
    return found


def _asked_quickly(small: Any, big: ResidentTable) -> bool:
    return not isinstance(small, ParquetSource) and small.rows <= min(QUICK_ROWS, big.rows)
