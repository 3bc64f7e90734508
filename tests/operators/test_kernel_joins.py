"""Arrow in: what DuckDB pushes down must not change the answer. Arrow out: batches that fit."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from operators import build
from operators.duckdb import Fragment, FragmentInput, Kernel
from operators.rel import InputSource, ParquetSource
from operators.schema import Field, Schema
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


INPUT = pa.table(
    {
        "id": range(8),
        "f": [0.0, -0.0, NAN, -NAN, 1.0, None, 5.0, float("inf")],
        "m": pa.array([Decimal(n) if n else None for n in (1, 2, 0, -1, 7, 3, 3, 3)])
        .cast(pa.decimal128(7, 2))
        .cast(pa.decimal32(7, 2)),
        "s": ["a", "é", "", None, "z", "Z", "a\0b", "b"],
        "b": [True, False, None, True, False, None, True, True],
    }
)
PREDICATES = {
    "f > 1": [2, 3, 6, 7],
    "f >= 0": [0, 1, 2, 3, 4, 6, 7],
    "f <= 'nan'::double": [0, 1, 2, 3, 4, 6, 7],
    "f in (0, 1)": [0, 1, 4],
    "f in ('nan'::double, 1)": [2, 3, 4],
    "f > 'inf'::double": [2, 3],
    "f > 1 or f is null": [2, 3, 5, 6, 7],
    "m > 1 or m is null": [1, 2, 4, 5, 6, 7],
    "m in (1, 2)": [0, 1],
    "s > 'a'": [1, 4, 6, 7],
    "b": [0, 3, 6, 7],
    "b is distinct from true": [1, 2, 4, 5],
}


@pytest.mark.parametrize("beside", ["nothing", "parquet"])
@pytest.mark.parametrize("predicate", PREDICATES)
def test_filters_mean_what_they_mean_to_duckdb(
    kernel: Kernel, predicate: str, beside: str, tmp_path: Path
) -> None:
    inputs = [FragmentInput("given", InputSource("given"), tuple(INPUT.column_names))]
    sql = f"SELECT given.id FROM given WHERE {predicate} ORDER BY id"
    if beside == "parquet":
        pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "p.parquet")
        source = ParquetSource("p", (str(tmp_path / "p.parquet"),))
        inputs.append(FragmentInput("p", source, ("x",)))
        sql = f"SELECT given.id FROM given, p WHERE p.x = 1 AND ({predicate}) ORDER BY id"
    fragment = Fragment(sql, tuple(inputs), Schema((Field("id", pa.int64()),)))
    answer = kernel.table(fragment, {"given": INPUT})
    assert answer["id"].to_pylist() == PREDICATES[predicate]


def as_key(value: Any) -> Any:
    return "nan" if value != value else value


@pytest.mark.parametrize(("columns", "most"), [(1, 1_000_000), (100, 90_000), (1_000, 8_192)])
def test_a_batch_of_many_columns_is_short(kernel: Kernel, columns: int, most: int) -> None:
    """DuckDB reserves all of a batch before it has a row."""
    names = [f"c{i}" for i in range(columns)]
    sql = f"SELECT {', '.join(f'i AS {n}' for n in names)} FROM range(4000) r(i)"
    schema = Schema(tuple(Field(n, pa.int64()) for n in names))
    batches = list(kernel.run(Fragment(sql, (), schema)))
    assert sum(b.num_rows for b in batches) == 4000
    assert max(b.num_rows for b in batches) <= most
