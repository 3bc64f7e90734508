from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.distinct import REGISTERS, Distinct
from operators.partition import Partitioner
from operators.partitioning import Single


def sketch(values: np.ndarray) -> Distinct:
    table = pa.table({"v": values})
    work = Partitioner(table.schema, Single())
    for batch in table.to_batches(max_chunksize=50_000):
        work.add(batch)
    work.write(lambda size: memoryview(bytearray(size)))
    return work.distinct()[0]


@pytest.mark.parametrize("distinct", [1, 10, 300, 5000, 50_000])
def test_estimates_of_all_rows_and_of_samples(distinct: int) -> None:
    values = np.random.default_rng(1).integers(0, distinct, 50_000)
    true = len(np.unique(values))
    assert sketch(values).estimate(50_000) == pytest.approx(true, rel=0.3)
    values = np.random.default_rng(2).integers(0, distinct, 1_000_000)
    one = sketch(values)
    assert one.rows < 150_000  # A sample.
    assert one.estimate(1_000_000) == pytest.approx(len(np.unique(values)), rel=0.5)


def test_unique_keys_are_seen_to_be_many() -> None:
    assert sketch(np.arange(1_000_000)).estimate(1_000_000) > 200_000


def test_merging_is_the_sketch_of_both() -> None:
    a, b = np.arange(3000), np.arange(1500, 6000)
    merged = Distinct.merged([sketch(a), sketch(b)])
    assert merged == sketch(np.concatenate([a, b]))
    assert Distinct.merged([]).estimate(0) == 0
    assert merged.estimate(7500) == pytest.approx(6000, rel=0.3)


def test_nulls_are_not_counted() -> None:
    table = pa.table({"v": pa.array([1, None, None, 2])})
    work = Partitioner(table.schema, Single())
    work.add(table.to_batches()[0])
    work.write(lambda size: memoryview(bytearray(size)))
    (one,) = work.distinct()
    assert one.estimate(4, 2) == pytest.approx(2, abs=0.1)
    assert one.estimate(4, 4) == 0


@given(st.binary(min_size=REGISTERS, max_size=REGISTERS).map(lambda b: bytes(x % 58 for x in b)))
def test_text_round_trip(registers: bytes) -> None:
    one = Distinct(registers, 5)
    assert Distinct.from_text(one.to_text(), 5) == one
    assert len(one.to_text()) == REGISTERS


@pytest.mark.parametrize("text", ["", "A" * 127, "!" * 128])
def test_what_is_no_sketch(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        Distinct.from_text(text, 1)
