"""TPC-DS at scale factors 1 and 10, from the user's cache folder (generated there on first use)."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from engine import Session
from libd.units import parse_size
from tpcds.data import ensure
from tpcds.queries import query_text
from tpcds.runner import register_tables

SPLIT = (1, 3, 16, 42, 94, 95, 97)


def run(out: Path, *arguments: str) -> dict[str, dict[str, object]]:
    """Run the command; it must succeed."""
    command = [sys.executable, "-m", "tpcds.run", *arguments, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    queries: dict[str, dict[str, object]] = json.loads(out.read_text())["queries"]
    return queries


@pytest.mark.sf1
@pytest.mark.timeout(900)
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_queries_at_sf_1_are_split_and_right(tmp_path: Path, transport: str) -> None:
    asked = ",".join(map(str, SPLIT))
    how = ("--policy", "disaggregate", "--transport", transport)
    found = run(tmp_path / "run.json", "--sf", "1", "--queries", asked, *how)
    assert {int(number) for number in found} == set(SPLIT)
    for number, record in found.items():
        assert record["verified"] is True, number
        assert isinstance(record["elements"], int)
        assert record["elements"] > 2, number
        assert isinstance(record["bytes_written"], int)
        assert record["bytes_written"] > 0, number


@pytest.mark.sf1
@pytest.mark.timeout(900)
def test_query_16_has_its_official_answer() -> None:
    with Session(parallelism=2) as session:
        register_tables(session, ensure(1.0, "dsdgen"))
        answer = session.sql(query_text(16)).collect()
    (row,) = (tuple(r.values()) for r in answer.to_pylist())
    assert row == (233, Decimal("1095837.99"), Decimal("-143869.23"))


# Where answers have to be DuckDB's: parts, transports, limits of compute elements, kernels.
WHOLE = {
    "one part": ("--parallelism", "1"),
    "two parts": ("--parallelism", "2"),
    "four parts": ("--parallelism", "4"),
    "two parts over tcp": ("--parallelism", "2", "--transport", "tcp"),
    "four parts over tcp": ("--parallelism", "4", "--transport", "tcp"),
    "2GB": ("--policy", "disaggregate", "--compute-memory", "2GB"),
    "512MB": ("--policy", "disaggregate", "--compute-memory", "512MB"),
    "256MB": ("--policy", "disaggregate", "--compute-memory", "256MB"),
    "resident": ("--resident", "12GB", "--passes", "2"),
    "resident in polars": ("--resident", "12GB", "--passes", "2", "--kernel", "polars"),
    "duckdb alone": ("--kernel", "duckdb"),
}


def check_all(out: Path, scale: str, how: str) -> None:
    """All 99 answers are right, and no element held more than its limit."""
    found = run(out, "--sf", scale, *WHOLE[how])
    assert len(found) == 99
    assert [n for n, record in found.items() if record["verified"] is not True] == []
    if how in ("2GB", "512MB", "256MB"):
        peaks = {n: record["peak_anon_bytes"] for n, record in found.items()}
        assert {n: p for n, p in peaks.items() if p is None or p > parse_size(how)} == {}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", WHOLE)
def test_all_queries_at_sf_1(tmp_path: Path, how: str) -> None:
    check_all(tmp_path / "run.json", "1", how)


@pytest.mark.slow
@pytest.mark.sf10
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("how", [how for how in WHOLE if how != "one part"])
def test_all_queries_at_sf_10(tmp_path: Path, how: str) -> None:
    check_all(tmp_path / "run.json", "10", how)
