"""Operations on values of one kind: ``col("name").str.like("A%")``, ``col("day").dt.year()``."""

from __future__ import annotations

from remote_frame.errors import ExpressionError
from remote_frame.expressions import Expr, call

__all__ = ["DateMethods", "StringMethods"]


class StringMethods:
    """`Expr.str`."""

    __slots__ = ("_expr",)

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    def like(self, pattern: str) -> Expr:
        """SQL's LIKE: ``%`` stands for any text, ``_`` for one character."""
        return call("like", self._expr, pattern, text=f"{self._expr!r}.str.like({pattern!r})")

    def contains(self, text: str | Expr) -> Expr:
        """Whether `text` occurs, literally."""
        return call("contains", self._expr, text)

    def starts_with(self, prefix: str | Expr) -> Expr:
        """Whether the string begins with `prefix`."""
        return call("starts_with", self._expr, prefix)

    def ends_with(self, suffix: str | Expr) -> Expr:
        """Whether the string ends with `suffix`."""
        return call("ends_with", self._expr, suffix)

    def to_uppercase(self) -> Expr:
        """The string in capitals."""
        return call("upper", self._expr)

    def to_lowercase(self) -> Expr:
        """The string in small letters."""
        return call("lower", self._expr)

    def len_chars(self) -> Expr:
        """Number of characters."""
        return call("length", self._expr)

    def slice(self, offset: int, length: int | None = None) -> Expr:
        """`length` characters (or all) from character `offset` ≥ 0."""
        if offset < 0:
            raise ExpressionError(f"slice offset {offset}: it counts from 0")
        rest = () if length is None else (length,)
        return call("substring", self._expr, offset + 1, *rest)


class DateMethods:
    """`Expr.dt`."""

    __slots__ = ("_expr",)

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    def year(self) -> Expr:
        """The year."""
        return call("year", self._expr)

    def quarter(self) -> Expr:
        """The quarter, from 1."""
        return call("quarter", self._expr)

    def month(self) -> Expr:
        """The month, from 1."""
        return call("month", self._expr)

    def day(self) -> Expr:
        """The day of the month, from 1."""
        return call("day", self._expr)
