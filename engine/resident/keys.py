"""Join keys that are known only when an element runs, to leave out rows of its big tables.

`sales JOIN (dates WHERE year = 2000)`: no row of `sales` matters but with one of the dates that are
left, and big tables mostly lie in the order of their dates. So before the statement the element
asks for the keys of the small side, which costs next to nothing, and reads only the zones of the
big side that overlap their range, and of these only the rows that have one of them. What is left of
`sales` may be so little that it, too, can be asked: for the orders that `returns` is joined with.
(DuckDB does this inside of itself for its own tables, by their zone maps and with Bloom filters.
To do it along all joins before the first is run is "predicate transfer": Yang et al., CIDR 2024.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from engine.optimizer.expressions import map_subqueries, with_inputs
from engine.optimizer.suppliers import suppliers
from engine.resident.layout import ZONE_ROWS
from engine.resident.narrowing import DERIVED_ROWS, QUICK_ROWS
from engine.resident.needs import scan_ranges
from engine.stages.fragments import Estimator
from engine.stages.model import Stage
from engine.stages.origins import KeyOrigin, Readers, WithSources, can_be_asked, key_origins
from operators import build
from operators.rel import Filter, Join, ParquetSource, Rel, Scan, Source, walk
from operators.work import is_work

__all__ = ["WantedKeys", "wanted_keys"]

# Keys of what a big table has left are asked for where they are expected to leave out that share of
# another one, and are no more than so many.
_LEFT_OUT = 0.5
_MOST_DERIVED = 1_000_000.0


@dataclass(frozen=True, slots=True)
class WantedKeys:
    """`plan` gives what `column` of `source` can match, one to a row."""

    source: ParquetSource
    column: str
    plan: Rel


def wanted_keys(stage: Stage, estimates: Estimator | None = None) -> tuple[Stage, list[WantedKeys]]:
    """Keys for the tables that a stage scans, one set at most for each scan and column.

    Which of them are worth asking for is known when the tables are open
    (`engine.resident.narrowing`).

    Parameters
    ----------
    estimates
        With them, a key is asked of that part of the other side which it comes from and which reads
        small tables only: a range of dates is one, whatever the dates are joined with. Where there
        is none, a part that reads large tables is asked if little may be left of these, and what
        it knows is expected to leave out much.

    Returns
    -------
    Stage
        The same, but that each scan with keys of a table that others scan, too, has a source of its
        own.
    list of WantedKeys
        In the order in which they are to be asked for: one may read tables that those before it
        are about.
    """
    apart = _Apart(stage.plan, estimates)
    own = replace(stage, plan=apart(stage.plan))
    origins = [o for o in _origins(own) if estimates is None or _worth(o.scan, estimates)]
    asked = _questions(own, origins, estimates)
    if not asked:
        return stage, []
    sources = _own_sources(own, {id(scan): scan for scan, _, _, _ in asked})
    changed = WithSources(sources)
    found = []
    for scan, column, small, key in asked:
        source = sources.get(id(scan), scan.source)
        assert isinstance(source, ParquetSource)
        found.append(WantedKeys(source, column, _keys(changed(small), key)))
    return replace(own, plan=changed(own.plan)), found


class _Apart:
    """Gives each reader of a large table a scan of its own, where several read one that is no more
    than filtered: every kernel reads the table for each of them anyway.
    """

    def __init__(self, plan: Rel, estimates: Estimator | None) -> None:
        self._estimates = estimates
        readers = Readers(plan)
        self._copied: set[int] = set()
        for rel in readers.relations:
            if readers.alone(rel) or rel is plan or is_work(rel):
                continue
            if any(estimates is None or _worth(s, estimates) for s in _scans(rel)):
                self._copied.update(map(id, walk(rel)))
        self._done: dict[int, Rel] = {}

    def __call__(self, rel: Rel) -> Rel:
        if not self._copied:
            return rel
        if id(rel) in self._done:
            return self._done[id(rel)]
        copied = id(rel) in self._copied
        node = replace(rel) if copied and isinstance(rel, Scan) else rel
        node = with_inputs(map_subqueries(node, self), [self(i) for i in node.inputs()])
        if not copied:
            self._done[id(rel)] = node
        if node is not rel and self._estimates is not None:
            self._estimates.same(node, rel)
        return node


_Asked = tuple[Scan, str, Rel, int]
"""A scan, the name of a column of its table, and the relation that has the keys and where."""


def _origins(stage: Stage) -> Iterator[KeyOrigin]:
    readers = Readers(stage.plan)
    for node in readers.relations:
        if isinstance(node, Join):
            for one in key_origins(node, readers):
                if isinstance(one.scan.source, ParquetSource):
                    yield one


def _questions(
    stage: Stage, origins: Iterable[KeyOrigin], estimates: Estimator | None
) -> list[_Asked]:
    """What to ask about each column, once: small tables first."""
    inputs = {i.name for i in stage.inputs if i.mode == "all"}
    found: dict[tuple[int, str], _Asked] = {}
    left: list[KeyOrigin] = []
    for one in origins:
        if (at := (id(one.scan), _column(one))) in found:
            continue
        if estimates is None:
            small = (one.small, one.key) if can_be_asked(one.small, inputs) else None
        else:
            small = _quick(one, estimates, inputs)
        if small is not None:
            found[at] = (one.scan, at[1], *small)
        else:
            left.append(one)
    if estimates is not None and left:
        less = {id(scan) for scan, _, _, _ in found.values()} | _ranged(stage.plan)
        for one in left:
            at = id(one.scan), _column(one)
            if at not in found and (known := _derived(one, estimates, inputs, less)) is not None:
                found[at] = (one.scan, at[1], *known)
    return list(found.values())


def _column(origin: KeyOrigin) -> str:
    return origin.scan.source_schema[origin.scan.columns[origin.column]].name


def _quick(
    origin: KeyOrigin, estimates: Estimator, inputs: Collection[str]
) -> tuple[Rel, int] | None:
    """The first of the relations that have all values of a key, and its position there, that reads
    small tables only.
    """
    most = min(QUICK_ROWS, _table_rows(origin.scan, estimates))
    for rel, position in suppliers(origin.small, origin.key):
        if can_be_asked(rel, inputs) and all(
            _table_rows(scan, estimates) <= most for scan in _scans(rel)
        ):
            return rel, position
    return None


def _derived(
    origin: KeyOrigin, estimates: Estimator, inputs: Collection[str], less: Collection[int]
) -> tuple[Rel, int] | None:
    """The same of relations that read big tables, of which little may be left (`less`)."""
    if _table_rows(origin.scan, estimates) < DERIVED_ROWS:
        return None
    for rel, position in suppliers(origin.small, origin.key):
        if not can_be_asked(rel, inputs) or not all(
            id(scan) in less or _table_rows(scan, estimates) <= QUICK_ROWS for scan in _scans(rel)
        ):
            continue
        kept = build.join(origin.scan, rel, "semi", on=[(origin.column, position)])
        if estimates.rows(rel) <= _MOST_DERIVED and estimates.rows(
            kept
        ) <= _LEFT_OUT * estimates.rows(origin.scan):
            return rel, position
    return None


def _scans(rel: Rel) -> Iterator[Scan]:
    for node in Readers(rel).relations:
        if isinstance(node, Scan) and isinstance(node.source, ParquetSource):
            yield node


def _worth(scan: Scan, estimates: Estimator) -> bool:
    """Whether there is anything to leave out of a table: it has more than one zone."""
    return _table_rows(scan, estimates) > ZONE_ROWS


def _table_rows(scan: Scan, estimates: Estimator) -> float:
    return estimates.rows(replace(scan, predicate=None))


def _ranged(plan: Rel) -> set[int]:
    """Scans of which conditions of their own may leave out zones."""
    found = set()
    for node in Readers(plan).relations:
        match node:
            case Scan() if scan_ranges(node):
                found.add(id(node))
            case Filter(input=Scan() as scan) if scan_ranges(scan, node):
                found.add(id(scan))
    return found


def _own_sources(stage: Stage, keyed: dict[int, Scan]) -> dict[int, Source]:
    """New sources for those of some scans whose tables are scanned more than once."""
    scans = list(_scans(stage.plan))
    scanned = Counter(n.source for n in scans)
    names = {n.source.table for n in scans if isinstance(n.source, ParquetSource)}
    # One scan may keep the name if nothing else reads the table by it.
    kept = {n.source for n in scans if id(n) not in keyed}
    found: dict[int, Source] = {}
    for scan in keyed.values():
        source = scan.source
        assert isinstance(source, ParquetSource)
        if scanned[source] == 1:
            continue
        if source not in kept:
            kept.add(source)
            continue
        number = 2
        while (name := f"{source.table}_{number}") in names:
            number += 1
        names.add(name)
        found[id(scan)] = replace(source, table=name)
    return found


def _keys(small: Rel, key: int) -> Rel:
    column = build.cast(build.col(small.schema, key), pa.int64())
    keys: Rel = build.project(small, [column], ["key"])
    if any(isinstance(n, Join) for n in Readers(small).relations):  # which may repeat them
        keys = build.aggregation(keys, [build.col(keys.schema, "key")], [])
    return keys
