"""Operations on dates and timestamps, ``col("day").dt.year()``, and spans of time."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any, Literal

import pyarrow as pa
import pyarrow.types as pt

from operators import build
from operators import expr as ir
from operators.types import DATE, INTERVAL, TIMESTAMP
from remote_frame.core import as_expr, call
from remote_frame.errors import ExpressionError
from remote_frame.expressions import Expr
from remote_frame.namespaces import rule

__all__ = ["DateMethods", "span_of_time"]


class DateMethods:
    """`Expr.dt`."""

    __slots__ = ("_expr",)

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    def year(self) -> Expr:
        """The year."""
        return self._call("year")

    def quarter(self) -> Expr:
        """The quarter, from 1."""
        return self._call("quarter")

    def month(self) -> Expr:
        """The month, from 1."""
        return self._call("month")

    def week(self) -> Expr:
        """The week of the year by ISO 8601."""
        return self._call("week")

    def weekday(self) -> Expr:
        """The day of the week, Monday 1 to Sunday 7."""
        return self._call("iso_day_of_week", "weekday")

    def day(self) -> Expr:
        """The day of the month, from 1."""
        return self._call("day")

    def ordinal_day(self) -> Expr:
        """The day of the year, from 1."""
        return self._call("day_of_year", "ordinal_day")

    def hour(self) -> Expr:
        """The hour."""
        return self._call("hour")

    def minute(self) -> Expr:
        """The minute."""
        return self._call("minute")

    def second(self) -> Expr:
        """The second."""
        return self._call("second")

    def millisecond(self) -> Expr:
        """Milliseconds of the second."""
        return self._subsecond(1000, "millisecond")

    def microsecond(self) -> Expr:
        """Microseconds of the second."""
        return self._subsecond(1, "microsecond")

    def _subsecond(self, unit: int, shown: str) -> Expr:
        def make(x: ir.Expr) -> ir.Expr:
            part = build.call("modulo", build.call("microsecond", x), build.lit(1_000_000))
            return build.call("integer_divide", part, build.lit(unit))

        return self._rule([], make, shown)

    def epoch(self, time_unit: Literal["s", "ms", "us", "d"] = "us") -> Expr:
        """Seconds, milliseconds, microseconds or days since 1970, rounded down."""
        sizes = {"s": 1_000_000, "ms": 1000, "us": 1, "d": 86_400_000_000}
        if time_unit not in sizes:
            raise ExpressionError(f"epoch: time_unit={time_unit!r}; it is s, ms, us or d")
        size = build.lit(sizes[time_unit])

        def make(x: ir.Expr) -> ir.Expr:
            count = build.call("epoch_us", x)
            if time_unit == "us":
                return count
            # Integer division truncates; before 1970 that would be upwards.
            rest = build.call("modulo", count, size)
            down = build.case([(build.call("less", rest, build.lit(0)), size)], build.lit(0))
            floor = build.call("subtract", count, down)
            return build.cast(build.call("integer_divide", floor, size), pa.int64())

        return self._rule([], make, "epoch")

    timestamp = epoch

    def date(self) -> Expr:
        """The date of a timestamp."""
        return self._expr.cast(DATE)

    def month_start(self) -> Expr:
        """The first day of the month."""
        return self.truncate("1mo")

    def month_end(self) -> Expr:
        """The last day of the month, as a date."""
        return self._call("last_day", "month_end")

    def truncate(self, every: str) -> Expr:
        """The beginning of the span of time that the value lies in.

        Parameters
        ----------
        every
            A number and a unit: ``us``, ``ms``, ``s``, ``m``, ``h``, ``d``, ``w``, ``mo``, ``q``,
            ``y``. Spans are counted from 1970, weeks begin on Mondays.

        Examples
        --------
        >>> sales.select(col("day").dt.truncate("1mo")).head(1).collect().to_pydict()
        {'day': [datetime.date(2020, 1, 1)]}
        """
        parts = _duration(every, "truncate")
        if len(parts) != 1 or parts[0][0] < 1:
            raise ExpressionError(f"truncate: {every!r} is not one positive number and unit")
        ((count, unit),) = parts
        interval = build.lit(_interval(parts), INTERVAL)
        # The first Monday of 1970.
        origin = "1970-01-05" if unit == "w" else "1970-01-01"
        start = build.cast(build.lit(origin), TIMESTAMP)

        def make(x: ir.Expr) -> ir.Expr:
            if count == 1 and unit in _TRUNC:
                made = build.call("date_trunc", build.lit(_TRUNC[unit]), x)
            else:
                made = build.call("time_bucket", interval, build.cast(x, TIMESTAMP), start)
            return build.cast(made, DATE) if pt.is_date(x.type) else made

        return self._rule([], make, f"truncate({every})")

    def offset_by(self, by: str) -> Expr:
        """The value moved by spans of time, ``"1mo2d"``, ``"-1w"``; ends of months stay in theirs.

        Examples
        --------
        >>> sales.select(col("day").dt.offset_by("1mo")).head(1).collect().to_pydict()
        {'day': [datetime.date(2020, 2, 29)]}
        """
        interval = build.lit(_interval(_duration(by, "offset_by")), INTERVAL)

        def make(x: ir.Expr) -> ir.Expr:
            moved = build.call("add", x, interval)
            return build.cast(moved, DATE) if pt.is_date(x.type) else moved

        return self._rule([], make, f"offset_by({by})")

    def strftime(self, format: str) -> Expr:
        """The value as a string in a `format` of strftime.

        Examples
        --------
        >>> sales.select(col("day").dt.strftime("%d.%m.%y")).head(1).collect().to_pydict()
        {'day': ['31.01.20']}
        """
        return self._call("strftime", "strftime", format)

    to_string = strftime

    def _call(self, function: str, shown: str | None = None, *args: Any) -> Expr:
        listed = ", ".join(as_expr(a).text for a in args)
        return call(
            function, self._expr, *args, text=f"{self._expr.text}.dt.{shown or function}({listed})"
        )

    def _rule(self, args: list[Any], make: Callable[..., ir.Expr], shown: str) -> Expr:
        return rule(self._expr, args, make, f"dt.{shown}")


_TRUNC = {
    "us": "microseconds",
    "ms": "milliseconds",
    "s": "second",
    "m": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "mo": "month",
    "q": "quarter",
    "y": "year",
}
_UNITS: dict[str, tuple[int, int, int]] = {
    "ns": (0, 0, 1),
    "us": (0, 0, 1_000),
    "ms": (0, 0, 1_000_000),
    "s": (0, 0, 10**9),
    "m": (0, 0, 60 * 10**9),
    "h": (0, 0, 3600 * 10**9),
    "d": (0, 1, 0),
    "w": (0, 7, 0),
    "mo": (1, 0, 0),
    "q": (3, 0, 0),
    "y": (12, 0, 0),
}
"""Months, days and nanoseconds of each unit."""
_DURATION = re.compile(r"(\d+)(ns|us|ms|mo|s|m|h|d|w|q|y)")


def _duration(text: str, what: str) -> list[tuple[int, str]]:
    """Numbers and units of a span of time."""
    body, sign = (text[1:], -1) if text.startswith("-") else (text, 1)
    found = [(sign * int(n), unit) for n, unit in _DURATION.findall(body)]
    if not found or _DURATION.sub("", body):
        raise ExpressionError(
            f"{what}: {text!r} is not a span of time: write numbers and units, like 1mo2d or 15m"
        )
    return found


def span_of_time(value: str | datetime.timedelta, what: str) -> tuple[int, int, int]:
    """Months, days and nanoseconds of a span of time, written like ``1mo2d`` or a timedelta."""
    if isinstance(value, datetime.timedelta):
        return 0, value.days, (value.seconds * 1_000_000 + value.microseconds) * 1000
    if not isinstance(value, str):
        raise ExpressionError(f"{what}: {value!r} is not a span of time like '15m'")
    return _interval(_duration(value, what))


def _interval(parts: list[tuple[int, str]]) -> tuple[int, int, int]:
    months, days, nanoseconds = (
        sum(count * _UNITS[unit][i] for count, unit in parts) for i in range(3)
    )
    return months, days, nanoseconds
