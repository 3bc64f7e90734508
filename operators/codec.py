"""Plans as JSON-able dicts and back, exactly.

A relation that occurs twice (one object) is written once and stays shared. Every node is
``{"node": its class, field: value, …}``; types are written as text, literals by what their type
needs (decimals and dates as strings, floats in hexadecimal, bytes as hex).
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from operators import expr as expressions
from operators import rel as relations
from operators.errors import PlanError
from operators.rel import Rel
from operators.schema import Field, Schema

__all__ = ["plan_from_json", "plan_to_json", "type_from_text", "type_to_text"]

VERSION = 1

_NODES: Mapping[str, type] = {
    name: getattr(module, name)
    for module in (expressions, relations)
    for name in module.__all__
    if isinstance(getattr(module, name), type) and dataclasses.is_dataclass(getattr(module, name))
}
_SIMPLE = {
    str(t): t
    for t in (
        pa.null(),
        pa.bool_(),
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.uint8(),
        pa.uint16(),
        pa.uint32(),
        pa.uint64(),
        pa.float32(),
        pa.float64(),
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.date32(),
        pa.date64(),
        pa.month_day_nano_interval(),
        *(pa.timestamp(u) for u in ("s", "ms", "us", "ns")),
        *(pa.time64(u) for u in ("us", "ns")),
    )
}
_DECIMAL = re.compile(r"decimal(32|64|128)\((\d+), (\d+)\)")


def type_to_text(type: pa.DataType) -> str:
    """The text of a type, as Arrow prints it; `PlanError` if the IR does not have it."""
    text = str(type)
    if type_from_text(text) != type:
        raise PlanError(f"type {type} cannot be written")
    return text


def type_from_text(text: str) -> pa.DataType:
    """The type that `type_to_text` wrote."""
    if text in _SIMPLE:
        return _SIMPLE[text]
    if match := _DECIMAL.fullmatch(text):
        make = {"32": pa.decimal32, "64": pa.decimal64, "128": pa.decimal128}[match[1]]
        return make(int(match[2]), int(match[3]))
    raise PlanError(f"{text!r} is not a type")


def plan_to_json(plan: Rel) -> dict[str, Any]:
    """The plan as a dict of JSON's types."""
    encoder = _Encoder()
    root = encoder.value(plan)
    return {"version": VERSION, "relations": encoder.relations, "root": root}


def plan_from_json(data: Mapping[str, Any]) -> Rel:
    """The plan that `plan_to_json` wrote.

    Raises
    ------
    PlanError
        If `data` is not such a plan.
    """
    if not isinstance(data, Mapping) or data.get("version") != VERSION:
        raise PlanError("this is not a plan, or one of another version")
    try:
        decoder = _Decoder()
        for one in data["relations"]:
            decoder.relations.append(decoder.value(one))
        plan = decoder.value(data["root"])
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError, AttributeError) as error:
        raise PlanError(f"this is not a plan: {error!r}") from error
    if not isinstance(plan, Rel):
        raise PlanError("this is not a plan: its root is no relation")
    return plan


class _Encoder:
    """Relations go to a list, inputs first; elsewhere they are referred to by number."""

    def __init__(self) -> None:
        self.relations: list[Any] = []
        self._numbers: dict[int, int] = {}

    def value(self, value: Any) -> Any:
        if isinstance(value, Rel):
            if id(value) not in self._numbers:
                written = self._node(value)
                self._numbers[id(value)] = len(self.relations)
                self.relations.append(written)
            return {"relation": self._numbers[id(value)]}
        if isinstance(value, Schema):
            return {"schema": [[f.name, type_to_text(f.type), f.nullable] for f in value]}
        if isinstance(value, pa.DataType):
            return {"type": type_to_text(value)}
        if isinstance(value, expressions.Lit):
            return {"node": "Lit", "type": type_to_text(value.type), "value": _constant(value)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._node(value)
        if isinstance(value, tuple):
            return [self.value(v) for v in value]
        if value is None or isinstance(value, str | bool | int):
            return value
        raise PlanError(f"{value!r} cannot be written")

    def _node(self, value: Any) -> dict[str, Any]:
        """Fields by name, as the class declares them."""
        name = type(value).__name__
        if _NODES.get(name) is not type(value) or not dataclasses.is_dataclass(value):
            raise PlanError(f"{name} cannot be written")
        fields = {f.name: self.value(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"node": name, **fields}


class _Decoder:
    def __init__(self) -> None:
        self.relations: list[Rel] = []

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(self.value(v) for v in value)
        if not isinstance(value, dict):
            return value
        if "relation" in value:
            return self.relations[value["relation"]]
        if "schema" in value and "node" not in value:
            fields = (Field(n, type_from_text(t), nullable) for n, t, nullable in value["schema"])
            return Schema(tuple(fields))
        if "node" not in value:
            return type_from_text(value["type"])
        if value["node"] == "Lit":
            type = type_from_text(value["type"])
            return expressions.Lit(type, _constant_back(type, value["value"]))
        fields_ = {k: self.value(v) for k, v in value.items() if k != "node"}
        return _NODES[value["node"]](**fields_)


def _constant(lit: expressions.Lit) -> Any:
    match lit.value:
        case None | bool() | int() | str():
            return lit.value
        case float():
            return {"float": lit.value.hex()}
        case decimal.Decimal():
            return {"decimal": str(lit.value)}
        case bytes():
            return {"bytes": lit.value.hex()}
        case datetime.datetime():
            return {"datetime": lit.value.isoformat()}
        case datetime.date():
            return {"date": lit.value.isoformat()}
        case datetime.time():
            return {"time": lit.value.isoformat()}
    if lit.type == pa.month_day_nano_interval():
        return {"interval": [int(v) for v in lit.value]}
    raise PlanError(f"literal {lit.value!r} cannot be written")


def _constant_back(type: pa.DataType, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, text),) = value.items()
    match kind:
        case "float":
            return float.fromhex(text)
        case "decimal":
            return decimal.Decimal(text)
        case "bytes":
            return bytes.fromhex(text)
        case "datetime":
            return datetime.datetime.fromisoformat(text)
        case "date":
            return datetime.date.fromisoformat(text)
        case "time":
            return datetime.time.fromisoformat(text)
        case "interval":
            return tuple(text)
    raise PlanError(f"a literal of type {type} cannot be {kind!r}")
