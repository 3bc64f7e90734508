from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import remote_frame
from remote_frame.handle import load_handle
from remote_frame.statistics import frame_statistics


def written(transport: Any, start: int) -> Any:
    values = np.arange(start, start + 1000)
    table = pa.table(
        {
            "k": values,
            "few": values % 7,
            "money": pa.array([Decimal(int(v)) / 4 for v in values], pa.decimal64(12, 2)),
            "day": pa.array([dt.date(2000, 1, 1)] * 1000, pa.date32()),
            "at": pa.array([dt.datetime(2000, 1, 1)] * 1000, pa.timestamp("ms")),
            "s": pa.array(["abcd"] * 1000),
            "n": pa.array(values, mask=values % 4 == 0),
            "none": pa.array([None] * 1000, pa.int32()),
        }
    )
    return load_handle(remote_frame.exchange(table, transport, ["k"], 3))


def test_what_several_writers_wrote(fake: Any) -> None:
    transport = fake()
    handles = [written(transport, start) for start in (0, 1000, 2000)]
    stats = frame_statistics(handles)
    assert stats.rows == 3000
    k, few, money, day, at, s, n, none = stats.columns
    assert (k.min, k.max, k.null_fraction) == (0, 2999, 0)
    assert k.distinct == pytest.approx(3000, rel=0.3)
    assert few.distinct == pytest.approx(7, abs=1)
    assert (money.min, money.max) == (0, pytest.approx(749.75))
    days = (dt.date(2000, 1, 1) - dt.date(1970, 1, 1)).days
    assert day.min == day.max == days
    assert at.min == at.max == days * 86_400e6
    assert (s.min, s.width) == (None, 4)
    assert s.distinct == pytest.approx(1, abs=0.1)
    assert n.null_fraction == 0.25
    assert (none.min, none.max, none.null_fraction, none.distinct) == (None, None, 1.0, 0)
    one = frame_statistics([handles[0].partition(0)])
    assert one.rows == handles[0].partition(0).rows


def test_nothing_written_is_known_to_be_nothing(fake: Any) -> None:
    schema = pa.schema([("a", pa.int64()), ("s", pa.string())])
    handle = load_handle(remote_frame.write(schema.empty_table(), fake()))
    stats = frame_statistics([handle])
    assert stats.rows == 0
    assert [c.distinct for c in stats.columns] == [0, 0]
    assert [c.width for c in stats.columns] == [None, None]
