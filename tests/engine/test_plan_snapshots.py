"""What the optimizer and the cutter make of some queries of TPC-DS, as text.

A change of a rule shows here in full. Where it is meant: ``SCAD_UPDATE_PLANS=1 pytest
tests/engine/test_plan_snapshots.py``, and the difference goes into the commit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from engine.catalog import Catalog
from engine.frontend import plan_sql
from engine.optimizer import Estimates, optimize
from engine.stages import StagePlan, cut
from engine.stages.fragments import CutSettings
from operators.printer import format_plan
from tpcds.data import ensure
from tpcds.queries import query_text

PLANS = Path(__file__).with_name("plans")

# Rules and where they show: early aggregation (4), fused similar subplans (9, 28), shared subplans
# (14, 23, 64), semi and anti joins (16, 69), rollups (67), ranks (44), windows (51), groups that
# several readers want (59), scalar subqueries (6), outer joins (78), unions (5), the least and the
# greatest of a key (95).
NUMBERS = (4, 5, 6, 9, 14, 16, 23, 28, 44, 51, 59, 64, 67, 69, 78, 95)


@pytest.fixture(scope="module")
def catalog() -> Iterator[Catalog]:
    made = Catalog()
    for table, files in ensure(1.0, "dsdgen").tables.items():
        made.register(table, [str(path) for path in files])
    yield made
    made.close()


def described(stages: StagePlan) -> Iterator[str]:
    for stage in stages.stages:
        read = "".join(f", reads {i.mode} of {i.exchange} as {i.name}" for i in stage.inputs)
        out = stage.output
        keys = f" by {', '.join(out.schema[k].name for k in out.keys)}" if out.keys else ""
        to = f"writes {out.name} ({out.kind}{keys}, {out.partitions} partitions)"
        yield f"{stage.name}: {stage.parallelism} copies{read}, {to}\n"
        yield f"{format_plan(stage.plan)}\n\n"


@pytest.mark.sf1
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", NUMBERS)
def test_plan(catalog: Catalog, number: int) -> None:
    estimates = Estimates()
    plan = optimize(plan_sql(query_text(number), catalog), estimates)
    parts = cut(plan, estimates, CutSettings(parallelism=4))
    text = f"{format_plan(plan)}\n\nin four parts\n\n{''.join(described(parts))}"
    text = text.rstrip() + "\n"
    path, planner = PLANS / f"q{number:02}.txt", PLANS / "planner.txt"
    if os.environ.get("SCAD_UPDATE_PLANS"):
        path.write_text(text)
        planner.write_text(f"DataFusion {version('datafusion')}\n")
    elif planner.read_text().strip() != f"DataFusion {version('datafusion')}":
        pytest.skip(f"plans were written with {planner.read_text().strip()}: it may plan otherwise")
    assert text == path.read_text(), f"{path.name}: SCAD_UPDATE_PLANS=1 takes the new plan"
