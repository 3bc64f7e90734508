"""``scad sql`` and the first program, as processes."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
Outcome = tuple[int, str, str]
Scad = Callable[..., Outcome]


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "SCAD_AUTH": "user:key"}


@pytest.fixture
def scad(environment: dict[str, str], tmp_path: Path) -> Scad:
    def run(*arguments: str, stdin: str = "") -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "scad", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def table(tmp_path: Path) -> str:
    data = pa.table({"a": [7, 9, None], "b": [2, 2, 1], "s": ["x", "y,z", None]})
    pq.write_table(data, tmp_path / "t.parquet")
    return "t=t.parquet"


def test_division_is_duckdbs(scad: Scad, table: str) -> None:
    status, out, err = scad(
        *("sql", "select 7/2 as x, a/b as y from t where a = 7", "--table", table),
        *("--format", "json"),
    )
    assert (status, err) == (0, "")
    assert json.loads(out) == [{"x": 3.5, "y": 3.5}]


def test_a_query_from_standard_input_as_csv(scad: Scad, table: str) -> None:
    query = "select s, a from t order by b desc, a"
    status, out, err = scad("sql", "-", "--table", table, "--format", "csv", stdin=query)
    assert (status, err) == (0, "")
    assert list(csv.reader(io.StringIO(out))) == [["s", "a"], ["x", "7"], ["y,z", "9"], ["", ""]]


def test_a_table_for_people(scad: Scad, table: str) -> None:
    status, out, err = scad("sql", "select count(*) as n from t", "--table", table)
    assert (status, err) == (0, "")
    assert out == "n\n-\n3\n(1 row)\n"


def test_explain_runs_nothing(scad: Scad, table: str) -> None:
    query = "select b, count(*) as n from t group by b"
    status, out, err = scad("sql", query, "--table", table, "--explain")
    assert (status, err) == (0, "")
    assert "t" in out
    assert "(2 rows)" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["selec 1 from t"], "line 1"),
        (["select nothing from t"], "nothing"),
        (["select * from absent"], "absent"),
        (["select * from u", "--table", "u=missing.parquet"], "missing.parquet"),
        (["select * from u", "--table", "u=corrupt.parquet"], "corrupt.parquet"),
        (["select * from t", "--compute-memory", "1 KB"], "too small"),
        (["select * from t", "--apihost", "http://127.0.0.1:9"], "127.0.0.1"),
    ],
)
def test_bad_input_is_one_clear_line(
    scad: Scad, table: str, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "corrupt.parquet").write_bytes(b"PAR1 and no more")
    status, out, err = scad("sql", *arguments, "--table", table)
    assert (status, out) == (1, "")
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("scad: ")


def test_the_first_program(environment: dict[str, str]) -> None:
    program = ROOT / "examples" / "first_program.py"
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[:3]] == [["north", "42"], ["south", "35"], ["west", "7"]]
    assert lines[3].endswith("compute elements")
