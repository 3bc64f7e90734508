"""Joins of Arrow inputs: what DuckDB pushes down into them must not change the answer."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from operators import build
from operators.duckdb import Kernel
from operators.rel import InputSource, ParquetSource
from operators.types import canonical_schema

NAN = float("nan")


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel.open(1, 1 << 28) as made:
        yield made


@pytest.mark.parametrize("parquet", [False, True])
@pytest.mark.parametrize(
    "keys",
    [
        pa.array([0.0, NAN, 5.0, 5.0]),
        pa.array([-0.0, -NAN, None, 5.0]),
        pa.array([Decimal("1.50"), Decimal("7.00")], pa.decimal64(12, 2)),
        pa.array([Decimal("1.50"), Decimal("7.00")], pa.decimal32(9, 2)),
    ],
    ids=["zero", "minus-zero", "decimal64", "decimal32"],
)
def test_keys_that_pyarrow_compares_in_another_way(
    kernel: Kernel, keys: pa.Array, parquet: bool, tmp_path: Path
) -> None:
    """The build side is small, so that DuckDB filters the probe side by its keys."""
    others = [-0.0, NAN, 6.0] if keys.type == pa.float64() else [None]
    values = [*keys.to_pylist(), *others] * 400
    probe = pa.table({"k": pa.array(values, keys.type)})
    left: Any = InputSource("probe")
    if parquet:
        wide = keys.type if keys.type == pa.float64() else pa.decimal128(keys.type.precision, 2)
        pq.write_table(probe.cast(pa.schema([("k", wide)])), tmp_path / "probe.parquet")
        left = ParquetSource("probe", (str(tmp_path / "probe.parquet"),))
    schema = canonical_schema(probe.schema)
    a, b = build.scan(left, schema), build.scan(InputSource("build"), schema)
    joined = kernel.table(
        kernel.lower(build.join(a, b, "semi", on=[(0, 0)])),
        {"probe": probe, "build": pa.table({"k": keys})},
    )
    matches = {as_key(v) for v in keys.to_pylist()} - {None}
    assert joined.num_rows == sum(as_key(v) in matches for v in values) > 400


def as_key(value: Any) -> Any:
    return "nan" if value != value else value
