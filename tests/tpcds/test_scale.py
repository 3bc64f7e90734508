"""TPC-DS at scale factors 1 and 10, from the user's cache folder (generated there on first use)."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from engine import Session
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


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("parallelism", ["1", "2", "4"])
def test_all_queries_at_sf_1(tmp_path: Path, parallelism: str) -> None:
    found = run(tmp_path / "run.json", "--sf", "1", "--parallelism", parallelism)
    assert len(found) == 99
    assert all(record["verified"] is True for record in found.values())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_queries_at_sf_10(tmp_path: Path) -> None:
    found = run(tmp_path / "run.json", "--sf", "10", "--queries", "1,16,95")
    assert [record["verified"] for record in found.values()] == [True] * 3
