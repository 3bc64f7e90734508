"""``python -m engine sql`` as a process; what it shares with ``scad sql`` is tested here only."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from engine.cli import main

ROOT = Path(__file__).resolve().parents[3]
Outcome = tuple[int, bytes, str]
Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    data = pa.table({"a": [7, 9, None], "s": ["x", "y,z", None]})
    pq.write_table(data, tmp_path / "t.parquet")
    feather.write_feather(data, str(tmp_path / "f.feather"))
    (tmp_path / "c.csv").write_text('a,s\n7,x\n9,"y,z"\n,\n')

    def go(*arguments: str, stdin: bytes = b"") -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "engine", *arguments],
            input=stdin,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr.decode()

    return go


def test_tables_of_every_kind_joined(run: Run) -> None:
    sql = "select c.a, f.s from t join c using (a) join f on f.s = c.s order by 1"
    tables = [
        f"--table={n}={n}.{k}" for n, k in zip("tfc", ("parquet", "feather", "csv"), strict=True)
    ]
    status, out, err = run("sql", sql, *tables, "--format", "json")
    assert (status, err) == (0, "")
    assert json.loads(out) == [{"a": 7, "s": "x"}, {"a": 9, "s": "y,z"}]


def test_answers_in_files_and_pipes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("select a from t order by a")
    expected = {"a": [7, 9, None]}
    status, out, err = run("sql", "-f", "q.sql", "--table", "t=t.parquet", "-o", "o.parquet")
    assert (status, out, err) == (0, b"", "")
    assert pq.read_table(tmp_path / "o.parquet").to_pydict() == expected
    query = b"select a from t order by a"
    status, out, err = run("sql", "-", "--table", "t=t.parquet", "--format", "arrow", stdin=query)
    assert (status, err) == (0, "")
    assert pa.ipc.open_stream(out).read_all().to_pydict() == expected
    status, out, err = run("sql", "-f", "q.sql", "--table", "t=o.parquet", "-o", "o.feather")
    assert (status, out, err) == (0, b"", "")
    assert feather.read_table(str(tmp_path / "o.feather")).to_pydict() == expected
    assert not list(tmp_path.glob(".*part"))


def test_analyze_and_report(run: Run, tmp_path: Path) -> None:
    sql = "select s, count(*) from t group by s"
    arguments = ("sql", sql, "--table", "t=t.parquet", "--analyze")
    status, out, err = run(*arguments, "--report", "pages")
    assert status == 0
    assert err == "report: pages/query.html\n"
    assert b"q-error" in out
    assert (tmp_path / "pages" / "query.svg").exists()
    assert sql in (tmp_path / "pages" / "query.html").read_text()
    status, out, err = run(*arguments, "--format", "json")
    assert (status, err) == (0, "")
    assert json.loads(out)["stages"][-1]["output"]["rows"] == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-f", "none.sql"], "none.sql: No such file"),
        (["-f", "t.parquet"], "t.parquet: not a text in UTF-8"),
        (["select * from t", "--table", "t=none.csv"], "none.csv"),
        (["select a from t union by name select s from t", "--table", "t=c.csv"], "UNION BY NAME"),
        (["select 1/'x'"], "Could not convert"),
    ],
)
def test_what_goes_wrong_is_one_line(run: Run, arguments: list[str], says: str) -> None:
    status, out, err = run("sql", *arguments, "-o", "never.csv")
    assert (status, out) == (1, b"")
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("engine: ")


def test_verbose_adds_the_traceback(run: Run) -> None:
    status, _, err = run("sql", "select nosuch", "-v")
    assert status == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("engine: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["nosuch"], "invalid choice"),
        (["sql"], "give one query"),
        (["sql", "select 1", "-f", "q.sql"], "give one query"),
        (["sql", "select 1", "--format", "xml"], "invalid choice"),
        (["sql", "select 1", "--explain", "--format", "csv"], "--format json"),
        (["sql", "select 1", "--table", "t"], "not NAME=PATH"),
        (["sql", "select 1", "--table", "t=a.csv", "--table", "T=b.csv"], "more than once"),
        (["sql", "select 1", "--explain", "-o", "x.parquet"], "which .parquet is not for"),
        (["sql", "select 1", "--analyze", "-o", "x.csv"], "which .csv is not for"),
        (["sql", "select 1", "-o", "o.xyz"], ".csv, .json, .arrow, .feather, .ipc, .parquet"),
        (["sql", "select 1", "--parallelism", "0"], "not a positive whole number"),
        (["sql", "select 1", "--compute-memory", "x"], "--compute-memory"),
        (["sql", "select 1", "-o", "/no/such/folder/x.csv"], "does not exist"),
        (["sql", "select 1", "--polycy"], "unrecognized"),
        (["sql", "select 1", "--policy", "fine"], "invalid choice"),
    ],
)
def test_wrong_command_lines(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_nothing_binary_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "engine", "sql", "select 1", "--format", "parquet"],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=False,
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert b"not for a terminal" in done.stderr
