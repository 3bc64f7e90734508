"""The shape of a plan: what it does, whatever its constants are."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pyarrow as pa

from operators.expr import Lit
from operators.rel import InputSource, ParquetSource, Rel
from operators.schema import Schema

__all__ = ["shape"]


def shape(plan: Rel) -> str:
    """A digest that plans have in common which differ only in constants.

    Tables count with their files, so that the same query over other data has another shape; names
    of columns do not count. A relation that occurs several times is looked at once.
    """
    known: dict[int, tuple[object, str]] = {}

    def digest(value: Any) -> str:
        found = known.get(id(value))
        if found is not None:
            return found[1]
        text = _describe(value, digest)
        result = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        # The value is kept, so that nothing else can have its identity meanwhile.
        known[id(value)] = (value, result)
        return result

    return digest(plan)


def _describe(value: Any, digest: Any) -> str:
    match value:
        case Lit(type=kind):
            return f"constant {kind}"
        case ParquetSource(paths=paths):
            return f"files {paths!r}"
        case InputSource(name=name):
            return f"input {name!r}"
        case Schema():
            return ",".join(str(f.type) for f in value.fields)
        case tuple():
            return "(" + ",".join(map(digest, value)) + ")"
        case pa.DataType():
            return str(value)
    if dataclasses.is_dataclass(value):
        parts = (digest(getattr(value, f.name)) for f in dataclasses.fields(value))
        return f"{type(value).__name__}({','.join(parts)})"
    return repr(value)
