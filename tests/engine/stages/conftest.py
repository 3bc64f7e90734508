"""Small tables as Parquet files, and a runner that executes stages one after the other in this
process."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.codegen import lower_stage
from engine.optimizer import Estimates, optimize
from engine.stages import CutSettings, Stage, StagePlan, cut
from operators import build
from operators.duckdb import Kernel, lower
from operators.rel import ParquetSource, Rel
from operators.types import canonical_schema


@dataclass(frozen=True)
class Tables:
    """Named Parquet tables; `scan` builds the relation that reads one."""

    paths: dict[str, str]

    def scan(self, name: str) -> Rel:
        schema = canonical_schema(pq.read_schema(self.paths[name]))
        return build.scan(ParquetSource(name, (self.paths[name],)), schema)


def sales(rows: int, seed: int) -> pa.Table:
    """A fact table with NULLs, duplicates, decimals and skew."""
    rng = random.Random(seed)

    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.1 else value

    return pa.table(
        {
            "id": pa.array(range(rows), pa.int32()),
            "item": pa.array([maybe(rng.randrange(12)) for _ in range(rows)], pa.int32()),
            "customer": pa.array(
                [maybe(rng.randrange(40) ** 2 // 40) for _ in range(rows)], pa.int64()
            ),
            "town": pa.array([maybe(rng.choice("abcdé")) for _ in range(rows)]),
            "price": pa.array(
                [maybe(Decimal(rng.randrange(-5000, 5000)) / 100) for _ in range(rows)],
                pa.decimal128(7, 2),
            ),
            "weight": pa.array([maybe(rng.randrange(1000) / 8) for _ in range(rows)], pa.float64()),
            "day": pa.array(
                [maybe(dt.date(2000, 1, 1) + dt.timedelta(rng.randrange(90))) for _ in range(rows)]
            ),
        }
    )


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("tables")
    data = {
        "sales": sales(600, 1),
        "returns": sales(250, 2),
        "empty": sales(0, 3),
        "items": pa.table(
            {
                "key": pa.array(range(10), pa.int32()),
                "name": pa.array([f"item {i % 4}" for i in range(10)]),
                "cost": pa.array([Decimal(i) / 4 for i in range(10)], pa.decimal128(9, 2)),
            }
        ),
    }
    paths = {}
    for name, table in data.items():
        paths[name] = str(folder / f"{name}.parquet")
        pq.write_table(table, paths[name], row_group_size=100)
    return Tables(paths)


def run_stages(plan: StagePlan) -> pa.Table:
    """The answer of stages, one copy after the other, exchanges kept as tables."""
    kernel = Kernel(duckdb.connect())
    written: dict[str, list[list[pa.Table]]] = {}
    for stage in plan.stages:
        copies = [_run_copy(kernel, stage, i, written) for i in range(stage.parallelism)]
        written[stage.output.name] = copies
    answer = [partition for copy in written["result"] for partition in copy]
    return pa.concat_tables(answer).rename_columns(list(plan.schema.names))


def _run_copy(
    kernel: Kernel,
    stage: Stage,
    index: int,
    written: dict[str, list[list[pa.Table]]],
) -> list[pa.Table]:
    inputs: dict[str, pa.Table] = {}
    for needed in stage.inputs:
        copies = written[needed.exchange]
        if needed.mode == "part":
            frames = [copy[index] for copy in copies]
        elif needed.mode == "all":
            frames = [frame for copy in copies for frame in copy]
        else:
            frames = copies[index] if index < len(copies) else [copies[0][0].slice(0, 0)]
        inputs[needed.name] = pa.concat_tables(frames)
    fragment = lower_stage(stage)
    for table in fragment.inputs:
        if isinstance(table.source, ParquetSource) and table.source.part is not None:
            fragment = fragment.with_part(index, stage.parallelism, table.name)
    rows = kernel.run(fragment, inputs).read_all()
    assert rows.column_names == list(stage.output.schema.names)
    if stage.output.kind != "hash":
        return [rows]
    keys = [rows.column(k).to_pylist() for k in stage.output.keys]
    place = [hash(key) % stage.output.partitions for key in zip(*keys, strict=True)]
    return [
        rows.filter(pa.array([p == n for p in place], pa.bool_()))
        for n in range(stage.output.partitions)
    ]


def run_whole(plan: Rel) -> pa.Table:
    """The answer of the uncut plan in one statement."""
    rows = Kernel(duckdb.connect()).run(lower(plan), {}).read_all()
    return rows.rename_columns(list(plan.schema.names))


def normal(table: pa.Table, ordered: bool) -> list[tuple[Any, ...]]:
    """Rows that can be compared: floats to ten digits, sorted unless their order counts."""

    def value(cell: Any) -> Any:
        return float(f"{cell:.10g}") + 0.0 if isinstance(cell, float) else cell

    rows = [
        tuple(map(value, row)) for row in zip(*(c.to_pylist() for c in table.columns), strict=True)
    ]
    return rows if ordered else sorted(rows, key=repr)


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Callable[..., StagePlan]:
    """Checks that the stages of a plan give the plan's answer; returns the stages of the last
    cut."""

    def check(
        plan: Rel,
        copies: Sequence[int] = (1, 3),
        ordered: bool = False,
        exact: bool = False,
        **settings: float,
    ) -> StagePlan:
        expected = run_whole(plan)
        for parallelism in copies:
            estimates = Estimates()
            optimized = optimize(plan, estimates)
            chosen = {"whole_rows": 50.0, "gather_rows": 10.0, **settings}
            stages = cut(optimized, estimates, CutSettings(parallelism, **chosen))
            answer = run_stages(stages)
            assert answer.schema.types == expected.schema.types
            assert answer.column_names == expected.column_names
            assert normal(answer, ordered) == normal(expected, ordered), f"{parallelism} copies"
            assert not exact or answer.equals(expected)
        return stages

    return check


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[[str, pa.Table], Rel]:
    """Writes a table and gives the scan of it."""

    def write(name: str, table: pa.Table) -> Rel:
        path = str(tmp_path / f"{name}.parquet")
        pq.write_table(table, path)
        return Tables({name: path}).scan(name)

    return write
