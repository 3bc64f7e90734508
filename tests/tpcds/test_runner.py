from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from libd.errors import ScadError
from tpcds.data import DataSet, Progress
from tpcds.display import LiveTable, PlainLines, generation_progress, summary
from tpcds.oracle import Oracle
from tpcds.peers import Outcome
from tpcds.queries import query_text
from tpcds.record import Peer, QueryRecord, report, totals, write_json
from tpcds.runner import PEER_SECONDS, Runner, one_line, register_tables

USAGE = SimpleNamespace(
    bytes_written=3_000_000,
    bytes_read=2_000_000,
    peak_compute_bytes=50 << 20,
    peak_memory_bytes=7 << 20,
    compute_gb_s=0.5,
    memory_gb_s=0.25,
    held_gb_s=0.375,
    core_s=1.5,
    recomputed=["s1_scan[0]"],
)
ISSUE_KEYS = {
    "seconds",
    "verified",
    "stages",
    "elements",
    "bytes_written",
    "bytes_read",
    "peak_compute_bytes",
    "peak_memory_bytes",
    "compute_gb_s",
    "memory_gb_s",
    "core_s",
    "peers",
}


class Answers:
    """Stands for `engine.Session`: what each query's text is answered with, or the exception that
    it raises."""

    def __init__(self, answers: dict[str, pa.Table | Exception]) -> None:
        self._answers = answers
        self.registered: dict[str, Any] = {}
        self.last_run = SimpleNamespace(
            usage=USAGE,
            stages=4,
            elements=9,
            activation=SimpleNamespace(
                elements=[SimpleNamespace(peak_anon_bytes=n << 20) for n in (30, 41, 7)]
            ),
        )

    def register(self, name: str, source: Any) -> None:
        self.registered[name] = source

    def sql(self, query: str) -> Any:
        answer = self._answers[query]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(collect=lambda: answer)

    def explain(self, query: Any) -> str:
        return "stages"

    def emit(self, query: Any, directory: Path) -> None:
        directory.mkdir()


@pytest.fixture(scope="module")
def oracle(small: DataSet) -> Any:
    with Oracle(small.tables, 1) as oracle:
        yield oracle


def test_a_right_answer(oracle: Oracle) -> None:
    right = oracle.answer(query_text(96)).table
    record = Runner(Answers({query_text(96): right}), oracle).run_one(96)
    assert record.succeeded
    assert record.verified is True
    assert (record.stages, record.elements, record.rows) == (4, 9, 1)
    assert record.peers["duckdb"].answers == "same"
    assert record.peers["duckdb"].threads == 1
    assert record.bytes_written == 3_000_000
    assert record.peak_anon_bytes == 41 << 20
    assert record.recomputed == ("s1_scan[0]",)


def test_a_wrong_answer(oracle: Oracle) -> None:
    right = oracle.answer(query_text(96)).table
    wrong = pa.table({"n": pa.array([right.column(0)[0].as_py() + 1])})
    record = Runner(Answers({query_text(96): wrong}), oracle).run_one(96)
    assert not record.succeeded
    assert record.verified is False
    assert record.peers["duckdb"].answers == "different"
    assert record.error is not None
    assert record.error.startswith("wrong answer: row 0")


def test_a_failure_is_a_record_and_the_rest_goes_on(oracle: Oracle) -> None:
    session = Answers(
        {
            query_text(3): ScadError("table lost\nand more"),
            query_text(96): oracle.answer(query_text(96)).table,
        }
    )
    shown: list[str] = []
    started: list[int] = []
    runner = Runner(session, oracle, on_traceback=shown.append)
    failed, fine = runner.run([3, 96], started.append)
    assert started == [3, 96]
    assert failed.error == "table lost and more"
    assert failed.seconds is None
    assert fine.verified
    assert len(shown) == 1
    assert "Traceback" in shown[0]


def test_a_dead_oracle_makes_nothing_verified(small: DataSet) -> None:
    with Oracle(small.tables, 1) as oracle:
        right = oracle.answer(query_text(96)).table
    with pytest.raises(ValueError, match="closed"):
        oracle.answer("select 1")
    with Oracle(small.tables, 1) as oracle:
        oracle._process.kill()
        record = Runner(Answers({query_text(96): right}), oracle).run_one(96)
    assert not record.succeeded
    assert record.verified is False
    assert record.error is not None
    assert record.error.startswith("not checked: ")


def test_without_an_oracle_nothing_is_said(tmp_path: Path) -> None:
    session = Answers({query_text(96): pa.table({"n": [1]})})
    record = Runner(session, emit=tmp_path).run_one(96)
    assert record.succeeded
    assert record.verified is None
    assert record.peers == {}
    assert (tmp_path / "q96").is_dir()


def test_all_tables_are_registered(small: DataSet) -> None:
    session = Answers({})
    register_tables(session, small)
    assert session.registered["item"] == [str(small.directory / "item.parquet")]
    assert len(session.registered) == 24


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ScadError("a\n  b"), "a b"),
        (ScadError(""), "ScadError"),
        (KeyError("x"), "KeyError: 'x'"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_errors_are_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def some_records() -> list[QueryRecord]:
    measured = {name: getattr(USAGE, name) for name in vars(USAGE)}
    peers = {"duckdb": Peer(0.5, 2, "same")}
    return [
        QueryRecord(1, 1.0, True, 4, 9, rows=7, peers=peers, **measured),
        QueryRecord(2, 3.0, False, 4, 9, rows=7, peers=peers, error="wrong answer", **measured),
        QueryRecord(3, error="cannot plan"),
    ]


def test_totals_count_and_add() -> None:
    found = totals(some_records(), 5)
    assert {k: found[k] for k in ("asked", "ran", "verified", "failed")} == {
        "asked": 5,
        "ran": 2,
        "verified": 1,
        "failed": 2,
    }
    assert found["seconds"] == 4.0
    assert found["bytes_written"] == 6_000_000
    assert found["peak_compute_bytes"] == 50 << 20
    assert found["peers"] == {"duckdb": {"seconds": 1.0, "ours": 4.0, "queries": 2}}


def test_the_report_has_the_names_of_the_contract(tmp_path: Path) -> None:
    whole = report(some_records(), 3, sf=0.01, generator="dsdgen", settings={"transport": "auto"})
    path = tmp_path / "out.json"
    write_json(path, whole)
    read = json.loads(path.read_text())
    assert {"totals", "sf", "generator", "versions", "machine", "queries"} <= set(read)
    assert list(read["queries"]) == ["1", "2", "3"]
    for record in read["queries"].values():
        assert set(record) >= ISSUE_KEYS
    assert read["queries"]["1"]["peers"]["duckdb"] == {
        "seconds": 0.5,
        "threads": 2,
        "answers": "same",
        "error": None,
    }
    assert read["machine"]["cores"] >= 1
    assert "duckdb" in read["versions"]
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="nan"):
        write_json(path, {"x": float("nan")})
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_plain_lines_are_one_per_query() -> None:
    out = io.StringIO()
    console = Console(file=out, width=40)
    with PlainLines(console) as display:
        for record in some_records():
            display.start(record.number)
            display.finish(record)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:3] == ["q1", "verified", "1.000"]
    assert "ratio 2.00" in lines[0]
    assert "WRONG" in lines[1]
    assert lines[2].endswith("cannot plan")


def test_a_long_error_is_told_once() -> None:
    """A plain line has its beginning, the summary has all of it."""
    out = io.StringIO()
    console = Console(file=out, width=40)
    error = "element s1[0] failed: " + "very " * 40 + "wrong"
    record = QueryRecord(3, error=error)
    with PlainLines(console) as display:
        display.start(3)
        display.finish(record)
    summary(console, [record], 1)
    line, why, _ = out.getvalue().splitlines()
    assert line.startswith("q3    failed  element s1[0] failed: very very")
    assert line.endswith("very …")
    assert len(line) < 100
    assert why == f"q3: {error}"


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_the_query_that_runs(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, height=8, force_terminal=True)
    display = LiveTable(console, 40)
    for number in range(1, 21):
        display.start(number)
        display.finish(QueryRecord(number, 0.1, True, 2, 3))
    display.start(72)
    with display:  # which draws at once
        shown = out.getvalue()
    row = next(line for line in shown.splitlines() if "q72" in line)
    assert "21 of 40" in row
    assert re.search(r"\b\d+\.\d\b", row)  # seconds so far


def test_the_table_shows_every_query_when_it_ends() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, height=8, force_terminal=True)
    with LiveTable(console, 40) as display:
        for number in range(1, 41):
            display.start(number)
            display.finish(QueryRecord(number, 0.1, True, 2, 3))
    last = out.getvalue().rsplit("query", 1)[1]
    assert all(f"q{number} " in last for number in range(1, 41))


def test_the_summary_lists_what_failed_and_why() -> None:
    out = io.StringIO()
    summary(Console(file=out, width=200), some_records(), 3)
    lines = out.getvalue().splitlines()
    assert lines[0] == "q2: wrong answer"
    assert lines[1] == "q3: cannot plan"
    assert lines[2].startswith("1 of 3 verified, 4.00 s, DuckDB 1.00 s (ratio 4.00)")


def test_generation_shows_a_bar_or_lines() -> None:
    out = io.StringIO()
    with generation_progress(Console(file=out, width=200), "data") as report_progress:
        for step in range(101):
            report_progress(Progress(step / 100, f"table {step}"))
    assert out.getvalue().splitlines() == [
        f"data: {tenth * 10} % (table {tenth * 10})" for tenth in range(11)
    ]
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    with generation_progress(console, "data") as report_progress:
        report_progress(Progress(0.5, "half"))
    assert "50%" in out.getvalue()


def test_no_progress_is_shown_where_nothing_is_generated() -> None:
    out = io.StringIO()
    with generation_progress(Console(file=out), "data"):
        pass
    assert out.getvalue() == ""


class FakePeer:
    """Stands for `tpcds.peers.EngineProcess`: has one outcome for every query."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.limits: list[float | None] = []

    def run(
        self, number: int, sql: str, *, limit: float | None = None, fetch: bool = False
    ) -> Outcome:
        self.limits.append(limit)
        return self.outcome


def test_peers_stand_beside_with_their_own_verdicts(oracle: Oracle) -> None:
    right = oracle.answer(query_text(96)).table
    wrong = pa.table({"n": pa.array([right.column(0)[0].as_py() + 1])})
    outcomes = {
        "polars": Outcome(0.25, 0.5, 1, 1, right),
        "polars-native": Outcome(0.125, 0.25, 1, 1, wrong),
        "duckdb-native": Outcome(error="not done in 120 s", timed_out=True),
    }
    fakes: Any = {name: FakePeer(outcome) for name, outcome in outcomes.items()}
    runner = Runner(Answers({query_text(96): right}), oracle, peers=fakes, threads=2)
    (record,) = runner.run([96], lambda _: None)
    assert record.succeeded
    found = record.peers
    assert found["duckdb"].answers == "same"
    assert (found["polars"].seconds, found["polars"].answers) == (0.25, "same")
    assert found["polars"].threads == 2
    assert found["polars-native"].answers == "different"
    assert str(found["polars-native"].error).startswith("wrong answer: row 0")
    assert found["duckdb-native"].seconds is None
    assert found["duckdb-native"].error == "not done in 120 s"
    assert all(fake.limits == [PEER_SECONDS] for fake in fakes.values())
    # Only what they answered rightly is summed.
    assert set(totals([record], 1)["peers"]) == {"duckdb", "polars"}


def test_peers_run_also_where_this_engine_fails_and_nobody_checks(oracle: Oracle) -> None:
    peer: Any = FakePeer(Outcome(0.25, 0.5, 1, 1))
    session = Answers({query_text(96): ScadError("no plan")})
    (record,) = Runner(session, peers={"polars": peer}).run([96], lambda _: None)
    assert record.error == "no plan"
    assert record.peers["polars"].seconds == 0.25
    assert record.peers["polars"].answers is None
