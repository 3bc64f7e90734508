"""`QueryProfile`: the stages of a query with what was expected of them and what they did.

It joins three sources: the plan (`StagePlan`: estimates), the footers of base tables (how many
rows a share has), and, once the query ran, the control plane's record (`Activation`: times,
memory, what elements counted). Everything here is plain data; times are seconds since the query's
activation began.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.element.statements import ROWS_READ
from engine.element.writing import BYTES_WRITTEN, ROWS_WRITTEN
from engine.stages.model import Exchange, Stage, StagePlan
from operators.parquet_parts import parquet_part
from operators.printer import format_plan
from operators.rel import ParquetSource, Rel, Scan, walk

if TYPE_CHECKING:
    from openwhisk.api import Activation, ElementRecord, MemoryRecord

__all__ = [
    "CopyProfile",
    "ExchangeProfile",
    "QueryProfile",
    "ReadProfile",
    "StageProfile",
    "TableProfile",
    "profile",
    "q_error",
]


def q_error(estimated: float, actual: float) -> float:
    """By what factor an estimate is wrong, in either direction: 1 is exact.

    Both count as at least one row, as the optimizer's estimates do (Moerkotte, Neumann, Steidl:
    *Preventing bad plans by bounding the impact of cardinality estimation errors*, VLDB 2009).
    """
    low, high = sorted((max(estimated, 1.0), max(actual, 1.0)))
    return high / low


@dataclass(frozen=True, slots=True)
class CopyProfile:
    """What one copy of a compute element did.

    Attributes
    ----------
    start, end
        Of its last attempt; None if it never began, or never ended.
    limit_bytes, reserved, peak_bytes
        The most that it could have held; what it had reserved of that, as ``(seconds, bytes)`` of
        each change since `start`; the most that it did hold.
    rows_read
        From exchanges; rows of base tables are in `StageProfile.tables`.
    rows_written, bytes_written
        Of the frames that it wrote; None if it did not come that far.
    bytes_moved
        Read and written through its transports.
    """

    index: int
    attempts: int
    status: str
    start: float | None
    end: float | None
    cpu_seconds: float
    limit_bytes: int
    reserved: tuple[tuple[float, int], ...]
    peak_bytes: int
    rows_read: int | None
    rows_written: int | None
    bytes_written: int | None
    bytes_moved: int

    @property
    def seconds(self) -> float | None:
        """From handing it to a worker to its end."""
        return None if self.start is None or self.end is None else self.end - self.start


@dataclass(frozen=True, slots=True)
class ExchangeProfile:
    """A memory element.

    Attributes
    ----------
    keys
        Names of the columns that rows are scattered by.
    rows, bytes
        What all writers wrote; None if the query did not run, or failed.
    start, end
        When the memory element was there. An answer's `end` is None: it passes to the session.
    """

    name: str
    kind: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    partitions: int
    writer: str
    readers: tuple[str, ...]
    estimated_rows: float
    estimated_bytes: float
    rows: int | None = None
    bytes: int | None = None
    start: float | None = None
    end: float | None = None

    @property
    def q_error(self) -> float | None:
        """Of the estimated rows."""
        return None if self.rows is None else q_error(self.estimated_rows, self.rows)


@dataclass(frozen=True, slots=True)
class ReadProfile:
    """An exchange that a stage reads: all of it, its partition (``part``), or what the writer with
    its own number wrote (``own``).
    """

    exchange: str
    writer: str
    mode: str


@dataclass(frozen=True, slots=True)
class TableProfile:
    """A base table that a stage reads: every copy the whole, or each a share.

    `rows` are those of the whole, `shares` those of each copy, before any filter.
    """

    table: str
    rows: int
    shares: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class StageProfile:
    """One compute element in all its copies; `copies` is empty if the query did not run."""

    name: str
    what: str
    parallelism: int
    reads: tuple[ReadProfile, ...]
    tables: tuple[TableProfile, ...]
    plan: str
    output: ExchangeProfile
    copies: tuple[CopyProfile, ...] = ()

    @property
    def start(self) -> float | None:
        """When the first copy began."""
        return min((c.start for c in self.copies if c.start is not None), default=None)

    @property
    def end(self) -> float | None:
        """When the last copy ended."""
        return max((c.end for c in self.copies if c.end is not None), default=None)

    @property
    def seconds(self) -> float | None:
        """Of the slowest copy."""
        return max((c.seconds for c in self.copies if c.seconds is not None), default=None)

    @property
    def cpu_seconds(self) -> float:
        """Of all copies."""
        return sum(c.cpu_seconds for c in self.copies)

    @property
    def peak_bytes(self) -> int:
        """The most anonymous memory that one copy held."""
        return max((c.peak_bytes for c in self.copies), default=0)

    @property
    def repeated(self) -> int:
        """Attempts beyond the first of each copy."""
        return sum(max(0, c.attempts - 1) for c in self.copies)


@dataclass(frozen=True, slots=True)
class QueryProfile:
    """A query's stages, in an order in which each stands after those that it reads from.

    Attributes
    ----------
    name
        What people call the query (``q14``), or the application's name.
    sql
        Its text, if it came as one.
    status
        ``planned`` if it did not run, else the activation's.
    started
        When the activation began, in seconds since the Unix epoch.
    seconds
        How long the activation took.
    usage
        The activation's `openwhisk.api.Usage`, by field.
    """

    name: str
    stages: tuple[StageProfile, ...]
    sql: str | None = None
    status: str = "planned"
    error: str | None = None
    activation_id: str | None = None
    started: float | None = None
    seconds: float | None = None
    usage: dict[str, Any] | None = None

    @property
    def analyzed(self) -> bool:
        """Whether it ran."""
        return self.activation_id is not None

    @property
    def elements(self) -> int:
        """Compute elements, each copy counted."""
        return sum(s.parallelism for s in self.stages)

    @property
    def result(self) -> StageProfile:
        """The stage that writes the answer."""
        return self.stages[-1]

    def stage(self, name: str) -> StageProfile:
        """The stage of that name."""
        return next(s for s in self.stages if s.name == name)

    def critical_path(self) -> tuple[str, ...]:
        """Names of the stages that the answer waited for: from the last one back, each time the
        parent that ended last. Empty if the query did not run to its end.
        """
        stage, path = self.result, [self.result.name]
        if stage.end is None:
            return ()
        while stage.reads:
            stage = max((self.stage(r.writer) for r in stage.reads), key=lambda s: s.end or 0.0)
            path.append(stage.name)
        return tuple(reversed(path))

    def worst_estimate(self) -> tuple[str, float] | None:
        """The stage whose rows were estimated worst, and its q-error."""
        errors = [(s.name, s.output.q_error) for s in self.stages if s.output.q_error is not None]
        return max(errors, key=lambda e: e[1], default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data: all fields by name, and per exchange its `q_error`."""
        data = dataclasses.asdict(self)
        for stage, plain in zip(self.stages, data["stages"], strict=True):
            plain["output"]["q_error"] = stage.output.q_error
        data["critical_path"] = list(self.critical_path())
        return data


def profile(
    plan: StagePlan,
    activation: Activation | None = None,
    *,
    name: str = "query",
    sql: str | None = None,
) -> QueryProfile:
    """What is known of a query: estimates, and what it did if it ran.

    Raises
    ------
    operators.errors.OperatorError
        If the footer of a base table cannot be read any more.
    """
    records: dict[str, list[ElementRecord]] = {}
    memory: dict[str, MemoryRecord] = {}
    if activation is not None:
        for record in activation.elements:
            records.setdefault(record.name, []).append(record)
        memory = {m.name: m for m in activation.memory}  # the last incarnation counts
    began = 0.0 if activation is None else activation.start
    shares: dict[tuple[tuple[str, ...], int], tuple[int, ...]] = {}
    stages = []
    for stage in plan.stages:
        copies = tuple(_copy(r, began) for r in records.get(stage.name, ()))
        output = _exchange(plan, stage.output, copies, memory.get(stage.output.name), began)
        stages.append(
            StageProfile(
                stage.name,
                stage.what,
                stage.parallelism,
                tuple(
                    ReadProfile(i.exchange, plan.writer(i.exchange).name, i.mode)
                    for i in stage.inputs
                ),
                tuple(_tables(stage, shares)),
                format_plan(stage.plan),
                output,
                copies,
            )
        )
    if activation is None:
        return QueryProfile(name, tuple(stages), sql)
    import msgspec

    return QueryProfile(
        name,
        tuple(stages),
        sql,
        status=activation.status,
        error=activation.error,
        activation_id=activation.activation_id,
        started=activation.start,
        seconds=None if activation.end is None else activation.end - activation.start,
        usage=msgspec.to_builtins(activation.usage),
    )


def _copy(record: ElementRecord, began: float) -> CopyProfile:
    def count(metric: str) -> int | None:
        value = record.metrics.get(metric)
        return None if value is None else int(value)

    return CopyProfile(
        index=record.index,
        attempts=record.attempts,
        status=record.status,
        start=None if record.start is None else record.start - began,
        end=None if record.end is None else record.end - began,
        cpu_seconds=record.cpu_seconds,
        limit_bytes=record.limit_bytes,
        reserved=tuple(record.reserved),
        peak_bytes=record.peak_anon_bytes,
        rows_read=count(ROWS_READ),
        rows_written=count(ROWS_WRITTEN),
        bytes_written=count(BYTES_WRITTEN),
        bytes_moved=record.bytes_read + record.bytes_written,
    )


def _exchange(
    plan: StagePlan,
    exchange: Exchange,
    copies: Sequence[CopyProfile],
    record: MemoryRecord | None,
    began: float,
) -> ExchangeProfile:
    rows = [c.rows_written for c in copies]
    size = [c.bytes_written for c in copies]
    return ExchangeProfile(
        name=exchange.name,
        kind=exchange.kind,
        keys=tuple(exchange.schema[k].name for k in exchange.keys),
        columns=exchange.schema.names,
        partitions=exchange.partitions,
        writer=plan.writer(exchange.name).name,
        readers=tuple(r.name for r in plan.readers(exchange.name)),
        estimated_rows=exchange.rows,
        estimated_bytes=exchange.bytes,
        rows=None if None in rows or not rows else sum(r for r in rows if r is not None),
        bytes=None if None in size or not size else sum(s for s in size if s is not None),
        start=None if record is None else record.start - began,
        end=None if record is None or record.end is None else record.end - began,
    )


def _tables(
    stage: Stage, known: dict[tuple[tuple[str, ...], int], tuple[int, ...]]
) -> Iterator[TableProfile]:
    seen: set[tuple[str, ...]] = set()
    for source in _parquet_sources(stage.plan):
        if source.paths in seen:
            continue
        seen.add(source.paths)
        copies = 1 if source.part is None else stage.parallelism
        if (source.paths, copies) not in known:
            known[source.paths, copies] = tuple(
                sum(piece.rows for piece in parquet_part(source.paths, index, copies))
                for index in range(copies)
            )
        shares = known[source.paths, copies]
        yield TableProfile(source.table, sum(shares), None if source.part is None else shares)


def _parquet_sources(plan: Rel) -> Iterator[ParquetSource]:
    for rel in walk(plan):
        if isinstance(rel, Scan) and isinstance(rel.source, ParquetSource):
            yield rel.source
