"""What stages are expected to hold."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.optimizer import Estimates
from engine.policy import converted_need, decoding_need
from engine.stages import CutSettings, Stage, cut
from operators import build
from operators.rel import InputSource, ParquetSource
from operators.schema import Schema


def stage(source: ParquetSource | InputSource, schema: pa.Schema, columns: list[str]) -> Stage:
    rel = build.scan(source, Schema.from_arrow(schema), columns)
    (only,) = cut(rel, Estimates(), CutSettings(1)).stages
    return only


def test_decoding_holds_a_row_group_for_each_thread_and_one_ahead(tmp_path: Path) -> None:
    data = pa.table({"a": pa.array(range(1000), pa.int32()), "b": pa.array(range(1000))})
    pq.write_table(data, tmp_path / "t.parquet", row_group_size=400)
    source = ParquetSource("t", (str(tmp_path / "t.parquet"),))
    one = decoding_need(stage(source, data.schema, ["a"]), Estimates(), 1)
    assert 2 * 400 * 4 <= one <= 2 * 400 * 5
    assert decoding_need(stage(source, data.schema, ["a"]), Estimates(), 3) == 2 * one
    assert decoding_need(stage(source, data.schema, ["a", "b"]), Estimates(), 1) > 2 * one


def test_what_is_in_memory_is_not_decoded() -> None:
    schema = pa.schema({"a": pa.int32()})
    assert decoding_need(stage(InputSource("t"), schema, ["a"]), Estimates(), 2) == 0


def test_polars_copies_decimals_and_views_of_strings(tmp_path: Path) -> None:
    schema = pa.schema({"n": pa.int32(), "d": pa.decimal128(7, 2), "s": pa.string()})
    pq.write_table(schema.empty_table(), tmp_path / "none.parquet")
    data = pa.table({"n": range(1000), "d": [Decimal(1)] * 1000, "s": ["x"] * 1000}).cast(schema)
    pq.write_table(data, tmp_path / "t.parquet")
    source = ParquetSource("t", (str(tmp_path / "t.parquet"),))
    assert converted_need(stage(source, schema, ["n"]), Estimates()) == 0
    assert converted_need(stage(source, schema, ["n", "d"]), Estimates()) == 16_000
    assert converted_need(stage(source, schema, ["s", "d"]), Estimates()) == 32_000
    empty = ParquetSource("t", (str(tmp_path / "none.parquet"),))
    assert converted_need(stage(empty, schema, ["s"]), Estimates()) <= 16
