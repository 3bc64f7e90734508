"""Arrow in: what DuckDB pushes down must not change the answer. Arrow out: batches that fit."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from operators import build
from operators.duckdb import Fragment, FragmentInput, Kernel, lower
from operators.kernel import InMemory
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


class Ranged:
    """A table in memory of which the range of its first column is known."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def resident_batches(self, columns: Sequence[str]) -> InMemory:
        """The named columns."""
        chosen = self._table.select(columns)
        key = self._table.column(0).to_pylist()
        known = [(min(key), max(key)) if n == "k" else None for n in columns]
        return InMemory(chosen.schema, chosen.to_batches(), known)


def peak() -> int:
    """The most that this process held; what `getrusage` says begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def sparse_join() -> int:
    """Join 5,000 rows with keys up to 500,000; how many bytes more the process held at its peak."""
    names = [f"s{i}" for i in range(20)]
    few = pa.table(
        {
            "k": pa.array(range(0, 500_000, 100), pa.int32()),
            **{n: [f"{n} of {i}, and more of it" for i in range(5000)] for n in names},
        }
    )
    many = pa.table({"k": pa.array(range(0, 500_000, 4), pa.int32())})
    left = build.scan(InputSource("many"), canonical_schema(many.schema))
    right = build.scan(InputSource("few"), canonical_schema(few.schema))
    plan = build.join(left, right, "inner", on=[(0, 0)], build="right")
    before = peak()
    with Kernel.open(1, 1 << 28) as kernel:
        found = kernel.table(lower(plan), {"many": Ranged(many), "few": Ranged(few)})
    assert found.num_rows == 5000
    return peak() - before


def test_a_small_table_with_keys_far_apart_is_hashed_in_little_memory() -> None:
    """DuckDB would make an array of 500,000 strings for each of its columns: 160 MB."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(sparse_join).result() < 80 << 20


def test_null_differs_from_nothing_where_existence_is_a_value(kernel: Kernel) -> None:
    # DuckDB 1.5.5 answers true for (1, NULL) to `SELECT k, x, EXISTS (… r.k = s.k AND s.x <> r.y)`.
    rows = pa.table({"k": pa.array([1, 1, 2, None]), "x": pa.array([1, None, 5, 1])})
    other = pa.table({"k": pa.array([1, 1, 2, 2]), "y": pa.array([1, 2, 5, None])})
    left = build.scan(InputSource("rows"), rows.schema)
    right = build.scan(InputSource("other"), other.schema)
    both = Schema((*left.schema, *right.schema))
    for turned in (False, True):
        sides = [build.col(both, 1), build.col(both, 3)]
        differs = build.call("not_equal", *(sides[::-1] if turned else sides))
        plan = build.join(left, right, "mark", on=[(0, 0)], condition=differs)
        negated = build.project(plan, [build.call("not", build.col(plan.schema, 2))])
        found = kernel.table(lower(plan), {"rows": rows, "other": other})
        assert found.column(2).to_pylist() == [True, False, False, False]
        found = kernel.table(lower(negated), {"rows": rows, "other": other})
        assert found.column(0).to_pylist() == [False, True, True, True]
