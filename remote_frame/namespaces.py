"""What the namespaces of an expression share, and the smallest of them, ``col("a").name``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from operators import expr as ir
from remote_frame.core import as_expr, derived, typed
from remote_frame.expressions import Expr

__all__ = ["NameMethods", "rule"]


class NameMethods:
    """`Expr.name`: the name of the result, changed."""

    __slots__ = ("_expr",)

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    def suffix(self, suffix: str) -> Expr:
        """The name with something behind it.

        Examples
        --------
        >>> sales.select(col("qty", "item").max().name.suffix("_max")).columns
        ['qty_max', 'item_max']
        """
        return self.map(lambda name: name + suffix)

    def prefix(self, prefix: str) -> Expr:
        """The name with something before it."""
        return self.map(lambda name: prefix + name)

    def map(self, function: Callable[[str], str]) -> Expr:
        """The name changed by a function."""
        return derived([self._expr], lambda e: e.alias(function(e.output_name)))

    def keep(self) -> Expr:
        """The name of the first column, whatever alias was given."""
        return derived([self._expr], lambda e: e.alias(e.root_name))

    def to_lowercase(self) -> Expr:
        """The name in small letters."""
        return self.map(str.lower)

    def to_uppercase(self) -> Expr:
        """The name in capitals."""
        return self.map(str.upper)


def rule(expr: Expr, args: list[Any], make: Callable[..., ir.Expr], shown: str) -> Expr:
    """`make` over the lowered expression and arguments, shown as a method of a namespace."""

    def one(*parts: Expr) -> Expr:
        listed = ", ".join(p.text for p in parts[1:])
        text = f"{parts[0].text}.{shown}"
        return typed(parts, make, text if text.endswith(")") else f"{text}({listed})")

    return derived([expr, *map(as_expr, args)], one)
