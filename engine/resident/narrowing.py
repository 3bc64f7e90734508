"""Leaving out rows of resident tables that hold no key which the other tables of a statement have.

Which keys may be asked for is known when the element is made (`engine.resident.keys`), which pay
when its tables are open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.resident.reader import ResidentTable
from operators.errors import KernelMemoryError
from operators.kernel import KeySet
from operators.rel import ParquetSource

__all__ = ["DERIVED_ROWS", "MANY_ROWS", "QUICK_ROWS", "Answer", "WantedKeys", "narrowed"]

WantedKeys: TypeAlias = tuple[str, str, Sequence[str], str]
"""A table, its column, the tables that a statement reads, and the statement for the keys."""

Answer: TypeAlias = Sequence[tuple[str, str]]
"""Names and types of a statement's columns."""

QUICK_ROWS = 300_000
"""Most rows of a table that is asked for its keys before the statement: a millisecond or two."""

MANY_ROWS = 400_000
"""Fewest rows of a table that is worth a question though no zone of it may be left out."""

DERIVED_ROWS = 2_000_000
"""Fewest wanted rows of a table that is worth a join of other tables, or a question to what is left
of a big one."""

# Joins of tables that have no more rows together are asked as early as single tables are.
_CHEAP_ROWS = 20_000

# Of the rows about which it is, such a question reads this share at most.
_DERIVED_SHARE = 1 / 4

# Whatever is expected to be left of the tables that it reads: its answer is held in memory.
_MOST_READ = 4_000_000

# Keys that lie further apart on average are not made a set of bits, if that would leave the caches;
# none take more than 8 MiB.
_SPARSEST, _SMALL, _WIDEST = 512, 1 << 16, 1 << 26
# Values of which a set is made at a time, a byte each.
_WINDOW = 1 << 22

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
        Runs a statement over some of the tables. It is called once for all keys that can be told at
        a time, or not at all: what a statement takes is mostly not its rows.
    """
    known: dict[str, Any] = dict(tables)
    found: dict[str, ResidentTable] = {}
    left = list(keys)

    def learn(asked: Sequence[WantedKeys]) -> None:
        for one in asked:
            left.remove(one)
        # All rows can be read as well: what a question lacks the statement may have.
        with contextlib.suppress(KernelMemoryError, MemoryError):
            sets = _answers(asked, known, ask)
            for name, column, _, values in asked:
                found[name] = known[name] = known[name].narrowed(column, *sets[values])

    if quick := [one for one in left if _asked_quickly(one, known)]:
        learn(quick)
    while chosen := [one for one in left if _asked_of_what_is_left(one, known)]:
        learn(chosen)
    return found


_Ends: TypeAlias = tuple[int | None, int | None, KeySet | None]
"""The least and the greatest of some keys, and their set if it is worth it."""


def _answers(
    asked: Sequence[WantedKeys],
    tables: Mapping[str, Any],
    ask: Callable[[str, Mapping[str, Any], Answer], pa.Table],
) -> dict[str, _Ends]:
    """Keys by the statements for them, all of which are asked at once."""
    statements = list({one[3]: None for one in asked})
    text = "\nUNION ALL\n".join(
        f"SELECT {number} AS number, key FROM (\n{statement}\n)"
        for number, statement in enumerate(statements)
    )
    read = {name: tables[name] for _, _, reads, _ in asked for name in reads}
    answer = ask(text, read, _KEYS).drop_null()
    of, keys = (answer[at].to_numpy() for at in range(2))
    return {one: _key_set(keys[of == number]) for number, one in enumerate(statements)}


def _key_set(keys: npt.NDArray[np.int64]) -> _Ends:
    if len(keys) == 0:
        return None, None, None
    low, high = int(keys.min()), int(keys.max())
    span = high - low + 1
    if span > min(_WIDEST, max(_SMALL, _SPARSEST * len(keys))):
        return low, high, None
    offsets, packed = keys - low, []
    for start in range(0, span, _WINDOW):
        here = offsets
        if span > _WINDOW:
            here = offsets[(offsets >= start) & (offsets < start + _WINDOW)] - start
        bits = np.zeros(min(_WINDOW, span - start), bool)
        bits[here] = True
        packed.append(np.packbits(bits, bitorder="little"))
    return low, high, KeySet(low, np.concatenate(packed))


def _asked_quickly(one: WantedKeys, tables: Mapping[str, Any]) -> bool:
    name, column, reads, _ = one
    table = tables[name]
    if not isinstance(table, ResidentTable):
        return False
    if not (table.prunable(column) or table.rows >= MANY_ROWS):
        return False
    known = [rows for rows in _rows_of(reads, tables) if rows is not None]
    most = min(QUICK_ROWS, table.rows)
    cheap = len(reads) <= 1 or sum(known) <= _CHEAP_ROWS
    return cheap and len(known) == len(reads) and all(rows <= most for rows in known)


def _asked_of_what_is_left(one: WantedKeys, tables: Mapping[str, Any]) -> bool:
    name, _, reads, _ = one
    table = tables[name]
    if not isinstance(table, ResidentTable) or (wanted := table.rows_wanted) < DERIVED_ROWS:
        return False
    known = [rows for rows in _rows_of(reads, tables) if rows is not None]
    return len(known) == len(reads) and sum(known) <= min(_MOST_READ, _DERIVED_SHARE * wanted)


def _rows_of(names: Sequence[str], tables: Mapping[str, Any]) -> Iterator[int | None]:
    """The rows of some tables; None of those that are in files."""
    for name in names:
        table = tables[name]
        yield None if isinstance(table, ParquetSource) else table.rows
