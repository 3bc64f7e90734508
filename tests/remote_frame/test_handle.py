from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from libd.ref import Ref
from operators.distinct import Distinct
from operators.part_columns import layout
from remote_frame import ExchangeHandle, FrameHandle, HandleError, partition
from remote_frame.handle import Part
from remote_frame.types import type_from_text, type_to_text

SCHEMA = pa.schema([pa.field("a", pa.int64(), nullable=False), ("s", pa.string())])


def frame(rows: int = 10) -> FrameHandle:
    whole = layout(SCHEMA.types, [0, 1]).size(rows, (0, 3), (9,))
    ref = Ref("m1", 1, 2, [(128, whole)])
    part = Part(ref, rows, (0, 3), (9,), (1, None), (7, "ab"))
    return FrameHandle.build(SCHEMA, [part], [Distinct(bytes(range(50)) + bytes(78), rows)] * 2)


def test_round_trip_through_json_text() -> None:
    handle = frame()
    data = json.loads(json.dumps(handle.to_json()))
    assert data == handle.to_json()
    assert FrameHandle.from_json(data) == handle
    assert FrameHandle.from_json(data).arrow_schema.equals(SCHEMA)
    assert handle.rows == 10
    exchange = ExchangeHandle.build(SCHEMA, [handle.parts, []], handle.sketches)
    assert ExchangeHandle.from_json(json.loads(json.dumps(exchange.to_json()))) == exchange
    assert exchange.partition(0) == handle
    assert exchange.partition(1).rows == 0
    assert exchange.whole() == handle
    assert (exchange.rows, exchange.nbytes) == (handle.rows, handle.nbytes)


def test_a_handle_is_small() -> None:
    one = len(json.dumps(frame().to_json()))
    assert one < 700
    parts = frame().parts * 1000
    many = len(json.dumps(FrameHandle.build(SCHEMA, parts).to_json()))
    assert many < 200 * 1000


def part(data: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = data["parts"][0]
    return first


BAD: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("version", lambda d: d.update(version=1), "version"),
    ("kind", lambda d: d.update(kind="array"), "kind"),
    ("no kind", lambda d: d.pop("kind"), "kind"),
    ("extra", lambda d: d.update(extra=1), "extra"),
    ("type", lambda d: d["schema"][0].__setitem__(1, "int65"), r"schema\[0\].*int65"),
    ("type number", lambda d: d["schema"][0].__setitem__(1, 5), r"schema\[0\]"),
    ("rows text", lambda d: part(d).update(rows="x"), r"parts\[0\].rows"),
    ("rows negative", lambda d: part(d).update(rows=-1), r"parts\[0\].rows"),
    ("no rows", lambda d: part(d).update(rows=0), r"parts\[0\].rows"),
    ("too many rows", lambda d: part(d).update(rows=100), "the part has 320 bytes"),
    ("short part", lambda d: part(d)["ref"]["extents"][0].__setitem__(1, 192), "its 10 rows need"),
    ("absurd rows", lambda d: part(d).update(rows=2**62), r"parts\[0\].rows"),
    ("no lengths", lambda d: part(d).pop("bytes"), r"parts\[0\].bytes"),
    ("negative length", lambda d: part(d).update(bytes=[-64]), r"parts\[0\].bytes"),
    ("sketch", lambda d: d["distinct"].__setitem__(1, "AB"), r"distinct\[1\]"),
    ("sketches", lambda d: d["distinct"].pop(), "1 entries for 2 columns"),
    ("nulls", lambda d: part(d).update(nulls=[0]), r"parts\[0\].nulls"),
    ("more nulls than rows", lambda d: part(d).update(nulls=[0, 11]), "11 nulls in 10 rows"),
    ("min", lambda d: part(d).update(min=[1]), r"parts\[0\].min"),
    ("extent", lambda d: part(d)["ref"]["extents"].pop(), "0 extents"),
    ("negative extent", lambda d: part(d)["ref"]["extents"][0].__setitem__(0, -1), "ref"),
    ("no epoch", lambda d: part(d)["ref"].pop("epoch"), "epoch"),
    ("epoch too large", lambda d: part(d)["ref"].update(epoch=2**60), "ref"),
    ("element", lambda d: part(d)["ref"].update(element=""), "element"),
    ("element number", lambda d: part(d)["ref"].update(element=3), "element"),
]


@pytest.mark.parametrize(("damage", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_damage_is_named(damage: Callable[[dict[str, Any]], Any], message: str) -> None:
    data = copy.deepcopy(frame().to_json())
    damage(data)
    with pytest.raises(HandleError, match=message):
        FrameHandle.from_json(data)


@pytest.mark.parametrize("data", [None, 5, "x", [], {}])
def test_what_is_no_handle_at_all(data: Any) -> None:
    with pytest.raises(HandleError):
        FrameHandle.from_json(data)


def test_kinds_are_not_confused() -> None:
    exchange = ExchangeHandle.build(SCHEMA, [frame().parts]).to_json()
    with pytest.raises(HandleError, match="partition"):
        FrameHandle.from_json(exchange)
    with pytest.raises(HandleError, match="not of an exchange"):
        ExchangeHandle.from_json(frame().to_json())
    with pytest.raises(HandleError, match="not an exchange"):
        partition([frame().to_json()], 0)
    with pytest.raises(HandleError, match="no partition 1"):
        partition([exchange], 1)
    with pytest.raises(HandleError, match="at least one"):
        ExchangeHandle.build(SCHEMA, [])
    other = pa.schema([("b", pa.int8())])
    with pytest.raises(HandleError, match=r"partitions\[1\]\[0\].nulls"):
        ExchangeHandle.build(other, [[], frame().parts])


TYPES = [
    pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(),
    pa.uint32(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.date32(), pa.date64(),
    pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.binary(16),
    pa.decimal32(7, 2), pa.decimal64(12, 0), pa.decimal128(38, 10), pa.decimal256(60, 2),
    pa.decimal128(5, -2), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"),
    pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("ns", "Europe/Berlin"),
    pa.timestamp("ms", "+02:00"), pa.duration("us"), pa.month_day_nano_interval(),
]  # fmt: skip


@pytest.mark.parametrize("type", TYPES, ids=str)
def test_type_text_round_trip(type: pa.DataType) -> None:
    assert type_from_text(type_to_text(type)) == type


@pytest.mark.parametrize(
    "type", [pa.list_(pa.int8()), pa.struct([]), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_types_without_a_layout_have_no_text(type: pa.DataType) -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        type_to_text(type)


@pytest.mark.parametrize(
    "text",
    ["", "int", "decimal32", "decimal32(7)", "decimal32(12,2)", "decimal64(a,b)", "timestamp(xs)",
     "timestamp", "fixed_binary(0)", "fixed_binary(-1)", "string(3)", "int32 ", "list(int8)"],
)  # fmt: skip
def test_bad_type_text(text: str) -> None:
    with pytest.raises(ValueError, match="not a column type"):
        type_from_text(text)
