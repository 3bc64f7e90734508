"""Runs the engines of a pass over the queries, in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa

from bench.tpcds.contestants import Contestant, rotated
from bench.tpcds.results import Cell, EngineInfo, Pass
from tpcds.errors import OracleError
from tpcds.oracle import Oracle
from tpcds.peers import EngineProcess, Outcome
from tpcds.queries import query_text
from tpcds.verify import verify

__all__ = ["Checker", "Measurement", "warm_files"]

Report = Callable[[str], None]
_BLOCK = 1 << 22


def warm_files(tables: Mapping[str, Iterable[Path]]) -> None:
    """Read all files once, so that the kernel holds them."""
    buffer = bytearray(_BLOCK)
    for paths in tables.values():
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


class Checker:
    """Compares answers with DuckDB's, which it asks for once per query."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._answers: dict[int, pa.Table] = {}

    def difference(self, number: int, answer: pa.Table) -> str | None:
        """What is wrong with an answer; None if it is right."""
        sql = query_text(number)
        try:
            if number not in self._answers:
                self._answers[number] = self._oracle.answer(sql).table
            reference = self._answers[number]
            verdict = verify(
                answer, reference, lambda: self._oracle.widened(sql, reference.num_rows)
            )
        except OracleError as error:
            return f"not checked: {error}"
        return None if verdict.difference is None else verdict.difference.message


@dataclass(slots=True)
class Measurement:
    """One pass.

    Attributes
    ----------
    contestants
        Its engines.
    queries
        Their numbers.
    rounds
        How often each engine answers each query.
    limit
        Seconds for one query on one engine.
    checker
        Checks each engine's first answer to each query; None checks nothing.
    apart
        Whether only one engine is in memory at a time: each answers all queries before the next
        one starts, in every round.
    report
        Told what is under way.
    """

    name: Literal["cold", "resident"]
    contestants: Sequence[Contestant]
    queries: Sequence[int]
    rounds: int
    limit: float
    checker: Checker | None
    apart: bool = False
    report: Report = lambda _: None
    found: Pass = field(init=False)

    def __post_init__(self) -> None:
        engines = {
            c.key: EngineInfo(title=c.title, role=c.role, version=c.version)
            for c in self.contestants
        }
        cells = {q: {key: Cell() for key in engines} for q in self.queries}
        self.found = Pass(name=self.name, engines=engines, queries=cells)

    def run(self) -> Pass:
        """Measure. What was found so far stays in `found`, also if this is interrupted."""
        if self.apart:
            for number in range(self.rounds):
                for contestant in rotated(self.contestants, number):
                    with self._started(contestant) as process:
                        for query in self.queries:
                            self._turn(number, query, contestant, process)
            return self.found
        with ExitStack() as stack:
            processes = {c.key: stack.enter_context(self._started(c)) for c in self.contestants}
            for number in range(self.rounds):
                for place, query in enumerate(self.queries):
                    # Who goes first changes with the query too, so that one round is fair.
                    for contestant in rotated(self.contestants, number + place):
                        self._turn(number, query, contestant, processes[contestant.key])
        return self.found

    def _started(self, contestant: Contestant) -> EngineProcess:
        self.report(f"{self.name}: starting {contestant.title}")
        process = contestant.start()
        about = self.found.engines[contestant.key]
        about.load_seconds, about.loaded_bytes = process.load_seconds, process.loaded_bytes
        if contestant.fills:
            about.fill_seconds = 0.0
            for query in self.queries:
                self.report(f"{self.name}: {contestant.title} fills with q{query}")
                outcome = process.run(query, query_text(query), limit=self.limit)
                about.fill_seconds += outcome.seconds or 0.0
        return process

    def _turn(
        self, number: int, query: int, contestant: Contestant, process: EngineProcess
    ) -> None:
        cell = self.found.queries[query][contestant.key]
        if cell.error is not None:
            return  # it would fail again, and a time limit is long
        self.report(f"{self.name}: round {number + 1}, q{query}, {contestant.title}")
        checked = self.checker if number == 0 else None
        outcome = process.run(
            query,
            query_text(query),
            limit=self.limit * contestant.patience,
            fetch=checked is not None,
        )
        book(cell, outcome)
        if checked is not None and outcome.table is not None:
            cell.wrong = checked.difference(query, outcome.table)


def book(cell: Cell, outcome: Outcome) -> None:
    """Add one outcome to what is known."""
    if outcome.error is not None:
        cell.error, cell.timed_out = outcome.error, outcome.timed_out
        return
    figures = outcome.figures
    assert outcome.seconds is not None
    # An engine that tries before it succeeds knows its own time.
    cell.seconds.append(round(float(figures.get("seconds", outcome.seconds)), 6))
    cpu = (outcome.cpu_seconds or 0.0) + float(figures.get("cpu_s", 0.0))
    cell.cpu_seconds.append(round(cpu, 4))
    cell.rows = outcome.rows
    peak = figures.get("peak_bytes", outcome.peak_bytes)
    cell.peak_bytes = max(cell.peak_bytes or 0, int(peak or 0))
    if "gb_s" in figures:
        cell.gb_s_parts = {name: round(value, 6) for name, value in figures["gb_s"].items()}
        cell.gb_s.append(round(sum(figures["gb_s"].values()), 6))
        cell.core_s.append(round(float(figures["core_s"]), 4))
    if "process_gb_s" in figures:
        cell.process_gb_s.append(round(float(figures["process_gb_s"]), 6))
    if "held_gb_s" in figures:
        cell.held_gb_s.append(round(float(figures["held_gb_s"]), 6))
    if "reserved_bytes" in figures:
        cell.reserved_bytes = max(cell.reserved_bytes or 0, int(figures["reserved_bytes"]))
