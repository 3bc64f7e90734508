"""Batches as Polars makes them, and what becomes of failures."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import polars as pl
import pyarrow as pa
import pytest

from operators.errors import KernelError
from operators.polars import kernel
from operators.schema import Field, Schema

ONE = Schema((Field("a", pa.int64()),))
MANY = pl.LazyFrame({"a": range(1_000_000)})


def run(query: pl.LazyFrame) -> pa.RecordBatchReader:
    return kernel.run(lambda: query, {}, ONE)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "polars"]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert threads() == []


def test_all_rows_come_in_their_order() -> None:
    table = run(MANY).read_all()
    assert table["a"].to_pylist() == list(range(1_000_000))


def test_no_rows_are_an_answer() -> None:
    assert run(MANY.filter(pl.col("a") < 0)).read_all().num_rows == 0


def failing(message: str, after: int = 0) -> pl.LazyFrame:
    def look(batch: pl.DataFrame) -> pl.DataFrame:
        if batch["a"].max() >= after:
            raise pl.exceptions.ComputeError(message)
        return batch

    return MANY.map_batches(look, streamable=True)


def test_a_failure_is_no_end() -> None:
    with pytest.raises(KernelError, match="wrong with it"):
        run(failing("wrong with it")).read_all()


def test_what_polars_panics_over_is_no_answer_without_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sink(self: pl.LazyFrame, take: object, **options: object) -> None:
        assert callable(take)
        take(pl.DataFrame({"a": [1]}))
        raise pl.exceptions.PanicException("assertion failed")

    monkeypatch.setattr(pl.LazyFrame, "sink_batches", sink)
    reader = run(MANY)
    assert reader.read_next_batch().num_rows == 1
    with pytest.raises(KernelError, match="assertion failed"):
        reader.read_next_batch()


def test_who_leaves_early_ends_the_query() -> None:
    batches = kernel._collected(pl.concat([MANY] * 50))
    assert next(batches).height > 0
    assert threads() == ["polars"]
    batches.close()
    assert threads() == []
