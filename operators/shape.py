"""The shape of a plan: what it does, whatever its constants are."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import pyarrow as pa

from operators.expr import Column, Expr, Lit
from operators.rel import InputSource, ParquetSource, Query, Rel, Scan, Values
from operators.schema import Schema

__all__ = ["shape"]


def shape(plan: Rel) -> str:
    """A digest that plans have in common which differ only in constants.

    Tables count with their files, so that the same query over other data has another shape; names
    of columns do not count. A relation that occurs several times is looked at once.
    """
    known: dict[int, str] = {}

    def digest(rel: Rel) -> str:
        found = known.get(id(rel))
        if found is None:
            text = _fields_text(rel, digest)
            found = known[id(rel)] = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        return found

    return digest(plan)


def _text(value: Any, digest: Callable[[Rel], str]) -> str:
    kind = type(value)
    # Most of a plan, first.
    if kind is Column:
        return f"Column({_type_text(value.type)},{value.index!r})"
    if kind is tuple:
        return f"({','.join([_text(v, digest) for v in value])})"
    if kind is str or kind is int or kind is bool or value is None:
        return repr(value)
    if kind is Lit:
        return f"constant {_type_text(value.type)}"
    if isinstance(value, Rel):
        return digest(value)
    if isinstance(value, Expr):
        return _fields_text(value, digest)
    match value:
        case pa.DataType():
            return _type_text(value)
        case ParquetSource(paths=paths):
            return f"files {paths!r}"
        case InputSource(name=name):
            return f"input {name!r}"
        case Schema():
            return ",".join([_type_text(f.type) for f in value.fields])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields_text(value, digest)
    return repr(value)


def _fields_text(value: Any, digest: Callable[[Rel], str]) -> str:
    kind: Any = type(value)
    parts = [_text(getattr(value, name), digest) for name in _fields_of(kind)]
    return f"{kind.__name__}({','.join(parts)})"


@cache
def _fields_of(kind: Any) -> tuple[str, ...]:
    """Names of the fields of a class that count. Types of a relation's columns follow from its
    inputs and expressions, but for those that have neither.
    """
    names = tuple(f.name for f in dataclasses.fields(kind))
    if kind is Scan:
        return tuple(n for n in names if n != "source_schema")
    if issubclass(kind, Rel) and kind not in (Values, Query):
        return tuple(n for n in names if n != "schema")
    return names


@lru_cache(maxsize=512)
def _type_text(type: pa.DataType) -> str:
    return str(type)
