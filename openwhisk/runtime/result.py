"""What may leave an element: small JSON, nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from openwhisk.errors import ElementError

# Deeper than any handle; well below Python's own limit, which a writer of JSON would hit.
MAX_DEPTH = 100


def check_result(result: Any, *, allow_array: bool = False) -> Any:
    """Return `result` as plain JSON data: dicts with text keys, lists, text, numbers, booleans,
    ``None``.

    Tuples become lists. Nothing else is converted: data belongs into memory elements, and an
    element that returns an array or a timestamp by mistake should hear of it here and not from its
    dependent.

    Raises
    ------
    ElementError
        Naming the place of the first value that is not JSON (``result['a'][3]``) and its type.
    """
    if not isinstance(result, Mapping) and not (allow_array and isinstance(result, (list, tuple))):
        wanted = "a dict or a list" if allow_array else "a dict"
        raise ElementError(f"main returned {_kind(result)}; it must return {wanted}")
    return _plain(result, "result", 0)


def _plain(value: Any, place: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ElementError(f"{place} is text with half a surrogate pair: not JSON") from None
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ElementError(f"{place} is {value}, which JSON cannot express")
        return float(value)
    if depth >= MAX_DEPTH:
        raise ElementError(
            f"{place[:60]}… is nested more than {MAX_DEPTH} deep, or contains itself"
        )
    if isinstance(value, Mapping):
        plain: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise ElementError(f"{place} has the key {key!r}; JSON needs text keys")
            plain[key] = _plain(item, f"{place}[{key!r}]", depth + 1)
        return plain
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise ElementError(
        f"{place} is {_kind(value)}, which is not JSON; return plain numbers, text, lists and "
        "dicts, and put data into a memory element"
    )


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    kind = type(value)
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"
