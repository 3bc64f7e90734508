"""Large tables of which an element reads only the rows whose keys its small tables have.

`sales JOIN (items WHERE …) JOIN (dates WHERE …)`: no row of `sales` matters whose keys are not
among those that the filters leave. The element asks for these keys first, which costs little, and
reads only the rows of `sales` that have them (`operators.parquet_filter`). Nothing of the plan
changes but the source of the scan: all conditions still apply to what is read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

import pyarrow.types as pt

from engine.resident.layout import Within
from engine.resident.needs import scan_nulls, scan_ranges
from engine.stages.fragments import Estimator
from engine.stages.model import Stage
from engine.stages.origins import KeyOrigin, Readers, WithSources, can_be_asked, key_origins
from operators import build
from operators.duckdb import Fragment, lower
from operators.parquet_filter import MOST_KEYS, filterable, held_per_row
from operators.rel import (
    Filter,
    InputSource,
    Join,
    ParquetSource,
    Rel,
    Scan,
    Source,
)
from operators.schema import Schema

__all__ = ["KeySet", "Reduction", "ReductionSettings", "reduce_scans"]

# What the reader holds beside its rows: threads and packed pages; and of so many row groups the
# columns that decide.
_READER = 96 << 20
_AT_ONCE = 3

# Rows of tables whose keys may lie together; those that a larger table leaves lie anywhere.
_CALENDAR = 1_000_000


@dataclass(frozen=True, slots=True)
class ReductionSettings:
    """When to read a table by its keys. Answers are right whatever these are.

    Attributes
    ----------
    large_rows, large
        Tables with fewer rows, and those that the kernel reads in fewer CPU seconds, it reads as
        fast: at scale factor 1 of TPC-DS, the other way took as much CPU and a tenth longer.
    kernel_value, reader_value, row, statement
        CPU seconds that it takes the kernel to read a value from Parquet, the reader to do so,
        a row to be looked up in a hash table, and any statement to be run. Measured with TPC-DS at
        scale factor 10.
    page
        Times its share of the rows, a filter has the reader decode this share of the values.
    least
        Of what the kernel would take, the share that has to be saved.
    asked
        Of what the kernel would take, the most that may go into asking for keys of one column.
    selective
        Keys that leave more than this share of the rows are not asked for.
    scattered
        Columns of which a row group has less than this share of the range are ordered: by
        conditions on them the kernel leaves out row groups, too.
    cheap
        Tables that are read for keys have at most this share of the rows that they save.
    memory
        Of an element's memory, the share that its reduced tables may take, all together.
    """

    large_rows: float = 5_000_000.0
    large: float = 0.3
    kernel_value: float = 11e-9
    reader_value: float = 9e-9
    row: float = 10e-9
    statement: float = 4e-3
    page: float = 4.0
    least: float = 0.4
    asked: float = 0.1
    selective: float = 0.6
    scattered: float = 0.5
    cheap: float = 0.2
    memory: float = 0.25


@dataclass(frozen=True, slots=True)
class KeySet:
    """`fragment` gives the values of `column` that matter, at most one more than `MOST_KEYS`."""

    column: str
    fragment: Fragment


@dataclass(frozen=True, slots=True)
class Reduction:
    """A base table that stands in a plan as `InputSource(name)` and is read in part.

    Attributes
    ----------
    schema
        Of the table's files.
    within, nulls
        Ranges that columns lie in, and columns that are NULL, in the rows that matter.
    rows
        The most rows that the element should hold; the kernel reads the table if there are more.
    reader
        Bytes that the reader takes beside them.
    """

    name: str
    source: ParquetSource
    schema: Schema
    within: Within
    nulls: tuple[str, ...]
    keys: tuple[KeySet, ...]
    rows: int
    reader: int


@dataclass(slots=True)
class _Wanted:
    """What is known about the rows of one scan that matter."""

    scan: Scan
    within: Within = field(default_factory=dict)
    nulls: tuple[str, ...] = ()
    kept: float = 1.0
    keys: dict[str, _Asked] = field(default_factory=dict)
    ordered: set[str] = field(default_factory=set)

    def share(self, keys: Collection[str], *, ordered: bool | None = None) -> float:
        """Of the table's rows, the share that is left by its own filter and these keys; with
        `ordered` by conditions on ordered columns only, or on all others.
        """
        share = math.prod(self.keys[c].share for c in keys if ordered in (None, c in self.ordered))
        own = {*self.within, *self.nulls}
        if own and ordered in (None, own <= self.ordered):
            share *= self.kept
        return share


@dataclass(frozen=True, slots=True)
class _Asked:
    """Keys of a column that matter: their share of the rows, values to read for them, how, and of
    which relation they are a column.
    """

    share: float
    values: float
    keys: Rel
    small: Rel


def reduce_scans(
    stage: Stage,
    estimates: Estimator,
    memory: int,
    settings: ReductionSettings | None = None,
) -> tuple[Stage, dict[str, Reduction]]:
    """The stage with large tables replaced by inputs, and how to read those, by name.

    Parameters
    ----------
    memory
        Bytes that the element may hold.
    """
    reducer = _Reducer(stage.plan, estimates, settings or ReductionSettings())
    taken = {i.name for i in stage.inputs}
    reductions: dict[str, Reduction] = {}
    sources: dict[int, Source] = {}
    for scan, reduction in reducer.reductions(memory, taken):
        reductions[reduction.name] = reduction
        sources[id(scan)] = InputSource(reduction.name)
    if not sources:
        return stage, {}
    return replace(stage, plan=WithSources(sources)(stage.plan)), reductions


class _Reducer:
    """Collects what a plan's joins and filters say about its large scans."""

    def __init__(self, plan: Rel, estimates: Estimator, settings: ReductionSettings) -> None:
        self._estimates = estimates
        self._settings = settings
        self._readers = Readers(plan)
        self._wanted: dict[int, _Wanted] = {}
        for node in self._readers.relations:
            self._note(node)

    def reductions(self, memory: int, taken: set[str]) -> Iterator[tuple[Scan, Reduction]]:
        """The scans for which it pays; `taken` are names that no input may have."""
        budget = memory * self._settings.memory / max(1, len(self._wanted))
        for one in self._wanted.values():
            chosen = self._choose(one)
            if not (chosen or one.within or one.nulls):
                continue
            whole = self._rows(one.scan)
            most = budget / held_per_row(one.scan.schema.types)
            if (
                self._kernel_cost(one) < self._settings.large
                or self._gain(one, chosen) < self._settings.least
                or one.share(chosen) * whole > most
            ):
                continue
            source = one.scan.source
            assert isinstance(source, ParquetSource)
            reader = self._reader_bytes(one, chosen)
            if reader > memory / 2:
                continue
            name = _fresh(source.table, taken)
            taken.add(name)
            yield (
                one.scan,
                Reduction(
                    name,
                    source,
                    one.scan.source_schema,
                    one.within,
                    one.nulls,
                    tuple(KeySet(c, _statement(one.keys[c].keys)) for c in chosen),
                    int(most),
                    reader,
                ),
            )

    def _reader_bytes(self, one: _Wanted, keys: Collection[str]) -> int:
        first = {*keys, *one.within, *one.nulls}
        types = [f.type for f in one.scan.source_schema if f.name in first]
        row = held_per_row(types)
        return _READER + int(_AT_ONCE * self._estimates.row_group(one.scan.source) * row)

    def _choose(self, one: _Wanted) -> list[str]:
        """The keys that are worth asking for: they leave out much and cost little. Of keys that
        are several columns the most selective one says nearly all.
        """
        s = self._settings
        most = s.asked * self._kernel_cost(one)
        chosen: dict[int, str] = {}
        for column, asked in sorted(one.keys.items(), key=lambda item: item[1].share):
            if asked.share <= s.selective and self._asked_cost(asked) <= most:
                chosen.setdefault(id(asked.small), column)
        return list(chosen.values())

    def _gain(self, one: _Wanted, keys: Collection[str]) -> float:
        """CPU seconds that are saved by reading rows with these keys only, as a share of what the
        kernel would take.
        """
        s = self._settings
        columns = len(one.scan.columns)
        first = min(len({*keys, *one.within, *one.nulls}), columns)
        left = one.share(keys, ordered=False)
        # Of pages with a few wanted rows each, all values are decoded.
        rest = (columns - first) * min(1.0, s.page * left)
        reader = s.reader_value * ((1 + first) / 2 + rest) + 2 * s.row * left
        reader *= self._rows(one.scan) * one.share(keys, ordered=True)
        asked = sum(self._asked_cost(one.keys[c]) for c in keys)
        kernel = self._kernel_cost(one)
        return (kernel - reader - asked) / kernel

    def _kernel_cost(self, one: _Wanted) -> float:
        # By all conditions on ordered columns, whether asked for or not, it leaves out row groups
        # as it joins.
        rows = self._rows(one.scan) * one.share(one.keys, ordered=True)
        return rows * (self._settings.kernel_value * len(one.scan.columns) + self._settings.row)

    def _asked_cost(self, asked: _Asked) -> float:
        return self._settings.statement + self._settings.kernel_value * asked.values

    def _note(self, node: Rel) -> None:
        """Note what `node` says about the scans below it."""
        match node:
            case Filter(input=Scan() as scan) if self._readers.alone(scan) and self._large(scan):
                self._note_ranges(scan, node)
            case Scan(predicate=predicate) if predicate is not None and self._large(node):
                self._note_ranges(node, None)
            case Join():
                for one in key_origins(node, self._readers):
                    if self._large(one.scan) and can_be_asked(one.small, ()):
                        self._note_keys(one)

    def _note_ranges(self, scan: Scan, above: Filter | None) -> None:
        one = self._wanted.setdefault(id(scan), _Wanted(scan))
        types = {f.name: f.type for f in scan.source_schema}
        within = {c: ends for c, ends in scan_ranges(scan, above).items() if _plain(types[c])}
        nulls = scan_nulls(scan, above)
        if (within or nulls) and not (one.within or one.nulls):
            one.within, one.nulls = within, nulls
            columns = scan.source_schema.names
            for name in within:
                self._note_order(one, columns.index(name))
            one.kept = self._kept(scan, within, nulls)

    def _kept(self, scan: Scan, within: Within, nulls: Collection[str]) -> float:
        """The share of a table's rows that these conditions leave, which are not all there are."""
        whole = build.scan(scan.source, scan.source_schema)
        names = scan.source_schema.names
        share = 1.0
        for name, (low, high) in within.items():
            known = self._estimates.column(whole, names.index(name))
            if known.min is None or known.max is None:
                continue
            first = known.min if low is None else max(low, known.min)
            last = known.max if high is None else min(high, known.max)
            share *= max(0.0, last - first + 1) / (known.max - known.min + 1)
        for name in nulls:
            share *= self._estimates.column(whole, names.index(name)).null_fraction
        return share

    def _note_keys(self, origin: KeyOrigin) -> None:
        scan, column, small, key = origin.scan, origin.column, origin.small, origin.key
        scans = [r for r in Readers(small).relations if isinstance(r, Scan)]
        read = sum(map(self._rows, scans))
        if self._estimates.rows(small) > MOST_KEYS or read > self._settings.cheap * self._rows(
            scan
        ):
            return
        joined = build.join(scan, small, "semi", on=[(column, key)])
        share = self._estimates.rows(joined) / self._estimates.rows(scan)
        # A calendar has more days than the table, and those that are asked for are in the table.
        used = self._estimates.column(scan, column).distinct
        if used:
            share = min(1.0, max(share, self._estimates.rows(small) / used))
        name = scan.source_schema[scan.columns[column]].name
        one = self._wanted.setdefault(id(scan), _Wanted(scan))
        if name not in one.keys or share < one.keys[name].share:
            values = sum(self._rows(r) * len(r.columns) for r in scans)
            keys = build.project(small, [build.col(small.schema, key)], ["key"])
            one.keys[name] = _Asked(share, values, keys, small)
            if read < _CALENDAR:
                self._note_order(one, scan.columns[column])

    def _note_order(self, one: _Wanted, column: int) -> None:
        """Note whether the table's rows lie in the order of a column."""
        names = one.scan.source_schema.names
        whole = build.scan(one.scan.source, one.scan.source_schema)
        share = self._estimates.column(whole, column).group_share
        if share is not None and share < self._settings.scattered:
            one.ordered.add(names[column])

    def _large(self, scan: Scan) -> bool:
        match scan.source:
            case ParquetSource(part=None, hive=(), intervals=False):
                types = [scan.source_schema[c].type for c in scan.columns]
                return all(map(filterable, types)) and (
                    self._rows(scan) >= self._settings.large_rows
                )
        return False

    def _rows(self, scan: Scan) -> float:
        """Rows of the whole table."""
        return self._estimates.rows(replace(scan, predicate=None))


def _plain(type: object) -> bool:
    """Whether stored integers are the values themselves, or days."""
    return bool(pt.is_signed_integer(type) or pt.is_date32(type))


def _statement(keys: Rel) -> Fragment:
    distinct = build.aggregation(keys, [build.col(keys.schema, 0)], [])
    return lower(build.limit(distinct, MOST_KEYS + 1))


def _fresh(base: str, taken: set[str]) -> str:
    name, n = base, 1
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    return name
