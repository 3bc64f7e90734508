"""Operations on strings: ``col("name").str.like("A%")``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from operators import build
from operators import expr as ir
from operators.types import DATE, STRING, TIMESTAMP
from remote_frame.core import aggregate, as_expr, as_order, as_type, call
from remote_frame.errors import ExpressionError
from remote_frame.expressions import Expr
from remote_frame.namespaces import rule

__all__ = ["StringMethods"]

_SPACE = " \t\n\r\f\v"
# A pattern without any of these is a plain text.
_SPECIAL = frozenset(r"\^$.|?*+()[]{}")


class StringMethods:
    """`Expr.str`."""

    __slots__ = ("_expr",)

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    # Search.

    def like(self, pattern: str) -> Expr:
        """SQL's LIKE: ``%`` stands for any text, ``_`` for one character."""
        return call("like", self._expr, pattern, text=f"{self._expr.text}.str.like({pattern!r})")

    def contains(self, pattern: str | Expr, *, literal: bool = False) -> Expr:
        """Whether a regular expression (or, if `literal`, a text) occurs.

        Examples
        --------
        >>> sales.select(col("store").str.contains("^[ab]$")).collect().to_pydict()
        {'store': [True, True, True, None, True]}
        """
        plain = literal or (isinstance(pattern, str) and not _SPECIAL & set(pattern))
        shown = f"{self._expr.text}.str.contains({as_expr(pattern).text})"
        return call("contains" if plain else "regexp_matches", self._expr, pattern, text=shown)

    def starts_with(self, prefix: str | Expr) -> Expr:
        """Whether the string begins with `prefix`."""
        return self._call("starts_with", prefix)

    def ends_with(self, suffix: str | Expr) -> Expr:
        """Whether the string ends with `suffix`."""
        return self._call("ends_with", suffix)

    def find(self, text: str | Expr) -> Expr:
        """At which character, from 0, a text occurs first; null if it does not."""
        return self._rule(
            [text],
            lambda x, t: build.call(
                "subtract",
                build.call("nullif", build.call("strpos", x, t), build.lit(0)),
                build.lit(1),
            ),
            "find",
        )

    def extract(self, pattern: str, group_index: int = 1) -> Expr:
        """The group of a regular expression in its first match; null if there is none.

        Examples
        --------
        >>> text = lit("order 66")
        >>> sales.select(text.str.extract("([0-9]+)").alias("n")).head(1).collect().to_pydict()
        {'n': ['66']}
        """
        return self._rule(
            [pattern],
            lambda x, p: build.case(
                [
                    (
                        build.call("regexp_matches", x, p),
                        build.call("regexp_extract", x, p, build.lit(group_index)),
                    )
                ]
            ),
            "extract",
        )

    # Change.

    def replace(self, pattern: str, value: str | Expr, *, literal: bool = False) -> Expr:
        """The first match of a regular expression (or a text) replaced.

        In `value` ``$1`` stands for the first group, ``$0`` for the whole match.
        """
        return self._replaced(pattern, value, literal, "replace", [])

    def replace_all(self, pattern: str, value: str | Expr, *, literal: bool = False) -> Expr:
        """All matches of a regular expression (or a text) replaced; see `replace`.

        Examples
        --------
        >>> text = lit("2020-01-31")
        >>> turned = text.str.replace_all("(..)-(..)$", "$2.$1").alias("t")
        >>> sales.select(turned).head(1).collect().to_pydict()
        {'t': ['2020-31.01']}
        """
        if literal:
            return call("replace", self._expr, pattern, value)
        return self._replaced(pattern, value, False, "replace_all", ["g"])

    def _replaced(
        self, pattern: str, value: str | Expr, literal: bool, shown: str, flags: list[str]
    ) -> Expr:
        if not isinstance(pattern, str):
            raise ExpressionError(f"{shown}: the pattern is a text, not {pattern!r}")
        if isinstance(value, str):
            # What means something in a replacement of DuckDB (RE2) is the backslash.
            value = value.replace("\\", "\\\\")
            if not literal:
                value = re.sub(r"\$\{?(\d)\}?", r"\\\1", value)
        elif literal:
            value = value.str.replace_all("\\", "\\\\", literal=True)
        found = _escaped(pattern) if literal else pattern
        text = f"{self._expr.text}.str.{shown}({pattern!r}, {as_expr(value).text})"
        return call("regexp_replace", self._expr, found, value, *flags, text=text)

    def to_uppercase(self) -> Expr:
        """The string in capitals."""
        return self._call("upper", shown="to_uppercase")

    def to_lowercase(self) -> Expr:
        """The string in small letters."""
        return self._call("lower", shown="to_lowercase")

    def strip_chars(self, characters: str | None = None) -> Expr:
        """Without certain characters (white space by default) at both ends."""
        return self._stripped("trim", characters, "strip_chars")

    def strip_chars_start(self, characters: str | None = None) -> Expr:
        """Without certain characters (white space by default) at the beginning."""
        return self._stripped("ltrim", characters, "strip_chars_start")

    def strip_chars_end(self, characters: str | None = None) -> Expr:
        """Without certain characters (white space by default) at the end."""
        return self._stripped("rtrim", characters, "strip_chars_end")

    def _stripped(self, function: str, characters: str | None, shown: str) -> Expr:
        return self._call(function, _SPACE if characters is None else characters, shown=shown)

    def strip_prefix(self, prefix: str) -> Expr:
        """Without `prefix`, where the string begins with it."""
        return self._rule(
            [prefix],
            lambda x, p: build.case(
                [
                    (
                        build.call("starts_with", x, p),
                        build.call("substring", x, build.lit(len(prefix) + 1)),
                    )
                ],
                x,
            ),
            "strip_prefix",
        )

    def strip_suffix(self, suffix: str) -> Expr:
        """Without `suffix`, where the string ends with it."""
        if not suffix:
            return self._expr
        return self._rule(
            [suffix],
            lambda x, s: build.case(
                [
                    (
                        build.call("ends_with", x, s),
                        build.call("left", x, build.lit(-len(suffix))),
                    )
                ],
                x,
            ),
            "strip_suffix",
        )

    def pad_start(self, length: int, fill_char: str = " ") -> Expr:
        """At least `length` characters, `fill_char` in front."""
        return self._padded("lpad", length, fill_char, "pad_start")

    def pad_end(self, length: int, fill_char: str = " ") -> Expr:
        """At least `length` characters, `fill_char` behind."""
        return self._padded("rpad", length, fill_char, "pad_end")

    def zfill(self, length: int) -> Expr:
        """At least `length` characters, zeros in front, but behind a sign.

        Examples
        --------
        >>> text = col("item").cast(str).str.zfill(3)
        >>> sales.select(text).collect().to_pydict()
        {'item': ['001', '001', '002', '003', None]}
        """

        def make(x: ir.Expr) -> ir.Expr:
            sign = build.call("left", x, build.lit(1))
            rest = build.call("substring", x, build.lit(2))
            signed = build.call("concat_operator", sign, _lengthened("lpad", rest, length - 1, "0"))
            test = build.in_list(sign, [build.lit("-"), build.lit("+")])
            return build.case([(test, signed)], _lengthened("lpad", x, length, "0"))

        return self._rule([], make, "zfill")

    def _padded(self, function: str, length: int, fill: str, shown: str) -> Expr:
        if len(fill) != 1:
            raise ExpressionError(f"{shown}: fill_char={fill!r} is not one character")
        return self._rule([], lambda x: _lengthened(function, x, length, fill), shown)

    def reverse(self) -> Expr:
        """The characters in reverse."""
        return self._call("reverse")

    # Parts.

    def slice(self, offset: int, length: int | None = None) -> Expr:
        """`length` characters (or all) from character `offset`, which counts from 0, or from the
        end if it is negative.

        Examples
        --------
        >>> sales.select(lit("abcde").str.slice(-3, 2).alias("s")).head(1).collect().to_pydict()
        {'s': ['cd']}
        """
        if length is not None and length < 0:
            raise ExpressionError(f"slice length {length}: it must not be negative")

        def make(x: ir.Expr) -> ir.Expr:
            if offset < 0 and length is not None:
                # What lies before the first character counts, too.
                short = build.call("subtract", build.call("length", x), build.lit(-offset))
                cut = build.call("add", build.call("least", short, build.lit(0)), build.lit(length))
                size = build.call("greatest", cut, build.lit(0))
                return build.call("left", build.call("right", x, build.lit(-offset)), size)
            if offset < 0:
                x = build.call("right", x, build.lit(-offset))
            elif offset > 0 or length is None:
                x = build.call("substring", x, build.lit(offset + 1))
            return x if length is None else build.call("left", x, build.lit(length))

        return self._rule([], make, "slice")

    def head(self, n: int = 5) -> Expr:
        """The first `n` characters; if it is negative, all but the last."""
        return self._call("left", n, shown="head")

    def tail(self, n: int = 5) -> Expr:
        """The last `n` characters; if it is negative, all but the first."""
        return self._call("right", n, shown="tail")

    def len_chars(self) -> Expr:
        """Number of characters."""
        return self._call("length", shown="len_chars")

    def len_bytes(self) -> Expr:
        """Number of bytes in UTF-8."""
        return self._call("byte_length", shown="len_bytes")

    # Other types.

    def to_date(self, format: str | None = None, *, strict: bool = True) -> Expr:
        """The date that the string says, in a `format` of strftime or else as ``2020-01-31``.

        Examples
        --------
        >>> day = lit("31/01/2020").str.to_date("%d/%m/%Y").alias("day")
        >>> sales.select(day).head(1).collect().to_pydict()
        {'day': [datetime.date(2020, 1, 31)]}
        """
        return self._parsed(DATE, format, strict, "to_date")

    def to_datetime(self, format: str | None = None, *, strict: bool = True) -> Expr:
        """The timestamp that the string says; see `to_date`."""
        return self._parsed(TIMESTAMP, format, strict, "to_datetime")

    def strptime(self, dtype: Any, format: str | None = None, *, strict: bool = True) -> Expr:
        """The date or timestamp that the string says; see `to_date`."""
        wanted = as_type(dtype)
        if wanted not in (DATE, TIMESTAMP):
            raise ExpressionError(f"strptime: {wanted} is neither a date nor a timestamp(us)")
        return self._parsed(wanted, format, strict, "strptime")

    def to_integer(self, *, strict: bool = True) -> Expr:
        """The integer that the string says."""
        return self._expr.cast("int64", strict=strict)

    def _parsed(self, type: pa.DataType, format: str | None, strict: bool, shown: str) -> Expr:
        if format is not None and re.search("(?<!%)(%%)*%[zZ]", format):
            raise ExpressionError(f"{shown}: {format!r}: plans have no time zones")

        def make(x: ir.Expr) -> ir.Expr:
            if format is None:
                return build.cast(x, type, try_cast=not strict)
            function = "strptime" if strict else "try_strptime"
            return build.cast(build.call(function, x, build.lit(format)), type)

        return self._rule([], make, shown)

    # Several rows.

    def join(self, delimiter: str = "-", *, order_by: Any = None) -> Expr:
        """An aggregate: the strings of all rows, one after the other.

        Examples
        --------
        >>> text = col("store").str.join("+", order_by="store")
        >>> sales.select(text).collect().to_pydict()
        {'store': ['a+a+a+b']}
        """
        order = () if order_by is None else as_order(order_by)
        return aggregate("string_agg", self._expr, delimiter, shown="join", order=order)

    def _call(self, function: str, *args: Any, shown: str | None = None) -> Expr:
        listed = ", ".join(as_expr(a).text for a in args)
        text = f"{self._expr.text}.str.{shown or function}({listed})"
        return call(function, self._expr, *args, text=text)

    def _rule(self, args: list[Any], make: Callable[..., ir.Expr], shown: str) -> Expr:
        return rule(self._expr, args, make, f"str.{shown}")


def _escaped(text: str) -> str:
    """`text` as a regular expression of RE2 that matches just it."""
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in text)


def _lengthened(function: str, x: ir.Expr, length: int, fill: str) -> ir.Expr:
    """Padding that never cuts."""
    short = build.call("less", build.call("length", x), build.lit(length))
    if x.type != STRING:
        raise ExpressionError(f"{x.type} is not a string")
    padded = build.call(function, x, build.lit(length), build.lit(fill))
    return build.case([(short, padded)], x)
