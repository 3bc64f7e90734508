"""Selectors: the columns of a frame that are of some kind.

A selector is an expression that stands for its columns, and a set: ``|``, ``&``, ``-`` and ``~``
with another selector make a selector. In the result columns stand as in the frame.

Examples
--------
>>> from remote_frame import selectors as cs
>>> sales.select(cs.numeric() - cs.by_name("price")).columns
['item', 'qty']
>>> sales.select(cs.integer().max().name.suffix("_max")).columns
['item_max', 'qty_max']
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from operators.schema import Schema
from operators.types import is_numeric, is_temporal
from remote_frame.core import as_type, flat
from remote_frame.errors import ExpressionError
from remote_frame.expressions import Expr, Several
from remote_frame.scopes import position

__all__ = [
    "Selector",
    "all",
    "binary",
    "boolean",
    "by_dtype",
    "by_name",
    "contains",
    "date",
    "datetime",
    "decimal",
    "ends_with",
    "first",
    "float",
    "integer",
    "last",
    "matches",
    "numeric",
    "starts_with",
    "string",
    "temporal",
]


class Selector(Several):
    """An expression that stands for the columns that `choose` names."""

    __slots__ = ("choose",)

    def __init__(self, choose: Callable[[Schema], list[str]], text: str) -> None:
        super().__init__(lambda schema: [Expr.column(n) for n in choose(schema)], text)
        self.choose = choose

    # Selectors are keys of mappings from columns to types.
    __hash__ = object.__hash__  # type: ignore[assignment]

    def exclude(self, *names: Any) -> Selector:
        """Without the columns of these names, patterns (``^…$``) or types."""
        gone = flat(names)

        def choose(schema: Schema) -> list[str]:
            mine = set(self.choose(schema))
            return [
                f.name
                for f in schema
                if f.name in mine and not any(_is(f.name, f.type, g) for g in gone)
            ]

        return Selector(choose, f"{self.text}.exclude({', '.join(map(repr, gone))})")

    def __or__(self, other: Any) -> Expr:
        if not isinstance(other, Selector):
            return super().__or__(other)
        return _merged(self, other, "|", lambda a, b: a | b)

    def __and__(self, other: Any) -> Expr:
        if not isinstance(other, Selector):
            return super().__and__(other)
        return _merged(self, other, "&", lambda a, b: a & b)

    def __sub__(self, other: Any) -> Expr:
        if not isinstance(other, Selector):
            return super().__sub__(other)
        return _merged(self, other, "-", lambda a, b: a - b)

    def __invert__(self) -> Selector:
        def choose(schema: Schema) -> list[str]:
            mine = set(self.choose(schema))
            return [n for n in schema.names if n not in mine]

        return Selector(choose, f"~{self.text}")


def _merged(
    left: Selector, right: Selector, sign: str, merge: Callable[[set[str], set[str]], set[str]]
) -> Selector:
    def choose(schema: Schema) -> list[str]:
        kept = merge(set(left.choose(schema)), set(right.choose(schema)))
        return [n for n in schema.names if n in kept]

    return Selector(choose, f"({left.text} {sign} {right.text})")


def _is(name: str, type: pa.DataType, wanted: Any) -> bool:
    if isinstance(wanted, pa.DataType):
        return bool(type == wanted)
    if not isinstance(wanted, str):
        raise ExpressionError(f"exclude() wants names or types, not {wanted!r}")
    if wanted.startswith("^") and wanted.endswith("$"):
        return re.match(wanted, name) is not None
    return name == wanted


def _of_type(test: Callable[[pa.DataType], bool], text: str) -> Selector:
    return Selector(lambda schema: [f.name for f in schema if test(f.type)], f"cs.{text}()")


def _of_name(test: Callable[[str], bool], text: str) -> Selector:
    return Selector(lambda schema: [n for n in schema.names if test(n)], f"cs.{text}")


def all() -> Selector:
    """All columns."""
    return _of_name(lambda name: True, "all()")


def numeric() -> Selector:
    """Integers, decimals and floats."""
    return _of_type(is_numeric, "numeric")


def integer() -> Selector:
    """Integers."""
    return _of_type(lambda t: bool(pt.is_integer(t)), "integer")


def float() -> Selector:
    """Floats."""
    return _of_type(lambda t: bool(pt.is_floating(t)), "float")


def decimal() -> Selector:
    """Decimals."""
    return _of_type(lambda t: bool(pt.is_decimal(t)), "decimal")


def string() -> Selector:
    """Strings."""
    return _of_type(lambda t: bool(pt.is_string(t)), "string")


def binary() -> Selector:
    """Bytes."""
    return _of_type(lambda t: bool(pt.is_binary(t)), "binary")


def boolean() -> Selector:
    """Booleans."""
    return _of_type(lambda t: bool(pt.is_boolean(t)), "boolean")


def temporal() -> Selector:
    """Dates, timestamps and times."""
    return _of_type(lambda t: is_temporal(t) or bool(pt.is_time(t)), "temporal")


def date() -> Selector:
    """Dates."""
    return _of_type(lambda t: bool(pt.is_date(t)), "date")


def datetime() -> Selector:
    """Timestamps."""
    return _of_type(lambda t: bool(pt.is_timestamp(t)), "datetime")


def by_dtype(*dtypes: Any) -> Selector:
    """Columns of these types.

    Examples
    --------
    >>> from remote_frame import selectors as cs
    >>> sales.select(cs.by_dtype("int32", "date32")).columns
    ['item', 'day']
    """
    wanted = [as_type(t) for t in flat(dtypes)]
    return _of_type(lambda t: t in wanted, f"by_dtype({', '.join(map(str, wanted))})")


def by_name(*names: Any) -> Selector:
    """Columns of these names, which must exist."""
    wanted = flat(names)

    def choose(schema: Schema) -> list[str]:
        for name in wanted:
            position(schema, name)
        return [n for n in schema.names if n in wanted]

    return Selector(choose, f"cs.by_name({', '.join(map(repr, wanted))})")


def matches(pattern: str) -> Selector:
    """Columns in whose names a regular expression occurs."""
    compiled = re.compile(pattern)
    return _of_name(lambda n: compiled.search(n) is not None, f"matches({pattern!r})")


def starts_with(*prefixes: str) -> Selector:
    """Columns whose names begin with one of these."""
    return _of_name(lambda n: n.startswith(prefixes), f"starts_with{prefixes!r}")


def ends_with(*suffixes: str) -> Selector:
    """Columns whose names end with one of these."""
    return _of_name(lambda n: n.endswith(suffixes), f"ends_with{suffixes!r}")


def contains(*texts: str) -> Selector:
    """Columns whose names contain one of these."""
    return _of_name(lambda n: any(t in n for t in texts), f"contains{texts!r}")


def first() -> Selector:
    """The first column."""
    return Selector(lambda schema: list(schema.names[:1]), "cs.first()")


def last() -> Selector:
    """The last column."""
    return Selector(lambda schema: list(schema.names[-1:]), "cs.last()")
