"""Join keys that are known only when an element runs, to leave out rows of its big table.

`sales JOIN (dates WHERE year = 2000)`: no row of `sales` matters but with one of the dates that are
left, and big tables mostly lie in the order of their dates. So before the statement the element
asks for the keys of the small side, which costs next to nothing, and reads only the zones of the
big side that overlap their range, and of these only the rows that have one of them. (DuckDB does
this inside of itself for its own tables, by their zone maps and with Bloom filters.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from engine.optimizer.suppliers import suppliers
from engine.resident.narrowing import QUICK_ROWS
from engine.stages.model import Stage
from engine.stages.origins import KeyOrigin, Readers, can_be_asked, key_origins
from operators import build
from operators.duckdb import Fragment, lower
from operators.rel import Join, ParquetSource, Rel, Scan

__all__ = ["WantedKeys", "wanted_keys"]


@dataclass(frozen=True, slots=True)
class WantedKeys:
    """`fragment` gives what `column` of `source` can match, one to a row."""

    source: ParquetSource
    column: str
    fragment: Fragment


def wanted_keys(stage: Stage, rows: Callable[[Rel], float] | None = None) -> list[WantedKeys]:
    """Keys for the tables that a stage scans once, one set per column at most.

    Which of them are worth asking for is known when the tables are open: `engine.resident.narrowed`
    asks small tables about big ones only.

    Parameters
    ----------
    rows
        How many a relation is expected to have. What would read a table that is not small is then
        left out, or asked of that part of the small side which the key comes from: a range of dates
        is one, whatever the dates are joined with.
    """
    whole = {i.name for i in stage.inputs if i.mode == "all"}
    readers = Readers(stage.plan)
    # A table that is scanned twice may be wanted whole by the other scan.
    scanned = Counter(n.source for n in readers.relations if isinstance(n, Scan))
    found: dict[tuple[ParquetSource, str], WantedKeys] = {}
    for node in readers.relations:
        if not isinstance(node, Join):
            continue
        for one in key_origins(node, readers, whole):
            source = one.scan.source
            if isinstance(source, ParquetSource) and scanned[source] == 1:
                name = one.scan.source_schema[one.scan.columns[one.column]].name
                if (source, name) in found:
                    continue
                asked = (one.small, one.key) if rows is None else _quick(one, rows, whole)
                if asked is not None:
                    found[source, name] = WantedKeys(source, name, _keys(*asked))
    return list(found.values())


def _quick(
    origin: KeyOrigin, rows: Callable[[Rel], float], inputs: set[str]
) -> tuple[Rel, int] | None:
    """The first of the relations that have all values of a key, and its position there, that reads
    small tables only.
    """
    most = min(QUICK_ROWS, rows(replace(origin.scan, predicate=None)))
    for rel, position in suppliers(origin.small, origin.key):
        scans = [n for n in Readers(rel).relations if isinstance(n, Scan)]
        if can_be_asked(rel, inputs) and all(
            rows(replace(n, predicate=None)) <= most
            for n in scans
            if isinstance(n.source, ParquetSource)
        ):
            return rel, position
    return None


def _keys(small: Rel, key: int) -> Fragment:
    column = build.cast(build.col(small.schema, key), pa.int64())
    keys: Rel = build.project(small, [column], ["key"])
    if any(isinstance(n, Join) for n in Readers(small).relations):  # which may repeat them
        keys = build.aggregation(keys, [build.col(keys.schema, "key")], [])
    return lower(keys)
