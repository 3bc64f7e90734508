"""What is known of expressions before they are written: constants, and what may raise."""

from __future__ import annotations

import contextlib
import datetime
import decimal as pydecimal
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.types as pt

from operators.expr import Call, Case, Cast, Column, Expr, InList, Lit
from operators.functions import COMPARISONS
from operators.types import as_decimal, canonical, is_hugeint, is_numeric

__all__ = [
    "CHOICES",
    "fold",
    "is_null",
    "may_raise",
    "natural_precision",
]

CHOICES = ("coalesce", "nullif", "greatest", "least")
"""Functions whose value is one of their arguments."""

_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MISSING = ("is_distinct_from", "is_not_distinct_from")
_EXACT = ("add", "subtract", "multiply")
# Functions that are NULL where an argument is, whatever the others would be.
_STRICT = frozenset((*COMPARISONS, *_EXACT, "divide")) - frozenset(_MISSING)
# Each level of an expression is folded: looking further would take the square of its depth.
_DEEP = 8
# Functions that raise for no value of their arguments; arithmetic is looked at more closely.
_TOTAL = frozenset(
    (
        *(*COMPARISONS, *CHOICES, "and", "or", "not", "is_null", "is_not_null"),
        *("divide", "round", "ceil", "floor", "isnan"),
        *("like", "starts_with", "ends_with", "contains", "substring", "left", "right", "length"),
        *("concat", "concat_operator", "year", "quarter", "month", "day"),
    )
)


def fold(expr: Expr) -> Expr:
    """`expr`, as a constant where it is the cast of one that changes no value, or always NULL."""
    if isinstance(expr, Call) and _always_null(expr, _DEEP):
        return Lit(canonical(expr.type), None)
    if not isinstance(expr, Cast) or expr.try_cast:
        return expr
    arg, type = fold(expr.arg), canonical(expr.type)
    if not isinstance(arg, Lit) or arg.value is None:
        return Lit(type, None) if isinstance(arg, Lit) else expr
    given = canonical(arg.type)
    if pt.is_integer(given) or pt.is_decimal(given):
        with pydecimal.localcontext(prec=80):
            value = pydecimal.Decimal(arg.value)
            if pt.is_integer(type) and value == int(value) and _fits(int(value), type):
                return Lit(type, int(value))
            if pt.is_decimal(type):
                scaled = value.scaleb(type.scale)
                if scaled == int(scaled) and abs(scaled) < 10**type.precision:
                    return Lit(type, value)
        if pt.is_float64(type) and pt.is_integer(given):
            return Lit(type, float(arg.value))
    if pt.is_string(given) and pt.is_date(type) and _ISO_DATE.fullmatch(arg.value):
        with contextlib.suppress(ValueError):  # DuckDB raises, or has years that Python has not
            return Lit(type, datetime.date.fromisoformat(arg.value))
    return expr


def _always_null(expr: Expr, levels: int) -> bool:
    """Whether a NULL constant in `expr` makes it NULL; one so many levels down is not looked for.

    DuckDB finds it at any depth, and does not compute what stands beside it, which may raise.
    """
    if levels and isinstance(expr, Call) and expr.function in _STRICT:
        return any(_always_null(arg, levels - 1) for arg in expr.args)
    if levels and isinstance(expr, Cast):
        return _always_null(expr.arg, levels - 1)
    return is_null(expr)


def _fits(value: int, type: pa.DataType) -> bool:
    signed = pt.is_signed_integer(type)
    bits = type.bit_width - signed
    return bool((-(1 << bits) if signed else 0) <= value < 1 << bits)


def is_null(expr: Expr) -> bool:
    """Whether `expr` is the constant NULL."""
    return isinstance(expr, Lit) and expr.value is None


def may_raise(expr: Expr) -> bool:
    """Whether `expr` may raise for some values (True when in doubt)."""
    match expr:
        case Column() | Lit():
            return False
        case Case() | InList():
            pass
        case Cast(arg=arg):
            given, wanted = canonical(arg.type), canonical(expr.type)
            if pt.is_decimal(wanted) and (pt.is_integer(given) or pt.is_decimal(given)):
                p, s = as_decimal(given)
                if wanted.precision - wanted.scale < p - s + (wanted.scale < s):
                    return True
            elif not (pt.is_float64(wanted) and is_numeric(given)) and not (
                pt.is_integer(given)
                and pt.is_signed_integer(given) == pt.is_signed_integer(wanted)
                and pt.is_integer(wanted)
                and given.bit_width <= wanted.bit_width
            ):
                return True
        case Call(function=name, args=args) if name in _EXACT:
            if not pt.is_floating(expr.type) and not (
                pt.is_decimal(expr.type)
                and not is_hugeint(expr.type)
                and natural_precision(name, args) <= expr.type.precision
            ):
                return True
        case Call(function=name) if name in _TOTAL:
            pass
        case _:
            return True
    return any(may_raise(c) for c in expr.children())


def natural_precision(function: str, args: Sequence[Expr]) -> int:
    """Digits that a decimal sum or product may need, before the IR caps them."""
    (p1, s1), (p2, s2) = (as_decimal(canonical(a.type)) for a in args)
    if function == "multiply":
        return p1 + p2
    return max(p1 - s1, p2 - s2) + max(s1, s2) + 1
