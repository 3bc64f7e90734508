"""The IR's functions of strings, dates and rounding as Polars' methods."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow.types as pt

from operators.errors import UnsupportedPlan
from operators.expr import Call, Expr, Lit
from operators.function_types import literal_integer
from operators.polars.casts import HALF_AWAY, cast
from operators.polars.text import Strength, Text, quoted
from operators.polars.types import polars_type
from operators.types import FLOAT64, INTERVAL, STRING, canonical

if TYPE_CHECKING:
    from operators.polars.scalars import Scalars

__all__ = ["FUNCTIONS"]

Function = Callable[["Scalars", Call], Text]


def _method(method: str, *, exact: bool = True) -> Function:
    """A method of the only argument."""
    return lambda writer, call: writer.text(call.args[0]).then(method, exact=exact)


def _predicate(method: str, extra: str = "") -> Function:
    """A method of one string whose argument is another."""

    def write(writer: Scalars, call: Call) -> Text:
        part = writer.argument(writer.operand(call.args[1]))
        return writer.text(call.args[0]).then(f"{method}({part}{extra})")

    return write


# Strings


def _constant_text(expr: Expr, what: str) -> str:
    if isinstance(expr, Lit) and isinstance(expr.value, str):
        return expr.value
    raise UnsupportedPlan(f"{what} that is not a constant")


def _like(writer: Scalars, call: Call) -> Text:
    escape = _constant_text(call.args[2], "an escape") if len(call.args) == 3 else ""
    if len(escape) > 1:
        raise UnsupportedPlan("an escape of several characters")
    text = writer.text(call.args[0])
    parts = _pattern(_constant_text(call.args[1], "a pattern"), escape)
    literal = "".join(p for p in parts if p not in ("%", "_"))
    literal = literal.replace("\0", "")
    kinds = "".join(p if p in ("%", "_") else "a" for p in parts)
    if kinds in ("", "a"):
        return Text(f"{text.within(Strength.OR)} == {quoted(literal)}", Strength.COMPARE)
    if kinds == "a%":
        return text.then(f"str.starts_with({quoted(literal)})")
    if kinds == "%a":
        return text.then(f"str.ends_with({quoted(literal)})")
    if kinds == "%a%":
        return text.then(f"str.contains({quoted(literal)}, literal=True)")
    regex = "".join({"%": ".*", "_": "."}.get(p) or re.escape(p[1:]) for p in parts)
    return text.then(f"str.contains({quoted(f'(?s)^{regex}$')})")


def _pattern(pattern: str, escape: str) -> list[str]:
    """The pieces of a LIKE pattern: ``%``, ``_``, and texts with a NUL before them."""
    parts: list[str] = []
    rest = iter(pattern)
    for char in rest:
        if char == escape:
            char = next(rest, "")
            if char not in ("%", "_", escape) or not char:
                raise UnsupportedPlan("a pattern that escapes nothing special")
        elif char in "%_":
            if not (char == "%" and parts and parts[-1] == "%"):
                parts.append(char)
            continue
        if parts and parts[-1].startswith("\0"):
            parts[-1] += char
        else:
            parts.append("\0" + char)
    return parts


def _substring(writer: Scalars, call: Call) -> Text:
    start = literal_integer(call.args[1])
    length = literal_integer(call.args[2]) if len(call.args) == 3 else None
    if start is None or (len(call.args) == 3 and (length is None or length < 0)):
        raise UnsupportedPlan("a substring that does not begin and end at constants")
    text = writer.text(call.args[0])
    if start == 0 and length is not None:
        return text.then(f"str.slice(0, {max(length - 1, 0)})")
    offset = start - 1 if start > 0 else start
    return text.then(f"str.slice({offset})" if length is None else f"str.slice({offset}, {length})")


def _end(writer: Scalars, call: Call) -> Text:
    length = literal_integer(call.args[1])
    if length is None or length < 0:
        raise UnsupportedPlan(f"{call.function} of no constant length")
    method = "head" if call.function == "left" else "tail"
    return writer.text(call.args[0]).then(f"str.{method}({length})")


def _letters(writer: Scalars, call: Call) -> Text:
    """Beyond ASCII the two know different versions and kinds of Unicode's case mappings: there the
    cast, which no such string survives, raises.
    """
    text = writer.text(call.args[0]).tight
    method = "to_uppercase" if call.function == "upper" else "to_lowercase"
    return Text(
        f"pl.when({text}.str.len_bytes() == {text}.str.len_chars())"
        f".then({text}.str.{method}()).otherwise({text}.cast(pl.Int8).cast(pl.String))"
    )


def _concat(writer: Scalars, call: Call) -> Text:
    parts = []
    for arg in call.args:
        text = writer.exact(arg)
        if not pt.is_string(canonical(arg.type)):
            text = cast(text, arg.type, STRING)
        parts.append(text.code)
    return Text(f"pl.concat_str([{', '.join(parts)}], ignore_nulls=True)")


def _join(writer: Scalars, call: Call) -> Text:
    one, other = writer.beside(*call.args)
    return Text(f"{one.within(Strength.SUM)} + {other.within(Strength.PRODUCT)}", Strength.SUM)


# Numbers


def _round(writer: Scalars, call: Call) -> Text:
    text, type = writer.text(call.args[0]), canonical(call.args[0].type)
    places = literal_integer(call.args[1]) if len(call.args) == 2 else 0
    if places is None or places < 0:
        raise UnsupportedPlan("rounding to no constant number of places")
    if pt.is_integer(type):
        return text
    if pt.is_decimal(type):
        return text if places >= type.scale else cast(text, type, call.type)
    if pt.is_float64(type):
        return text.then(f"round({places}, {HALF_AWAY})")
    raise UnsupportedPlan(f"rounding of {type}")


def _whole(writer: Scalars, call: Call) -> Text:
    text, type = writer.text(call.args[0]), canonical(call.args[0].type)
    if pt.is_integer(type):
        return cast(text, type, FLOAT64)
    if pt.is_decimal(type) and type.scale:
        return text.then(f"{call.function}()").then(f"cast({polars_type(call.type)})")
    if pt.is_float64(type):
        return text.then(f"{call.function}()")
    raise UnsupportedPlan(f"{call.function} of {type}")


# Dates and timestamps

_UNITS = {
    "year": "1y",
    "quarter": "1q",
    "month": "1mo",
    "week": "1w",
    "day": "1d",
    "hour": "1h",
    "minute": "1m",
    "second": "1s",
}


def _date_trunc(writer: Scalars, call: Call) -> Text:
    unit = _constant_text(call.args[0], "a part")
    if unit not in _UNITS:
        raise UnsupportedPlan(f"date_trunc to {unit}")
    return _as_timestamp(writer, call.args[1]).then(f'dt.truncate("{_UNITS[unit]}")')


def _as_timestamp(writer: Scalars, expr: Expr) -> Text:
    text = writer.text(expr)
    return text.then('cast(pl.Datetime("us"))') if pt.is_date(expr.type) else text


def _date_diff(writer: Scalars, call: Call) -> Text:
    unit = _constant_text(call.args[0], "a part")
    if unit != "day" or not all(pt.is_date(a.type) for a in call.args[1:]):
        raise UnsupportedPlan(f"date_diff in {unit}")
    return _days(writer, call.args[2], call.args[1])


def _days(writer: Scalars, later: Expr, earlier: Expr) -> Text:
    one, other = writer.beside(later, earlier)
    return Text(f"({one.code} - {other.within(Strength.PRODUCT)}).dt.total_days()")


def _moved(writer: Scalars, call: Call) -> Text:
    """Dates and timestamps plus and minus something."""
    left, right = call.args
    if call.function == "subtract" and pt.is_date(left.type) and pt.is_date(right.type):
        return _days(writer, left, right)
    if not pt.is_temporal(left.type):
        left, right = right, left
    sign = -1 if call.function == "subtract" else 1
    days = literal_integer(right)
    if pt.is_date(left.type) and days is not None:
        return writer.text(left).then(f'dt.offset_by("{sign * days}d")')
    if pt.is_date(left.type) and pt.is_integer(right.type):
        other = writer.text(right).code
        operator = "-" if sign < 0 else "+"
        return Text(f"{writer.text(left).code} {operator} pl.duration(days={other})", Strength.SUM)
    movable = pt.is_date(left.type) or pt.is_timestamp(left.type)
    if movable and right.type == INTERVAL and isinstance(right, Lit) and right.value is not None:
        months, days, nanoseconds = (sign * part for part in right.value)
        text = _as_timestamp(writer, left)
        micros = nanoseconds // 1000 if nanoseconds >= 0 else -(-nanoseconds // 1000)
        for amount, unit in ((months, "mo"), (days, "d"), (micros, "us")):
            if amount:
                text = text.then(f'dt.offset_by("{amount}{unit}")')
        return text
    raise UnsupportedPlan(f"{call.function} of {left.type} and {right.type}")


def _part(method: str) -> Function:
    """A part of a date, which Polars gives as a narrower integer."""
    return _method(f"dt.{method}()", exact=False)


def _day_of_week(writer: Scalars, call: Call) -> Text:
    text = writer.text(call.args[0]).then("dt.weekday()")
    return Text(f"{text.code} % 7", Strength.PRODUCT, exact=False)


FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {
        "is_null": _method("is_null()"),
        "is_not_null": _method("is_not_null()"),
        "isnan": _method("is_nan()"),
        "like": _like,
        "starts_with": _predicate("str.starts_with"),
        "ends_with": _predicate("str.ends_with"),
        "contains": _predicate("str.contains", ", literal=True"),
        "substring": _substring,
        "left": _end,
        "right": _end,
        "upper": _letters,
        "lower": _letters,
        "length": _method("str.len_chars()", exact=False),
        "byte_length": _method("str.len_bytes()", exact=False),
        "concat": _concat,
        "concat_operator": _join,
        "round": _round,
        "ceil": _whole,
        "floor": _whole,
        "add": _moved,
        "subtract": _moved,
        "year": _part("year"),
        "quarter": _part("quarter"),
        "month": _part("month"),
        "week": _part("week"),
        "day": _part("day"),
        "day_of_week": _day_of_week,
        "iso_day_of_week": _part("weekday"),
        "day_of_year": _part("ordinal_day"),
        "hour": _part("hour"),
        "minute": _part("minute"),
        "second": _part("second"),
        "date_trunc": _date_trunc,
        "date_diff": _date_diff,
    }
)
"""Functions that need nothing but their arguments' texts."""
