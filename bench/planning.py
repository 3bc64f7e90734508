"""SQL to a DAG: planning all 99 queries, beside DuckDB's EXPLAIN and DataFusion's physical plans.

Nothing runs. Each side plans in a process of its own, over the Parquet files of one data set; what
the first round learns (footers, statistics) stays known, as in a session that has run before.
Plans do not stay: each round's texts differ from those before.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from bench.harness import Case, Options, Timer, Unavailable
from bench.worker import Worker
from tpcds.data import ensure
from tpcds.errors import TpcdsError
from tpcds.queries import query_texts

__all__ = ["PLANNERS", "DataFusion", "DuckDB", "Planner", "Scad", "planning"]

MEDIAN_MS, WORST_MS = 30.0, 150.0
ROUNDS = 5
"""Rounds at most: each takes seconds."""
SCALE, QUICK_SCALE = 1.0, 0.01
QUICK_QUERIES = [1, 16, 95]
PLANNERS = {"duckdb": ("DuckDB EXPLAIN", "DuckDB"), "datafusion": ("DataFusion", "DataFusion")}
"""Peers of this suite: what a table calls them, and their classes here."""
Tables = dict[str, list[str]]


class Planner:
    """Plans queries; subclasses say how one is planned."""

    address: dict[str, Any] = {}
    _round = 0
    refusals: tuple[type[Exception], ...] = ()
    """What `plan` raises for a query that this planner cannot plan; all else is a failure."""

    def plan(self, sql: str) -> object:
        """Plan one query."""
        raise NotImplementedError

    def plan_all(self, numbers: list[int]) -> dict[str, float]:
        """Seconds for each query; those that the planner refuses are missing."""
        found = {}
        self._round += 1
        for number, sql in query_texts().items():
            if number not in numbers:
                continue
            start = time.perf_counter()
            try:
                self.plan(f"{sql}\n-- {self._round}")
            except self.refusals:
                continue
            found[str(number)] = time.perf_counter() - start
        return found

    def close(self) -> None:
        """Give everything back."""


class Scad(Planner):
    """From the text to the application that would be run."""

    def __init__(self, tables: Tables) -> None:
        from engine import Session
        from engine.codegen import build_application
        from engine.errors import EngineError
        from operators.errors import PlanError

        self.refusals = (EngineError, PlanError)
        self._build = build_application
        self._session = Session()
        for table, files in tables.items():
            self._session.register(table, files)
        self.plan(f"select * from {next(iter(tables))}")
        # As `tpcds.run` does: nothing that was imported is garbage.
        gc.collect()
        gc.freeze()

    def plan(self, sql: str) -> object:
        """Front end, optimizer, cutting, and the elements' code."""
        return self._build("query", self._session.stages(self._session.sql(sql).plan))

    def close(self) -> None:
        """Close the session."""
        self._session.close()


class DuckDB(Planner):
    """EXPLAIN, which plans down to physical operators."""

    def __init__(self, tables: Tables) -> None:
        import duckdb

        from tpcds.oracle import connect

        self.refusals = (duckdb.Error,)
        self._connection = connect(tables, 2)

    def plan(self, sql: str) -> object:
        """EXPLAIN and its rows."""
        return self._connection.execute(f"explain {sql}").fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class DataFusion(Planner):
    """Its SQL front end, optimizer and physical planner."""

    def __init__(self, tables: Tables) -> None:
        import os.path

        import datafusion

        self.refusals = (Exception,)  # its bindings have no narrower one
        self._context = datafusion.SessionContext(
            datafusion.SessionConfig().with_target_partitions(2)
        )
        for table, files in tables.items():
            place = files[0] if len(files) == 1 else os.path.dirname(files[0])
            self._context.register_parquet(table, place)

    def plan(self, sql: str) -> object:
        """The execution plan."""
        return self._context.sql(sql).execution_plan()


class Rounds:
    """Seconds for each query that a side plans, round by round."""

    def __init__(self, worker: Worker, numbers: list[int]) -> None:
        self._worker = worker
        self._numbers = numbers
        self._done: list[dict[str, float]] = []

    def __getitem__(self, number: int) -> dict[str, float]:
        """A round; all queries are planned if it is a new one."""
        while len(self._done) <= number:
            self._done.append(self._worker.ask("plan_all", self._numbers))
        return self._done[number]


class Summary(Timer):
    """One figure of all queries that each side plans; summaries of the same rounds share them."""

    def __init__(self, rounds: Rounds, of: Callable[..., float]) -> None:
        self._rounds = rounds
        self._of = of
        self._next = 0

    def seconds(self, repeat: int) -> float:
        """The sum of the figures of `repeat` rounds."""
        first, self._next = self._next, self._next + repeat
        return sum(self._of(self._rounds[i].values()) for i in range(first, self._next))


def planning(options: Options) -> Iterator[Case]:
    """Median and worst over the queries that a peer plans, too; the labels name those left out."""
    try:
        data = ensure(QUICK_SCALE if options.quick else SCALE)
    except TpcdsError as error:
        raise Unavailable(str(error)) from error
    tables = {table: [str(path) for path in paths] for table, paths in data.tables.items()}
    with ExitStack() as stack:
        ours = stack.enter_context(Worker("bench.planning", "Scad", {"tables": tables}))
        asked = QUICK_QUERIES if options.quick else list(query_texts())
        planned = _planned(ours, asked)
        peers = [peer for key, peer in PLANNERS.items() if options.wants(key)]
        if not peers:
            label = "-" if planned == asked else _label("-", asked, planned)
            yield from _cases(ours, planned, label, None)
        for title, role in peers:
            with Worker("bench.planning", role, {"tables": tables}) as theirs:
                both = _planned(theirs, planned)
                yield from _cases(ours, both, _label(title, asked, both), theirs)


def _planned(worker: Worker, asked: list[int]) -> list[int]:
    """Those of the queries that a side plans."""
    return sorted(map(int, worker.ask("plan_all", asked)))


def _label(title: str, asked: list[int], planned: list[int]) -> str:
    """The peer, over how many queries, and which of those asked for one of the sides refused."""
    label = f"{title}, {len(planned)} of {len(asked)} queries"
    skipped = sorted(set(asked) - set(planned))
    return label + (f" (not {', '.join(f'q{n}' for n in skipped)})" if skipped else "")


def _cases(ours: Worker, numbers: list[int], label: str, theirs: Worker | None) -> Iterator[Case]:
    mine = Rounds(ours, numbers)
    others = None if theirs is None else Rounds(theirs, numbers)
    for what, of, limit in (("median", statistics.median, MEDIAN_MS), ("worst", max, WORST_MS)):
        peer = None if others is None else Summary(others, of)
        yield Case(
            f"SQL to DAG, {what}", "ms", Summary(mine, of), label, peer,
            limit=limit, repeat=1, rounds=ROUNDS, table="planning",
        )  # fmt: skip
