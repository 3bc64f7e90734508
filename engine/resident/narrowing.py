"""Leaving out rows of resident tables that hold no key which the other tables of a statement have.

Which keys may be asked for is known when the element is made (`engine.resident.keys`), which pay
when its tables are open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.resident.reader import ResidentTable
from operators.kernel import KeySet
from operators.rel import ParquetSource

__all__ = ["MANY_ROWS", "QUICK_ROWS", "Answer", "WantedKeys", "narrowed"]

WantedKeys: TypeAlias = tuple[str, str, Sequence[str], str]
"""A table, its column, the tables that a statement reads, and the statement for the keys."""

Answer: TypeAlias = Sequence[tuple[str, str]]
"""Names and types of a statement's columns."""

QUICK_ROWS = 300_000
"""Most rows of a table that is asked for its keys before the statement: a millisecond or two."""

MANY_ROWS = 400_000
"""Fewest rows of a table that is worth a question though no zone of it may be left out."""

# Keys that lie further apart on average are not made a set of bits, if that would leave the caches.
_SPARSEST, _SMALL = 512, 1 << 16

_KEYS = (("number", "int32"), ("key", "int64"))

Opened = TypeVar("Opened")


def narrowed(
    tables: Mapping[str, Opened],
    keys: Sequence[WantedKeys],
    ask: Callable[[str, Mapping[str, Opened], Answer], pa.Table],
) -> dict[str, ResidentTable]:
    """Those of the resident tables of which rows are left out, by their names.

    Parameters
    ----------
    tables
        What a statement reads.
    keys
        Keys without which rows do not matter, as far as they are worth asking for.
    ask
        Runs a statement over some of the tables. It is called once for all keys, or not at all:
        what a statement takes is mostly not its rows.
    """
    asked: list[tuple[ResidentTable, WantedKeys]] = []
    for one in keys:
        name, column, reads, _ = one
        table = tables[name]
        if (
            isinstance(table, ResidentTable)
            and (table.prunable(column) or table.rows >= MANY_ROWS)
            and all(_asked_quickly(tables[r], table) for r in reads)
        ):
            asked.append((table, one))
    if not asked:
        return {}
    text = "\nUNION ALL\n".join(
        f"SELECT {number} AS number, key FROM (\n{values}\n)"
        for number, (_, (_, _, _, values)) in enumerate(asked)
    )
    read = {name: tables[name] for _, (_, _, reads, _) in asked for name in reads}
    answer = ask(text, read, _KEYS).drop_null()
    numbers, values = (answer[at].to_numpy() for at in range(2))
    found: dict[str, ResidentTable] = {}
    for number, (opened, (name, column, _, _)) in enumerate(asked):
        low, high, known = _key_set(values[numbers == number])
        found[name] = found.get(name, opened).narrowed(column, low, high, known)
    return found


def _key_set(keys: npt.NDArray[np.int64]) -> tuple[int | None, int | None, KeySet | None]:
    """The least and the greatest of some keys, and their set if it is worth it."""
    if len(keys) == 0:
        return None, None, None
    low, high = int(keys.min()), int(keys.max())
    span = high - low + 1
    if span > max(_SMALL, _SPARSEST * len(keys)):
        return low, high, None
    bits = np.zeros(span, bool)
    bits[keys - low] = True
    return low, high, KeySet(low, np.packbits(bits, bitorder="little"))


def _asked_quickly(small: Any, big: ResidentTable) -> bool:
    return not isinstance(small, ParquetSource) and small.rows <= min(QUICK_ROWS, big.rows)
