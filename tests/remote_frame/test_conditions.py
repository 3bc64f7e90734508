from __future__ import annotations

import datetime as dt
import operator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import remote_frame
from remote_frame import ColumnNotFoundError, Condition, ExpressionError, col, open_reader


class Direct:
    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def get_transport(self, name: str, type: str = "rdma", timeout: float | None = None) -> Any:
        return self.transport


TESTS = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats(),
    pa.float32(): st.floats(width=32),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.decimal64(15, 2): st.integers(-(10**6), 10**6).map(lambda i: Decimal(i).scaleb(-2)),
    pa.decimal128(38, 0): st.integers(-(2**90), 2**90).map(Decimal),
    pa.string(): st.text(max_size=12) | st.sampled_from(["", "a", "ab", "abcdefgh", "abcdefghi"]),
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[pa.Array, str, Any]:
    type = draw(st.sampled_from(list(VALUES)))
    values = draw(st.lists(st.none() | VALUES[type], min_size=1, max_size=5))
    known = [v for v in values if v is not None]
    value = draw(VALUES[type] | st.sampled_from(known) if known else VALUES[type])
    return pa.array(values, type), draw(st.sampled_from(list(TESTS))), value


def meets(test: str, value: Any, constant: Any) -> bool:
    if isinstance(value, str):
        value, constant = value.encode(), constant.encode()
    if isinstance(value, float) and (value != value or constant != constant):
        # As in DuckDB: NaN equals itself and is above everything.
        left, right = ((v != v, 0 if v != v else v) for v in (value, constant))
        return bool(TESTS[test](left, right))
    return bool(TESTS[test](value, constant))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cases())
def test_no_row_that_meets_a_condition_is_skipped(
    fake: Any, case: tuple[pa.Array, str, Any]
) -> None:
    column, test, value = case
    transport = fake()
    handle = remote_frame.write(pa.table({"v": column}), transport)
    expected = [v for v in column.to_pylist() if v is not None and meets(test, v, value)]
    reader = open_reader(handle, Direct(transport)).where([Condition("v", test, value)])  # type: ignore[arg-type]
    assert reader.table().num_rows in ((len(column),) if expected else (0, len(column)))
    listed = open_reader(handle, Direct(transport)).where([Condition("v", "in", [value])])
    if any(v is not None and meets("=", v, value) for v in column.to_pylist()):
        assert listed.table().num_rows == len(column)


@pytest.fixture
def two_parts(fake: Any) -> tuple[Any, list[Any]]:
    transport = fake()
    old, new, money = dt.date(2000, 1, 1), dt.date(2001, 1, 1), Decimal("1.50")
    parts: list[dict[str, list[Any]]] = [
        {"i": [1, 5], "d": [old, old], "m": [money, money], "s": ["ax", "b"]},
        {"i": [6, 9], "d": [new, new], "m": [None, None], "s": ["m", "zebra crossing"]},
    ]
    schema = pa.schema(
        [("i", pa.int32()), ("d", pa.date32()), ("m", pa.decimal32(7, 2)), ("s", pa.string())]
    )
    return transport, [remote_frame.write(pa.table(p, schema=schema), transport) for p in parts]


@pytest.mark.parametrize(
    ("condition", "first", "second"),
    [
        (("i", "=", 5), True, False),
        (("i", ">", 5), False, True),
        (("i", ">=", 5), True, True),
        (("i", "<", 6), True, False),
        (("i", "<=", 0), False, False),
        (("i", "in", [0, 7]), False, True),
        (("i", "in", []), False, False),
        (("i", "=", None), False, False),
        (("i", "=", "odd"), True, True),
        (("d", ">", dt.date(2000, 6, 1)), False, True),
        (("d", "<", dt.datetime(2000, 1, 1, 12)), True, False),
        (("m", "=", Decimal("1.5")), True, False),
        (("m", ">", 1.49), True, False),
        (("m", "is_null", None), False, True),
        (("m", "is_not_null", None), True, False),
        (("s", "=", "zebra crossroads"), False, True),
        (("s", "<", "m"), True, False),
        (("s", ">", "zz"), False, False),
        (("s", "=", 5), True, True),
    ],
)
def test_parts_are_skipped(
    two_parts: tuple[Any, list[Any]], condition: tuple[str, Any, Any], first: bool, second: bool
) -> None:
    transport, handles = two_parts
    before = transport.counters.reads
    reader = open_reader(handles, Direct(transport), ["i"]).where([Condition(*condition)])
    got = reader.table()["i"].to_pylist()
    assert got == [1, 5] * first + [6, 9] * second
    assert transport.counters.reads - before <= first + second


def test_frames_skip_parts_by_their_filters(two_parts: tuple[Any, list[Any]]) -> None:
    transport, handles = two_parts
    frame = remote_frame.open(handles, Direct(transport))
    before = transport.counters.bytes_read
    assert frame.filter(col("i") > 100).collect().num_rows == 0
    assert transport.counters.bytes_read == before
    picked = frame.filter((col("i") >= 6) & (col("d") < dt.date(2020, 1, 1))).select("i")
    assert picked.collect().to_pylist() == [{"i": 6}, {"i": 9}]
    assert transport.counters.reads == 1  # Of the second part only.
    # The same frame without a filter beside the filtered one.
    both = frame.filter(col("i") > 5).select("i").join(frame.select("i", "s"), on="i", how="inner")
    assert both.collect().num_rows == 2
    assert frame.collect().num_rows == 4


def test_conditions_that_make_no_sense(two_parts: tuple[Any, list[Any]]) -> None:
    transport, handles = two_parts
    with pytest.raises(ExpressionError, match="no operator"):
        Condition("i", "~", 1)  # type: ignore[arg-type]
    with pytest.raises(ColumnNotFoundError, match="'j'"):
        open_reader(handles, Direct(transport)).where([Condition("j", "=", 1)])
