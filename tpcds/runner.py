"""Runs queries one after another on a session and has each answer checked.

A query that fails is a record with a reason, never the end of the run.
"""

from __future__ import annotations

import dataclasses
import gc
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from libd.errors import ScadError
from tpcds.errors import OracleError
from tpcds.queries import query_text
from tpcds.record import Peer, QueryRecord
from tpcds.verify import verify

if TYPE_CHECKING:
    import pyarrow as pa

    from tpcds.data import DataSet
    from tpcds.oracle import Answer, Oracle
    from tpcds.peers import EngineProcess

__all__ = ["EngineSession", "Runner", "one_line", "register_tables", "warm_up"]


PEER_SECONDS = 120.0
"""What a peer may take for one query: some plans of others never end."""


YOUNG_OBJECTS = 5_000
"""New objects from which Python's garbage collector looks at them, about two queries' worth. With
700, its default, it takes 1.4 ms of CPU of each query, so 0.9; with 50,000, which have left the
caches by then, 1.4 again.
"""


class EngineSession(Protocol):
    """What is used of `engine.Session`."""

    def register(self, name: str, source: Any) -> Any:
        """Make a table known."""

    def sql(self, query: str, /) -> Any:
        """A lazy frame."""

    def explain(self, query: Any) -> str:
        """The stages of a query, for people."""

    def emit(self, query: Any, directory: Path) -> Any:
        """Write the elements of a query."""

    @property
    def last_run(self) -> Any:
        """What the last collected query cost: `stages`, `elements`, `usage`, `activation`."""


def register_tables(session: EngineSession, data: DataSet) -> None:
    """Make the 24 tables known to a session."""
    for table, files in data.tables.items():
        session.register(table, [str(path) for path in files])


def warm_up(session: EngineSession) -> None:
    """Run a query over one small table.

    It starts or reaches the control plane, so that a failure to do so is an error of the run and
    not of 99 queries, and the first query is not charged for starting workers. Python's garbage
    collector is told that what was imported stays: a collection that looks at all of it takes a
    tenth of a second of whatever query it falls into. And it is told to look less often.
    """
    session.sql("select r_reason_sk from reason").collect()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def one_line(error: BaseException) -> str:
    """What an exception says, in one line; its type too where it is not one of ours."""
    words = " ".join(str(error).split())
    # What a corrupt file makes libraries say must not reach a terminal as control characters.
    words = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
    if isinstance(error, ScadError) and words:
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


class Runner:
    """Runs queries on a session.

    Parameters
    ----------
    session
        Where the tables are registered.
    oracle
        DuckDB, to compare with; None to leave answers unchecked.
    peers
        Further engines, which run each query after this one did; not the oracle.
    threads
        That they have.
    emit
        Directory to write each query's elements to, as ``qNN``.
    on_traceback
        Given the traceback of each query that fails.
    """

    def __init__(
        self,
        session: EngineSession,
        oracle: Oracle | None = None,
        *,
        peers: Mapping[str, EngineProcess] | None = None,
        threads: int = 1,
        emit: Path | None = None,
        on_traceback: Callable[[str], None] | None = None,
    ) -> None:
        self._session = session
        self._oracle = oracle
        self._peers = dict(peers or {})
        self._threads = threads
        self._answer: tuple[int, Answer] | None = None
        self._emit = emit
        self._on_traceback = on_traceback or (lambda _: None)

    def run(self, numbers: Iterable[int], on_start: Callable[[int], None]) -> Iterator[QueryRecord]:
        """Run queries in turn; each record comes as soon as its query is over."""
        for number in numbers:
            on_start(number)
            yield self._compared(self.run_one(number))

    def run_one(self, number: int) -> QueryRecord:
        """Run a query and check its answer."""
        sql = query_text(number)
        record = QueryRecord(number)
        try:
            start = time.perf_counter()
            frame = self._session.sql(sql)
            answer: pa.Table = frame.collect()
            seconds = time.perf_counter() - start
            record = _measured(record, self._session.last_run, seconds, answer.num_rows)
            if self._emit is not None:
                self._session.emit(frame, self._emit / f"q{number:02}")
        except Exception as error:
            self._on_traceback(traceback.format_exc())
            return dataclasses.replace(record, error=one_line(error))
        if self._oracle is None:
            return record
        return self._checked(record, answer, sql, self._oracle)

    def _compared(self, record: QueryRecord) -> QueryRecord:
        """Let the peers run a query, whatever became of it here."""
        if not self._peers:
            return record
        sql = query_text(record.number)
        found = dict(record.peers)
        for name, process in self._peers.items():
            outcome = process.run(
                record.number, sql, limit=PEER_SECONDS, fetch=self._oracle is not None
            )
            peer = Peer(outcome.seconds, self._threads, None, outcome.error)
            if outcome.table is not None and self._oracle is not None:
                peer = self._judged(peer, record.number, outcome.table, self._oracle)
            found[name] = peer
        return dataclasses.replace(record, peers=found)

    def _judged(self, peer: Peer, number: int, answer: pa.Table, oracle: Oracle) -> Peer:
        """A peer with its answer compared."""
        sql = query_text(number)
        try:
            reference = self._reference(number, oracle).table
            verdict = verify(answer, reference, lambda: oracle.widened(sql, reference.num_rows))
        except OracleError as error:
            return dataclasses.replace(peer, error=f"not checked: {error}")
        if verdict.difference is None:
            return dataclasses.replace(peer, answers="same")
        reason = f"wrong answer: {verdict.difference.message}"
        return dataclasses.replace(peer, answers="different", error=reason)

    def _reference(self, number: int, oracle: Oracle) -> Answer:
        """The oracle's answer, which it is asked for once."""
        if self._answer is None or self._answer[0] != number:
            self._answer = number, oracle.answer(query_text(number))
        return self._answer[1]

    def _checked(
        self, record: QueryRecord, answer: pa.Table, sql: str, oracle: Oracle
    ) -> QueryRecord:
        try:
            reference = self._reference(record.number, oracle)
            verdict = verify(
                answer, reference.table, lambda: oracle.widened(sql, reference.table.num_rows)
            )
        except OracleError as error:
            self._on_traceback(traceback.format_exc())
            return dataclasses.replace(record, verified=False, error=f"not checked: {error}")
        peer = Peer(reference.seconds, oracle.threads, "same" if verdict.matches else "different")
        wrong = verdict.difference
        return dataclasses.replace(
            record,
            verified=verdict.matches,
            peers={"duckdb": peer},
            error=None if wrong is None else f"wrong answer: {wrong.message}",
            notes=verdict.notes,
        )


def _measured(record: QueryRecord, run: Any, seconds: float, rows: int) -> QueryRecord:
    usage = run.usage
    resident = getattr(run, "resident", None)
    return dataclasses.replace(
        record,
        seconds=seconds,
        rows=rows,
        stages=run.stages,
        elements=run.elements,
        bytes_written=usage.bytes_written,
        bytes_read=usage.bytes_read,
        peak_compute_bytes=usage.peak_compute_bytes,
        peak_memory_bytes=usage.peak_memory_bytes,
        peak_anon_bytes=max((e.peak_anon_bytes for e in run.activation.elements), default=0),
        compute_gb_s=usage.compute_gb_s,
        memory_gb_s=usage.memory_gb_s,
        held_gb_s=usage.held_gb_s,
        core_s=usage.core_s,
        recomputed=tuple(usage.recomputed),
        resident=None if resident is None else dataclasses.asdict(resident),
    )
