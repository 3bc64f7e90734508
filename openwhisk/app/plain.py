"""Plain JSON data: what may be a parameter, an annotation or an element's result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Deeper than any handle; well below Python's own limit, which a writer of JSON would hit.
MAX_DEPTH = 100


_Place = str | tuple["_Place", str | int]
"""What a value is part of, and its key there; written down only where something is wrong."""


class NotPlainError(ValueError):
    """A value is not plain JSON; the message names its place and type."""


def plain_json(value: Any, place: str) -> Any:
    """Return `value` as dicts with text keys, lists, text, finite numbers, booleans and ``None``.

    Tuples become lists, subclasses their base type. Nothing else is converted.

    Raises
    ------
    NotPlainError
        Naming the place of the first value that is not JSON, as in ``result['a'][3]``.
    """
    return _plain(value, place, 0)


def _plain(value: Any, place: _Place, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotPlainError(f"{_shown(place)} is {value}, which JSON cannot express")
        return float(value)
    if depth >= MAX_DEPTH:
        raise NotPlainError(
            f"{_shown(place)[:60]}… is nested more than {MAX_DEPTH} deep, or contains itself"
        )
    if isinstance(value, Mapping):
        plain: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotPlainError(f"{_shown(place)} has the key {key!r}; JSON needs text keys")
            _text(key, place, "a key of ")
            plain[key] = _plain(item, (place, key), depth + 1)
        return plain
    if isinstance(value, (list, tuple)):
        return [_plain(item, (place, i), depth + 1) for i, item in enumerate(value)]
    raise NotPlainError(f"{_shown(place)} is {describe(value)}, which is not JSON")


def _text(value: str, place: _Place, which: str = "") -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotPlainError(
            f"{which}{_shown(place)} is text with half a surrogate pair: not JSON"
        ) from None
    return str(value)


def _shown(place: _Place) -> str:
    return place if isinstance(place, str) else f"{_shown(place[0])}[{place[1]!r}]"


def describe(value: Any) -> str:
    """Return the kind of a value for messages: ``None``, ``str``, ``numpy.ndarray``."""
    if value is None:
        return "None"
    kind = type(value)
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"
