"""Rows that keys leave of what is in memory."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.in_memory import kept_batches
from operators.kernel import InMemory, KeySet

ENDS = {"int8": 2**7, "int16": 2**15, "int32": 2**31, "int64": 2**63}


def key_set(keys: set[int]) -> KeySet:
    low = min(keys)
    bits = np.zeros(max(keys) - low + 1, bool)
    bits[[k - low for k in keys]] = True
    return KeySet(low, np.packbits(bits, bitorder="little"))


def rows(batches: list[pa.RecordBatch]) -> Counter[tuple[object, ...]]:
    return Counter(tuple(r.values()) for b in batches for r in b.to_pylist())


@given(st.data())
def test_rows_with_keys_stay_and_most_others_go(data: st.DataObject) -> None:
    types = [data.draw(st.sampled_from(sorted(ENDS))) for _ in range(2)]
    near = st.integers(-100, 100)
    lists = [
        data.draw(
            st.lists(
                st.none() | near | st.integers(-ENDS[t], ENDS[t] - 1), min_size=30, max_size=30
            )
        )
        for t in types
    ]
    table = pa.table(
        {
            **{f"k{n}": pa.array(v, t) for n, (v, t) in enumerate(zip(lists, types, strict=True))},
            "s": [f"row {n}" for n in range(30)],
        }
    )
    # Batches that begin in the middle of their buffers.
    batches = [table.combine_chunks().to_batches()[0].slice(at, 10) for at in (0, 10, 20)]
    wanted = [data.draw(st.sets(near, min_size=1)) for _ in types]
    kept = list(enumerate(map(key_set, wanted)))
    found = rows(list(kept_batches(InMemory(table.schema, batches, (), kept), 2)))
    matching = rows(
        [
            b.filter(
                pa.array(
                    [x in wanted[0] and y in wanted[1] for x, y in zip(*lists_of(b), strict=True)]
                )
            )
            for b in batches
        ]
    )
    assert not matching - found
    assert not found - rows(batches)
    for batch in batches:
        # Of NULL it is not known whether it is a key.
        may_stay = sum(
            (x is None or x in wanted[0]) and (y is None or y in wanted[1])
            for x, y in zip(*lists_of(batch), strict=True)
        )
        if may_stay <= 0.8 * 10:
            assert (found & rows([batch])).total() <= may_stay


def lists_of(batch: pa.RecordBatch) -> tuple[list[int | None], list[int | None]]:
    return batch.column(0).to_pylist(), batch.column(1).to_pylist()


def test_without_keys_all_batches_stay_as_they_are() -> None:
    batch = pa.record_batch({"k": [1, 2, 3]})
    assert list(kept_batches(InMemory(batch.schema, [batch]))) == [batch]


@pytest.mark.parametrize("threads", [1, 2])
def test_more_rows_than_are_looked_at_together(threads: int) -> None:
    count = 300_000
    batch = pa.record_batch({"k": pa.array(np.arange(count) % 1000, pa.int32()), "n": range(count)})
    data = InMemory(batch.schema, [batch], (), [(0, key_set({7, 9}))])
    found = pa.Table.from_batches(kept_batches(data, threads), batch.schema)
    expected = [n for n in range(count) if n % 1000 in (7, 9)]
    assert found["n"].to_pylist() == expected, "in their order"
