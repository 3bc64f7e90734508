"""What is made of a run's figures: sums, ratios, targets, files. Nothing is measured here."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.tpcds.figures import fastest, geometric_mean, reserved, slow, summary, totals, versus
from bench.tpcds.results import Cell, EngineInfo, Pass, Results, ResultsError, merged, read, write
from bench.tpcds.show import shown, target_table
from bench.tpcds.targets import Target, targets

TITLES = {"scad": "Scad", "duckdb": "DuckDB", "polars": "Polars", "function": "one function"}
ROLES = {"scad": "ours", "function": "baseline"}


def engine(key: str) -> EngineInfo:
    return EngineInfo(title=TITLES[key], role=ROLES.get(key, "peer"), version="1")  # type: ignore[arg-type]


def cell(*seconds: float, gb_s: float | None = None, **given: Any) -> Cell:
    reserved = [] if gb_s is None else [gb_s] * len(seconds)
    return Cell(seconds=list(seconds), cpu_seconds=[2 * s for s in seconds], gb_s=reserved, **given)


@pytest.fixture
def cold() -> Pass:
    """q1: Scad wins; q2: it loses, by more than is allowed; q3: Polars never ends; q4: Scad
    fails.
    """
    return Pass(
        name="cold",
        engines={key: engine(key) for key in ("scad", "duckdb", "polars", "function")},
        queries={
            1: {
                "scad": cell(0.5, 0.4, 0.6, gb_s=0.1, peak_bytes=100 << 20),
                "duckdb": cell(1.0, 1.2, 0.8),
                "polars": cell(2.0, 2.0, 2.0),
                "function": cell(1.1, gb_s=2.0),
            },
            2: {
                "scad": cell(1.0, 1.0, 1.0, gb_s=0.5, peak_bytes=200 << 20),
                "duckdb": cell(3.0, 3.0, 3.0),
                "polars": cell(0.5, 0.5, 0.5),
                "function": cell(3.0, gb_s=1.0),
            },
            3: {
                "scad": cell(0.1, 0.1, 0.1, gb_s=0.1),
                "duckdb": cell(0.2, 0.2, 0.2),
                "polars": Cell(error="not done in 60 s", timed_out=True),
                "function": cell(0.2, gb_s=0.1),
            },
            4: {
                "scad": Cell(error="EngineError: [brackets] are no markup"),
                "duckdb": cell(7.0, 7.0, 7.0),
                "polars": cell(8.0, wrong="row 0, column a: 1, DuckDB has 2"),
                "function": cell(7.0, gb_s=4.0),
            },
        },
    )


def results(one: Pass, **given: Any) -> Results:
    defaults: dict[str, Any] = {
        "sf": 1.0,
        "generator": "dsdgen",
        "settings": {"verify": True},
        "versions": {"duckdb": "1"},
        "machine": {"cores": 2},
        "passes": {one.name: one},
    }
    return Results(**{**defaults, **given})


def test_sums_are_over_the_queries_that_all_answered(cold: Pass) -> None:
    found = totals(cold)
    assert {key: value.common for key, value in found.items()} == {
        "scad": 1.5,
        "duckdb": 4.0,
        "polars": 2.5,
        "function": 4.1,
    }
    assert found["duckdb"].answered == pytest.approx(11.2)
    assert {key: value.failed for key, value in found.items()} == {
        "scad": [4],
        "duckdb": [],
        "polars": [3, 4],
        "function": [],
    }
    assert found["scad"].gb_s == pytest.approx(0.6)
    assert found["duckdb"].gb_s is None
    assert found["scad"].peak_bytes == 200 << 20


def test_against_one_engine_its_own_failures_alone_count(cold: Pass) -> None:
    found = versus(cold, "duckdb")
    assert found is not None
    assert found.queries == 3
    assert found.ratio == pytest.approx(1.6 / 4.2)
    assert found.geometric_mean == pytest.approx((0.5 * (1 / 3) * 0.5) ** (1 / 3))
    rounds = [1.6 / 4.2, 1.5 / 4.4, 1.7 / 4.0]
    assert found.spread == pytest.approx((max(rounds) - min(rounds)) / 2 / found.ratio)


def test_the_faster_peer_is_the_faster_in_all(cold: Pass) -> None:
    assert fastest(cold) == "polars"


def test_slow_queries_are_beyond_the_factor_and_the_margin(cold: Pass) -> None:
    assert [(s.number, s.peer) for s in slow(cold)] == [(2, "polars")]
    cold.queries[2]["scad"] = cell(0.8)  # exactly 1.5 x 0.5 s and 50 ms
    assert slow(cold) == []


def test_reserved_is_compared_in_total_and_at_best(cold: Pass) -> None:
    found = reserved(cold, "function")
    assert found is not None
    total, (best, ratio) = found
    assert total == pytest.approx(0.7 / 3.1)
    assert (best, ratio) == (1, pytest.approx(0.05))
    assert reserved(cold, "duckdb") is None
    assert reserved(cold, "function", process=True) is None
    cold.queries[1]["function"].process_gb_s = [4.0]
    assert reserved(cold, "function", process=True) == (0.1 / 4.0, (1, 0.1 / 4.0))
    assert reserved(cold, "function", held=True) is None
    cold.queries[1]["scad"].held_gb_s = [0.05]
    assert reserved(cold, "function", held=True) == (0.05 / 2.0, (1, 0.05 / 2.0))


def test_geometric_mean() -> None:
    assert geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)
    assert math.isnan(geometric_mean([]))


def met(rows: list[Target]) -> dict[str, bool | None]:
    return {row.name: row.met for row in rows}


def test_targets_of_one_scale_factor_say_nothing_at_another(cold: Pass) -> None:
    at_1 = met(targets(results(cold)))
    # One query has no answer: a target about all of them cannot be met.
    assert at_1["SF 1, nothing resident"] is False
    assert at_1["SF 10, nothing resident, gate"] is None
    assert at_1["no query slower than, cold"] is False
    assert at_1["answers, cold, SF 1"] is False
    del cold.queries[4]
    assert met(targets(results(cold)))["SF 1, nothing resident"] is True
    at_10 = met(targets(results(cold, sf=10.0)))
    assert at_10["SF 1, nothing resident"] is None
    assert at_10["SF 10, nothing resident, gate"] is True
    assert at_10["SF 10, nothing resident, goal"] is True


def test_reserved_target_needs_both_the_total_and_the_best(cold: Pass) -> None:
    name = "reserved GB·s against one function"
    assert met(targets(results(cold)))[name] is True
    cold.queries[1]["scad"] = cell(0.5, gb_s=0.3)
    assert met(targets(results(cold)))[name] is False
    assert met(targets(results(cold)))["reserved GB·s against functions with Redis"] is None


def test_memory_target_is_about_one_policy_and_limit(cold: Pass) -> None:
    name = "peak anonymous memory of an element, SF 10, disaggregate, 512MB"
    assert met(targets(results(cold, sf=10.0)))[name] is None
    settings = {"policy": "disaggregate", "compute_memory": 512 << 20}
    asked = results(cold, sf=10.0, settings=settings)
    assert met(targets(asked))[name] is True
    cold.queries[2]["scad"].peak_bytes = (512 << 20) + 1
    assert met(targets(asked))[name] is False


def test_planning_and_scatter_come_from_their_suites(cold: Pass) -> None:
    further = {"planning": {"median": 12.0, "worst": 151.0}, "scatter": {"ours": 0.1, "peer": 1.3}}
    found = met(targets(results(cold, further=further)))
    assert found["planning, median"] is True
    assert found["planning, worst"] is False
    assert found["scatter of 10 M rows x 5 columns to 16 partitions"] is True


def test_results_are_read_as_they_were_written(cold: Pass, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    whole = results(cold)
    write(path, whole, summary(whole))
    assert read(path) == whole
    kept = json.loads(path.read_text())["summary"]["cold"]
    assert kept["common_queries"] == [1, 2]
    assert kept["versus"]["polars"]["queries"] == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sf": "one"}'])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=r"r\.json does not hold"):
        read(path)


def test_pieces_of_a_run_are_shown_as_one(cold: Pass) -> None:
    first = results(Pass(name="cold", engines=cold.engines, queries={3: cold.queries[3]}))
    rest = {q: cells for q, cells in cold.queries.items() if q != 3}
    second = results(Pass(name="cold", engines=cold.engines, queries=rest))
    assert merged([first, second]) == results(cold)
    assert list(merged([first, second]).passes["cold"].queries) == [1, 2, 3, 4]


@pytest.mark.parametrize("changed", [{"sf": 10.0}, {"settings": {}}, {"machine": {"cores": 4}}])
def test_unlike_runs_are_not_shown_as_one(cold: Pass, changed: dict[str, Any]) -> None:
    with pytest.raises(ResultsError, match=f"differ in {next(iter(changed))}"):
        merged([results(cold), results(cold, **changed)])


def test_tables_name_every_failure(cold: Pass) -> None:
    console = Console(width=250, record=True, file=io.StringIO())
    whole = results(cold)
    for table in shown(whole):
        console.print(table)
    console.print(target_table(targets(whole)))
    text = console.export_text()
    assert "cold, q3, Polars: not done in 60 s" in text
    assert "cold, q4, Scad: EngineError: [brackets] are no markup" in text
    assert "cold, q4, Polars: wrong: row 0, column a: 1, DuckDB has 2" in text
    assert "timeout" in text
    assert "over the 2 queries that all engines answered" in text
