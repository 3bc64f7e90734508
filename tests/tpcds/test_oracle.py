from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from tpcds.data import DataSet
from tpcds.errors import OracleError
from tpcds.oracle import Oracle
from tpcds.queries import query_text
from tpcds.verify import verify

HOLD = """
import sys
from tpcds.data import open_directory
from tpcds.oracle import Oracle
from pathlib import Path
oracle = Oracle(open_directory(Path(sys.argv[1])).tables, 1)
sys.stdout.write("ready\\n"); sys.stdout.flush()
oracle.answer("select count(*) from range(1000000000000) where range % 7 = 3")
"""


@pytest.fixture(scope="module")
def oracle(small: DataSet) -> Iterator[Oracle]:
    with Oracle(small.tables, 1) as oracle:
        yield oracle


def test_it_answers_over_the_files(oracle: Oracle, small: DataSet) -> None:
    answer = oracle.answer("select count(*) as n from store_sales")
    assert answer.table.to_pylist() == [{"n": small.rows["store_sales"]}]
    assert answer.seconds > 0


def test_an_answer_of_no_rows_keeps_its_columns(oracle: Oracle) -> None:
    table = oracle.answer("select r_reason_sk, r_reason_desc from reason where false").table
    assert table.column_names == ["r_reason_sk", "r_reason_desc"]
    assert table.num_rows == 0


def test_it_answers_as_duckdb_does(oracle: Oracle, small: DataSet) -> None:
    sql = query_text(3)
    with duckdb.connect(config={"threads": 1}) as connection:
        for table, (path,) in small.tables.items():
            connection.execute(f"create view {table} as from '{path}'")
        assert connection.execute(sql).to_arrow_table() == oracle.answer(sql).table


def test_an_error_is_one_line_and_not_the_end(oracle: Oracle) -> None:
    with pytest.raises(OracleError, match="nowhere") as caught:
        oracle.answer("select nothing from nowhere")
    assert "\n" not in str(caught.value)
    assert oracle.answer("select 1 as one").table.num_rows == 1


def test_it_widens_no_further_than_the_tie(oracle: Oracle) -> None:
    sql = "select t_time_sk from time_dim order by t_hour, t_minute limit 70"
    wide = oracle.widened(sql, 70)
    assert wide.keys == 2
    assert wide.table.num_rows == 120
    assert wide.table.num_columns == 3
    assert oracle.widened("select 1 as one from time_dim limit 5", 5).keys == 0


def test_a_tie_may_span_many_batches(oracle: Oracle) -> None:
    wide = oracle.widened("select t_time_sk from time_dim order by t_am_pm limit 3", 3)
    assert wide.table.num_rows == 43_200


@pytest.mark.parametrize("number", [3, 16, 34, 42, 47, 66, 85, 97])
def test_it_verifies_itself(oracle: Oracle, number: int) -> None:
    sql = query_text(number)
    table = oracle.answer(sql).table
    back = table.take(pa.array(range(table.num_rows)[::-1], pa.int64()))
    assert verify(table, table).matches
    verdict = verify(back, table, lambda: oracle.widened(sql, table.num_rows))
    assert verdict.matches == (back.to_pylist() == table.to_pylist())


def test_a_killed_oracle_is_an_error(small: DataSet, children_of: Any) -> None:
    with Oracle(small.tables, 1) as oracle:
        before = set(children_of(os.getpid()))
        (pid,) = {oracle._process.pid} & before
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(OracleError, match="killed by signal 9"):
            oracle.answer("select 1")
    assert pid not in children_of(os.getpid())


def test_files_that_are_not_there(tmp_path: Path, children_of: Any) -> None:
    before = children_of(os.getpid())
    with pytest.raises(OracleError, match=r"missing\.parquet"):
        Oracle({"reason": [tmp_path / "missing.parquet"]}, 1)
    assert children_of(os.getpid()) == before


def test_it_dies_with_its_parent_even_when_busy(
    small: DataSet, start: Any, children_of: Any, eventually: Any
) -> None:
    process = start("-c", HOLD, str(small.directory))
    assert process.stdout.readline() == "ready\n"
    (oracle,) = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert eventually(lambda: not Path(f"/proc/{oracle}").exists())


def test_ctrl_c_ends_both(small: DataSet, start: Any, children_of: Any, eventually: Any) -> None:
    process = start("-c", HOLD, str(small.directory))
    assert process.stdout.readline() == "ready\n"
    (oracle,) = children_of(process.pid)
    os.kill(oracle, signal.SIGINT)  # as a terminal sends it to both
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert "KeyboardInterrupt" in errors
    assert eventually(lambda: not Path(f"/proc/{oracle}").exists())
