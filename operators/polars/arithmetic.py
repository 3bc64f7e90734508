"""Arithmetic of the IR as Polars' operators.

- Integers that overflow raise: they are computed in a wider type and cast back, strictly.
- Decimals are multiplied at the scale of the product; Polars would round to an operand's.
- ``//`` and ``%`` truncate toward zero; Polars' go toward minus infinity.
- By a divisor that is the same in all rows Polars does not divide: it multiplies with the rounded
  reciprocal. So no divisor is such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import UnsupportedPlan
from operators.expr import Call, Cast, Expr, Lit
from operators.function_types import literal_integer
from operators.polars.casts import cast
from operators.polars.folding import fold, natural_precision
from operators.polars.text import Strength, Text
from operators.polars.types import literal, polars_type, value_text
from operators.types import FLOAT64, HUGEINT, as_decimal, canonical, decimal

if TYPE_CHECKING:
    from operators.polars.scalars import Scalars

__all__ = ["ARITHMETIC", "fitted", "floats"]

_SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}
_BITWISE = {
    "bitwise_and": ("&", Strength.AND),
    "bitwise_or": ("|", Strength.OR),
    "bitwise_xor": ("^", Strength.XOR),
}


def _arithmetic(writer: Scalars, call: Call) -> Text:
    sign = _SIGNS[call.function]
    type = canonical(call.type)
    left, right = call.args
    if pt.is_floating(type):
        return _infix(sign, *floats(writer, left, right, type))
    if pt.is_integer(type):
        wide = "pl.Int64" if type.bit_width < 64 and _narrow(left, right) else "pl.Int128"
        one, other = writer.beside(left, right)
        if one.bare:
            other = other.then(f"cast({wide})")
        else:
            one = one.then(f"cast({wide})")
        done = _infix(sign, one, other)
        return done.then(f"cast({polars_type(type)})")
    one, other = writer.beside(left, right)
    if not any(pt.is_decimal(e.type) and not t.bare for e, t in ((left, one), (right, other))):
        # Nothing here makes Polars compute with decimals, which do not wrap around.
        if one.bare:
            other = cast(other, right.type, HUGEINT)
        else:
            one = cast(one, left.type, HUGEINT)
    if sign == "*":
        one, other = _at_the_products_scale(call, one, other)
    else:
        one, other = fitted(one, left, type), fitted(other, right, type)
    done = _infix(sign, one, other)
    natural = natural_precision(call.function, call.args)
    if natural <= type.precision or type.precision == 38:
        return Text(done.code, done.strength, exact=type.precision == 38)
    return done.then(f"cast({polars_type(type)})")


def _infix(sign: str, one: Text, other: Text) -> Text:
    strength = Strength.PRODUCT if sign in "*/" else Strength.SUM
    after = Strength(strength + 1)
    return Text(f"{one.within(strength)} {sign} {other.within(after)}", strength)


def floats(writer: Scalars, left: Expr, right: Expr, type: pa.DataType) -> tuple[Text, Text]:
    """Operands as the floating-point `type`, one of them an expression."""
    one, other = _float(writer, left, type), _float(writer, right, type)
    return (Text(f"pl.lit({one.code})") if one.bare and other.bare else one), other


def _float(writer: Scalars, expr: Expr, type: pa.DataType) -> Text:
    """`expr` as the floating-point `type`."""
    expr = fold(expr)
    if isinstance(expr, Lit) and expr.value is not None:
        if not pt.is_float64(type):
            return literal(Lit(type, float(expr.value)))
        return value_text(Lit(type, float(expr.value)))
    if canonical(expr.type) == type:
        return writer.text(expr)
    return cast(writer.text(expr), expr.type, type)


def _divide(writer: Scalars, call: Call) -> Text:
    left, right = call.args
    if canonical(call.type) != FLOAT64:
        raise UnsupportedPlan("a division of 32-bit floats")
    if all(pt.is_integer(a.type) for a in (left, right)):
        one, other = writer.beside(left, right)  # Polars' own `/` makes doubles of these
    else:
        one, other = floats(writer, left, right, FLOAT64)
    if writer.may_be_constant(right) and not one.bare:
        # By what is the same in all rows, Polars multiplies with its rounded reciprocal.
        same = other.within(Strength.UNARY)
        other = Text(f"{one.tight}.is_not_null() * {same}", Strength.PRODUCT)
    return _infix("/", one, other)


def _whole_division(writer: Scalars, call: Call) -> Text:
    """DuckDB truncates: both are taken of magnitudes, and the sign is put back."""
    type = canonical(call.type)
    left, right = call.args
    if not pt.is_integer(type):
        raise UnsupportedPlan(f"{call.function} of {type}")
    wide = "pl.Int64" if type.bit_width < 64 and _narrow(left, right) else "pl.Int128"
    one = writer.text(left).then(f"cast({wide})")
    divisor = literal_integer(fold(right))
    if divisor is not None and divisor != 0:
        other, falls = str(abs(divisor)), "<" if divisor > 0 else ">="
        negative = f"{one.code} {falls} 0"
    else:
        text = writer.text(right).then(f"cast({wide})")
        other = f"{text.code}.abs()"
        negative = f"({one.code} < 0) != ({text.code} < 0)"
    if call.function == "modulo":
        negative = f"{one.code} < 0"
    sign = "//" if call.function == "integer_divide" else "%"
    size = f"{one.code}.abs() {sign} {other}"
    below = _negative(Text(size, Strength.PRODUCT), wide).code
    text = Text(f"pl.when({negative}).then({below}).otherwise({size})")
    return text.then(f"cast({polars_type(type)})")


def _signed(writer: Scalars, call: Call) -> Text:
    (arg,) = call.args
    type = canonical(call.type)
    text = writer.text(arg)
    if pt.is_unsigned_integer(type):
        raise UnsupportedPlan(f"{call.function} of {type}")
    wide = None
    if pt.is_integer(type):
        wide = "pl.Int64" if type.bit_width < 64 else "pl.Int128"
        text = text.then(f"cast({wide})")
    if call.function == "abs":
        done = text.then("abs()", exact=text.exact)
    else:
        done = _negative(text, wide)
    return done.then(f"cast({polars_type(type)})") if wide else done


def _bitwise(writer: Scalars, call: Call) -> Text:
    sign, strength = _BITWISE[call.function]
    type = canonical(call.type)
    if not pt.is_integer(type):
        raise UnsupportedPlan(f"{call.function} of {type}")
    texts = writer.beside(*call.args)
    one, other = (
        t if t.bare else _as_integer(writer, a, type) for t, a in zip(texts, call.args, strict=True)
    )
    after = Strength(strength + 1)
    return Text(f"{one.within(strength)} {sign} {other.within(after)}", strength)


def _shift(writer: Scalars, call: Call) -> Text:
    type = canonical(call.type)
    places = literal_integer(fold(call.args[1]))
    if call.function == "shift_left" or places is None or not pt.is_signed_integer(type):
        raise UnsupportedPlan(call.function)
    if not 0 <= places < type.bit_width - 1:
        raise UnsupportedPlan("a shift by more bits than there are")
    text = _as_integer(writer, call.args[0], type)
    return Text(f"{text.within(Strength.PRODUCT)} // {1 << places}", Strength.PRODUCT)


def _as_integer(writer: Scalars, expr: Expr, type: pa.DataType) -> Text:
    given = canonical(expr.type)
    return writer.exact(expr) if given == type else cast(writer.text(expr), given, type)


def _narrow(*exprs: Expr) -> bool:
    """Whether 64 bits hold any sum and product of two of these."""
    return all(pt.is_integer(e.type) and e.type.bit_width <= 32 for e in exprs)


def _negative(text: Text, wide: str | None) -> Text:
    """The negated text; Polars negates no `pl.Int128`."""
    if wide == "pl.Int128":
        return Text(f"0 - {text.within(Strength.PRODUCT)}", Strength.SUM)
    return Text(f"-{text.tight}", Strength.UNARY, exact=text.exact)


def fitted(text: Text, expr: Expr, common: pa.DataType) -> Text:
    """An operand as the decimal `common` in which DuckDB adds and compares, where that may lose
    places or raise; anywhere else its value is the same without.
    """
    (p, s), (wide, scale) = as_decimal(canonical(expr.type)), as_decimal(common)
    if s <= scale and p - s <= wide - scale:
        return text
    if not isinstance(constant := fold(expr), Lit):
        return cast(text, expr.type, common)
    if constant.value is not None and not isinstance(fold(Cast(common, constant)), Lit):
        raise UnsupportedPlan(f"the constant {constant.value} as {common}")
    return text


def _at_the_products_scale(call: Call, one: Text, other: Text) -> tuple[Text, Text]:
    """Operands of a decimal product of which one has all its places."""
    (p1, s1), (p2, s2) = (as_decimal(canonical(a.type)) for a in call.args)
    if not s1 or not s2:
        return one, other
    left, right = map(fold, call.args)
    if p1 + s2 <= 38 and (isinstance(left, Lit) or not isinstance(right, Lit)):
        return _scaled(left, one, s1 + s2), other
    if p2 + s1 <= 38:
        return one, _scaled(right, other, s1 + s2)
    raise UnsupportedPlan(f"a product of {call.args[0].type} and {call.args[1].type}")


def _scaled(expr: Expr, text: Text, scale: int) -> Text:
    """A decimal with `scale` places."""
    type = decimal(38, scale)
    if text.bare and isinstance(expr, Lit):
        return value_text(Lit(type, expr.value))
    return text.then(f"cast({polars_type(type)})")


ARITHMETIC: Mapping[str, Callable[[Scalars, Call], Text]] = MappingProxyType(
    {
        **dict.fromkeys(_SIGNS, _arithmetic),
        "divide": _divide,
        "integer_divide": _whole_division,
        "modulo": _whole_division,
        "negate": _signed,
        "abs": _signed,
        **dict.fromkeys(_BITWISE, _bitwise),
        "shift_left": _shift,
        "shift_right": _shift,
    }
)
"""Functions of numbers that are numbers."""
