"""Peers: processes of their own that answer as DuckDB does; what happens to those that do not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tpcds.data import DataSet
from tpcds.errors import PeerError
from tpcds.oracle import Oracle
from tpcds.peers import PEERS, EngineProcess, parse_peer_list, start_peer
from tpcds.peers.dialect import DIVIDING, for_polars
from tpcds.queries import query_text
from tpcds.verify import verify

FAKE = "tests.tpcds.test_peers:FakeEngine"


class FakeEngine:
    """Does what its queries say."""

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting
        self.asked = 0

    def load(self) -> None:
        if self.greeting == "refuse":
            raise ValueError("no tables here")

    def prepare(self, number: int, sql: str) -> Callable[[], pa.Table]:
        def run() -> pa.Table:
            self.asked += 1
            if sql == "hang":
                time.sleep(600)
            if sql == "raise":
                raise ValueError("it\n  broke")
            if sql == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            print("an engine that talks")
            return pa.table({"asked": [self.asked], "number": [number], "sql": [sql]})

        return run

    def table(self, answer: pa.Table) -> pa.Table:
        return answer

    def figures(self) -> Mapping[str, Any]:
        return {"asked": self.asked}

    def close(self) -> None:
        Path(os.environ["CLOSED"]).write_text("yes")


@pytest.fixture
def fake(tmp_path: Path) -> Any:
    with EngineProcess(
        FAKE, {"greeting": "hello"}, {"CLOSED": str(tmp_path / "closed")}
    ) as process:
        yield process


def test_an_answer_comes_with_its_figures(fake: EngineProcess) -> None:
    outcome = fake.run(7, "select 1", fetch=True)
    assert outcome.table is not None
    assert outcome.table.to_pylist() == [{"asked": 1, "number": 7, "sql": "select 1"}]
    assert (outcome.rows, outcome.error, outcome.timed_out) == (1, None, False)
    assert outcome.figures == {"asked": 1}
    assert outcome.seconds is not None
    assert outcome.seconds > 0
    assert (outcome.peak_bytes or 0) > 1 << 20


def test_an_answer_that_nobody_wants_is_not_sent(fake: EngineProcess) -> None:
    outcome = fake.run(7, "select 1")
    assert outcome.table is None
    assert outcome.rows == 1


def test_a_failure_is_an_outcome_and_the_process_goes_on(fake: EngineProcess) -> None:
    first = fake.pid
    outcome = fake.run(1, "raise")
    assert outcome.error == "ValueError: it broke"
    assert outcome.seconds is None
    assert not outcome.timed_out
    assert fake.run(1, "go on").figures == {"asked": 2}
    assert fake.pid == first


def test_one_that_hangs_is_killed_and_started_again(fake: EngineProcess) -> None:
    first = fake.pid
    outcome = fake.run(1, "hang", limit=0.2)
    assert outcome.timed_out
    assert outcome.error == "not done in 0.2 s"
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert fake.run(1, "again", limit=60).figures == {"asked": 1}
    assert fake.starts == 2


def test_one_that_dies_is_started_again(fake: EngineProcess) -> None:
    outcome = fake.run(1, "die")
    assert outcome.error is not None
    assert "killed by signal 9" in outcome.error
    assert fake.run(1, "again").figures == {"asked": 1}


def test_it_ends_in_good_order(tmp_path: Path) -> None:
    mark = tmp_path / "closed"
    process = EngineProcess(FAKE, {"greeting": "hello"}, {"CLOSED": str(mark)})
    process.close()
    assert mark.read_text() == "yes"
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="ValueError: no tables here"):
        EngineProcess(FAKE, {"greeting": "refuse"}, {"CLOSED": str(tmp_path / "closed")})


@pytest.mark.parametrize("name", PEERS)
def test_peers_answer_as_duckdb_does(name: str, small: DataSet) -> None:
    with Oracle(small.tables, 2) as oracle, start_peer(name, small.tables, 2) as peer:
        # Quotients, a NULL-ordered top-k, a rollup by unions, a tie under the LIMIT, a self-join.
        for number in (2, 3, 36, 64, 78, 83, 98):
            sql = query_text(number)
            outcome = peer.run(number, sql, limit=60, fetch=True)
            assert outcome.error is None
            assert outcome.table is not None
            right = oracle.answer(sql).table
            wide = oracle.widened(sql, right.num_rows)
            assert verify(outcome.table, right, lambda wide=wide: wide).difference is None


def test_only_queries_that_divide_are_rewritten() -> None:
    for number in range(1, 100):
        sql = query_text(number)
        text = for_polars(number, sql)
        assert (text != sql) == (number in DIVIDING)
        if number in DIVIDING:
            assert text.count("/ ") == text.count("AS DOUBLE) / ")


@pytest.mark.parametrize(("text", "says"), [("spark", "no peer 'spark'"), ("", "no peer ''")])
def test_lists_of_peers_are_checked(text: str, says: str) -> None:
    with pytest.raises(PeerError, match=says):
        parse_peer_list(text)


def test_a_peer_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PeerError, match="pip install polars"):
        parse_peer_list("polars")


def test_a_list_of_peers_keeps_its_order() -> None:
    assert parse_peer_list("polars, duckdb,polars") == ["polars", "duckdb"]
