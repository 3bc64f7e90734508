"""Small tables with NULLs and duplicates, estimates that make every rule pay, and a check that a
rule keeps the answer."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from operators import build
from operators.duckdb import Kernel, lower
from operators.rel import Aggregation, InputSource, Rel, Scan


def facts(rows: int, seed: int) -> pa.Table:
    """Rows with keys that are NULL or repeated, decimals, floats, strings and dates."""
    rng = random.Random(seed)

    def column(make: Callable[[], Any], type: pa.DataType) -> pa.Array:
        values = [None if rng.random() < 0.15 else make() for _ in range(rows)]
        return pa.array(values, type)

    return pa.table(
        {
            "item": column(lambda: rng.randrange(8), pa.int32()),
            "store": column(lambda: rng.randrange(4), pa.int64()),
            "year": column(lambda: rng.randrange(1998, 2002), pa.int32()),
            "amount": column(lambda: Decimal(rng.randrange(-900, 900)) / 100, pa.decimal64(7, 2)),
            "weight": column(lambda: rng.randrange(64) / 8, pa.float64()),
            "count": column(lambda: rng.randrange(100), pa.int32()),
            "day": column(
                lambda: dt.date(2000, 1, 1) + dt.timedelta(rng.randrange(9)), pa.date32()
            ),
        }
    )


DATA = {
    "sales": facts(400, 1),
    "returns": facts(150, 2),
    "none": facts(0, 3),
    "items": pa.table(
        {
            # A dimension whose key is neither unique nor complete.
            "key": pa.array([0, 1, 1, 2, 3, 3, 5, None], pa.int32()),
            "name": ["a", "b", "b", "a", None, "c", "d", "e"],
            "class": ["x", "x", "y", "x", "y", None, "y", "x"],
        }
    ),
}


def scan(name: str) -> Rel:
    """Read one of the tables."""
    return build.scan(InputSource(name), DATA[name].schema)


class Generous:
    """Estimates under which scans are huge and groups few, so that every rule pays."""

    def rows(self, rel: Rel) -> float:
        if isinstance(rel, Scan):
            assert isinstance(rel.source, InputSource)
            return 100.0 if rel.source.name == "items" else 1e9
        sizes = [self.rows(i) for i in rel.inputs()]
        return max(sizes, default=1.0) / (1e3 if isinstance(rel, Aggregation) else 1)


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    rows = [tuple(row.values()) for row in table.rename_columns(_numbers(table)).to_pylist()]
    return sorted(rows, key=lambda row: [(v is None, str(type(v)), v or 0) for v in row])


def _numbers(table: pa.Table) -> list[str]:
    return [f"c{i}" for i in range(table.num_columns)]


def close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return bool(one == other)


@pytest.fixture(scope="session")
def kernel() -> Iterator[Kernel]:
    with Kernel.open(1, 1 << 30) as opened:
        yield opened


@pytest.fixture(scope="session")
def same_answer(kernel: Kernel) -> Callable[[Rel, Rel], None]:
    """Fails unless two plans give the same rows, under the same schema."""

    def check(plan: Rel, rewritten: Rel) -> None:
        assert rewritten.schema.names == plan.schema.names
        assert rewritten.schema.types == plan.schema.types
        first, second = (rows_of(kernel.table(lower(p), DATA)) for p in (plan, rewritten))
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert all(map(close, one, other)), (one, other)

    return check
