"""Scalar IR expressions as text of Polars expressions.

What DuckDB does and Polars would not, and how it is said here:

- Integers that overflow raise: they are computed in a wider type and cast back, strictly.
- Decimals are multiplied at the scale of the product (Polars would round to an operand's), and
  rounded half away from zero before a cast takes places off.
- ``//`` and ``%`` truncate toward zero; Polars' go toward minus infinity.
- ``IN`` with a NULL among its options is NULL where it finds nothing.

A CASE computes a branch only for the rows that take it, in Polars as in DuckDB; but what two
branches have in common may be computed once for all rows (``comm_subexpr_elim``), and then raise
where DuckDB does not.
"""

from __future__ import annotations

import datetime
import decimal as pydecimal
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import UnsupportedPlan
from operators.expr import Call, Case, Cast, Column, Expr, InList, Lit
from operators.functions import literal_integer
from operators.polars.casts import cast
from operators.polars.functions import FUNCTIONS
from operators.polars.text import Strength, Text, quoted
from operators.polars.types import literal, polars_type, value_text
from operators.types import (
    FLOAT64,
    HUGEINT,
    as_decimal,
    canonical,
    common_type,
    decimal,
    is_hugeint,
    is_numeric,
)

__all__ = ["Scalars", "may_raise"]

_COMPARISONS = {
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
_CHOICES = ("coalesce", "nullif", "greatest", "least")
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ARITHMETIC = {"add": "+", "subtract": "-", "multiply": "*"}
_BITWISE = {
    "bitwise_and": ("&", Strength.AND),
    "bitwise_or": ("|", Strength.OR),
    "bitwise_xor": ("^", Strength.XOR),
}
# Functions that are NULL where an argument is, whatever the others would be.
_STRICT = frozenset((*_COMPARISONS, *_ARITHMETIC, "divide"))
# Functions that raise for no value of their arguments; arithmetic is looked at more closely.
_TOTAL = frozenset(
    (
        *_COMPARISONS,
        *("is_distinct_from", "is_not_distinct_from", "and", "or", "not", "is_null", "is_not_null"),
        *("coalesce", "nullif", "greatest", "least", "divide", "round", "ceil", "floor", "isnan"),
        *("like", "starts_with", "ends_with", "contains", "substring", "left", "right", "length"),
        *("concat", "concat_operator", "year", "quarter", "month", "day"),
    )
)


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
        case Call(function=name, args=args) if name in _ARITHMETIC:
            if not pt.is_floating(expr.type) and not (
                pt.is_decimal(expr.type)
                and not is_hugeint(expr.type)
                and _natural_precision(name, args) <= expr.type.precision
            ):
                return True
        case Call(function=name) if name in _TOTAL:
            pass
        case _:
            return True
    return any(may_raise(c) for c in expr.children())


class Scalars:
    """Writes scalar expressions over given columns.

    Parameters
    ----------
    columns
        Names of the input's columns, which must be unique.
    types
        Their IR types.
    nullable
        Which of them may hold NULLs; all by default.
    """

    def __init__(
        self,
        columns: Sequence[str],
        types: Sequence[pa.DataType],
        nullable: Sequence[bool] | None = None,
    ) -> None:
        self._columns = columns
        self._types = types
        self._nullable = nullable if nullable is not None else [True] * len(columns)

    def write(self, expr: Expr) -> str:
        """Source of a `pl.Expr` whose type is `polars_type(expr.type)`."""
        return self.exact(expr).code

    def condition(self, expr: Expr) -> str:
        """Source of a term of ``filter``, which drops rows where it is NULL, as SQL does."""
        return self.text(expr).code

    def exact(self, expr: Expr) -> Text:
        """`expr` in exactly its type."""
        text = self.text(expr)
        if text.exact:
            return text
        return text.then(f"cast({polars_type(expr.type)})")

    def operand(self, expr: Expr) -> Text:
        """`expr` as something beside an expression: a constant goes as a plain value."""
        return value_text(folded) if isinstance(folded := fold(expr), Lit) else self.text(expr)

    def text(self, expr: Expr) -> Text:
        """`expr` as an expression whose type is at least of the right kind."""
        expr = fold(expr)
        match expr:
            case Column(index=i):
                return Text(f"pl.col({quoted(_plain_name(self._columns[i]))})")
            case Lit():
                return literal(expr)
            case Cast(arg=arg):
                return cast(self.text(arg), arg.type, expr.type, trying=expr.try_cast)
            case Call():
                return self._call(expr)
            case Case():
                return self._case(expr)
            case InList():
                return self._in_list(expr)
        raise UnsupportedPlan(type(expr).__name__)

    def may_be_null(self, expr: Expr) -> bool:
        """Whether `expr` can be NULL, as far as is easily seen (True when in doubt)."""
        match expr:
            case Column(index=i):
                return self._nullable[i]
            case Lit(value=value):
                return value is None
            case Cast(try_cast=False) | InList():
                return any(self.may_be_null(c) for c in expr.children())
            case Call(function="coalesce"):
                return all(self.may_be_null(a) for a in expr.args)
            case Call(function="add" | "subtract" | "multiply" | "divide" | "negate" | "abs"):
                return any(self.may_be_null(a) for a in expr.args)
            case Case(otherwise=otherwise):
                values = [v for _, v in expr.branches]
                return otherwise is None or any(map(self.may_be_null, [*values, otherwise]))
        return True

    # Calls

    def _call(self, call: Call) -> Text:
        name, args = call.function, call.args
        if name in ("and", "or"):
            strength, sign = (Strength.AND, " & ") if name == "and" else (Strength.OR, " | ")
            return Text(sign.join(self.text(a).within(strength) for a in args), strength)
        if name == "not":
            return Text(f"~{self.text(args[0]).tight}", Strength.UNARY)
        if name in _COMPARISONS:
            return self._compare(_COMPARISONS[name], *args)
        if name in ("is_distinct_from", "is_not_distinct_from"):
            method = "ne_missing" if name == "is_distinct_from" else "eq_missing"
            left, right = self._comparable(*args)
            if left.bare:
                left, right = right, left
            return left.then(f"{method}({self.argument(right)})")
        if name in _ARITHMETIC and is_numeric(call.type):
            return self._arithmetic(_ARITHMETIC[name], call)
        if name == "divide":
            return self._divide(call)
        if name in ("integer_divide", "modulo"):
            return self._whole_division(call)
        if name in ("negate", "abs"):
            return self._signed(call)
        if name in _CHOICES:
            return self._choice(call)
        if name in _BITWISE:
            return self._bitwise(call)
        if name in ("shift_left", "shift_right"):
            return self._shift(call)
        if name not in FUNCTIONS:
            raise UnsupportedPlan(name)
        return FUNCTIONS[name](self, call)

    @staticmethod
    def argument(text: Text) -> str:
        """A text as an argument that Polars would take for a column's name if it were a string."""
        return f"pl.lit({text.code})" if text.bare and text.code.startswith('"') else text.code

    def beside(self, left: Expr, right: Expr) -> tuple[Text, Text]:
        """Two operands of which one at least is an expression."""
        if isinstance(fold(left), Lit) and isinstance(fold(right), Lit):
            return self.text(left), self.text(right)
        return self.operand(left), self.operand(right)

    def _comparable(self, left: Expr, right: Expr) -> tuple[Text, Text]:
        kinds = [canonical(e.type) for e in (left, right)]
        if pt.is_null(kinds[0]) or pt.is_null(kinds[1]):
            raise UnsupportedPlan("a comparison with an untyped NULL")
        texts = self.beside(left, right)
        if kinds[0] == kinds[1] or all(pt.is_integer(k) for k in kinds):
            return texts
        if all(pt.is_integer(k) or pt.is_decimal(k) for k in kinds):
            common = common_type(*kinds)
            if as_decimal(common)[1] < max(as_decimal(k)[1] for k in kinds):
                raise UnsupportedPlan(f"a comparison of {kinds[0]} with {kinds[1]}")
            return _fitted(texts[0], left, common), _fitted(texts[1], right, common)
        if all(map(is_numeric, kinds)) and FLOAT64 in kinds:
            return self._floats(left, right, FLOAT64)
        raise UnsupportedPlan(f"a comparison of {kinds[0]} with {kinds[1]}")

    def _compare(self, sign: str, left: Expr, right: Expr) -> Text:
        one, other = self._comparable(left, right)
        # Comparisons chain in Python, so none stands beside another without parentheses.
        return Text(
            f"{one.within(Strength.OR)} {sign} {other.within(Strength.OR)}", Strength.COMPARE
        )

    def _arithmetic(self, sign: str, call: Call) -> Text:
        type = canonical(call.type)
        left, right = call.args
        if pt.is_floating(type):
            return self._infix(sign, *self._floats(left, right, type))
        if pt.is_integer(type):
            wide = "pl.Int64" if type.bit_width < 64 and _narrow(left, right) else "pl.Int128"
            one, other = self.beside(left, right)
            if one.bare:
                other = other.then(f"cast({wide})")
            else:
                one = one.then(f"cast({wide})")
            done = self._infix(sign, one, other)
            return done.then(f"cast({polars_type(type)})")
        one, other = self.beside(left, right)
        if not any(pt.is_decimal(e.type) and not t.bare for e, t in ((left, one), (right, other))):
            # Nothing here makes Polars compute with decimals, which do not wrap around.
            if one.bare:
                other = cast(other, right.type, HUGEINT)
            else:
                one = cast(one, left.type, HUGEINT)
        if sign == "*":
            one, other = _at_the_products_scale(call, one, other)
        else:
            one, other = _fitted(one, left, type), _fitted(other, right, type)
        done = self._infix(sign, one, other)
        natural = _natural_precision(call.function, call.args)
        if natural <= type.precision or type.precision == 38:
            return Text(done.code, done.strength, exact=type.precision == 38)
        return done.then(f"cast({polars_type(type)})")

    @staticmethod
    def _infix(sign: str, one: Text, other: Text) -> Text:
        strength = Strength.PRODUCT if sign in "*/" else Strength.SUM
        after = Strength(strength + 1)
        return Text(f"{one.within(strength)} {sign} {other.within(after)}", strength)

    def _floats(self, left: Expr, right: Expr, type: pa.DataType) -> tuple[Text, Text]:
        """Operands as the floating-point `type`, one of them an expression."""
        one, other = self._float(left, type), self._float(right, type)
        return (Text(f"pl.lit({one.code})") if one.bare and other.bare else one), other

    def _float(self, expr: Expr, type: pa.DataType) -> Text:
        """`expr` as the floating-point `type`."""
        expr = fold(expr)
        if isinstance(expr, Lit) and expr.value is not None:
            if not pt.is_float64(type):
                return literal(Lit(type, float(expr.value)))
            return value_text(Lit(type, float(expr.value)))
        if canonical(expr.type) == type:
            return self.text(expr)
        return cast(self.text(expr), expr.type, type)

    def _divide(self, call: Call) -> Text:
        left, right = call.args
        if canonical(call.type) != FLOAT64:
            raise UnsupportedPlan("a division of 32-bit floats")
        if all(pt.is_integer(a.type) for a in (left, right)):
            one, other = self.beside(left, right)  # Polars' own `/` makes doubles of these
        else:
            one, other = self._floats(left, right, FLOAT64)
        if _may_be_constant(right) and not one.bare:
            # By what is the same in all rows, Polars multiplies with its rounded reciprocal.
            same = other.within(Strength.UNARY)
            other = Text(f"{one.tight}.is_not_null() * {same}", Strength.PRODUCT)
        return self._infix("/", one, other)

    def _whole_division(self, call: Call) -> Text:
        """DuckDB truncates: both are taken of magnitudes, and the sign is put back."""
        type = canonical(call.type)
        left, right = call.args
        if not pt.is_integer(type):
            raise UnsupportedPlan(f"{call.function} of {type}")
        wide = "pl.Int64" if type.bit_width < 64 and _narrow(left, right) else "pl.Int128"
        one = self.text(left).then(f"cast({wide})")
        divisor = literal_integer(fold(right))
        if divisor is not None and divisor != 0:
            other, falls = str(abs(divisor)), "<" if divisor > 0 else ">="
            negative = f"{one.code} {falls} 0"
        else:
            text = self.text(right).then(f"cast({wide})")
            other = f"{text.code}.abs()"
            negative = f"({one.code} < 0) != ({text.code} < 0)"
        if call.function == "modulo":
            negative = f"{one.code} < 0"
        sign = "//" if call.function == "integer_divide" else "%"
        size = f"{one.code}.abs() {sign} {other}"
        below = _negative(Text(size, Strength.PRODUCT), wide).code
        text = Text(f"pl.when({negative}).then({below}).otherwise({size})")
        return text.then(f"cast({polars_type(type)})")

    def _signed(self, call: Call) -> Text:
        (arg,) = call.args
        type = canonical(call.type)
        text = self.text(arg)
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

    def _choice(self, call: Call) -> Text:
        match call.function:
            case "coalesce":
                return self._coalesce(call)
            case "nullif":
                return self._nullif(call)
        return self._greatest(call)

    def _coalesce(self, call: Call) -> Text:
        first, *rest = call.args
        if not rest:
            return self.text(first)
        if any(may_raise(a) for a in rest):
            text = "pl"
            for arg in call.args[:-1]:
                code = self.exact(arg)
                text += f".when({code.tight}.is_not_null()).then({code.code})"
            return Text(f"{text}.otherwise({self.exact(call.args[-1]).code})")
        exact = not pt.is_decimal(call.type)
        last = fold(rest[0])
        if len(rest) == 1 and isinstance(last, Lit) and last.value is not None:
            # It is of the same IR type, and Polars gives it the column's.
            value = value_text(last).code
            return self.exact(first).then(f"fill_null({value})", exact=exact)
        listed = ", ".join(self.exact(a).code for a in call.args)
        return Text(f"pl.coalesce({listed})", exact=exact)

    def _nullif(self, call: Call) -> Text:
        left, right = call.args
        equal = self._compare("==", left, right).code
        return Text(f"pl.when({equal}).then(None).otherwise({self.exact(left).code})")

    def _greatest(self, call: Call) -> Text:
        if pt.is_floating(call.type):
            raise UnsupportedPlan(f"{call.function} of floats, which may be NaN")
        name = "max_horizontal" if call.function == "greatest" else "min_horizontal"
        listed = ", ".join(self.exact(a).code for a in call.args)
        return Text(f"pl.{name}({listed})", exact=not pt.is_decimal(call.type))

    def _bitwise(self, call: Call) -> Text:
        sign, strength = _BITWISE[call.function]
        type = canonical(call.type)
        if not pt.is_integer(type):
            raise UnsupportedPlan(f"{call.function} of {type}")
        one, other = self.beside(*call.args)
        parts = [
            t if t.bare or canonical(a.type) == type else cast(t, a.type, type)
            for t, a in zip((one, other), call.args, strict=True)
        ]
        return Text(
            f"{parts[0].within(strength)} {sign} {parts[1].within(Strength(strength + 1))}",
            strength,
        )

    def _shift(self, call: Call) -> Text:
        type = canonical(call.type)
        places = literal_integer(fold(call.args[1]))
        if call.function == "shift_left" or places is None or not pt.is_signed_integer(type):
            raise UnsupportedPlan(call.function)
        if not 0 <= places < type.bit_width - 1:
            raise UnsupportedPlan("a shift by more bits than there are")
        arg = call.args[0]
        text = (
            self.exact(arg) if canonical(arg.type) == type else cast(self.text(arg), arg.type, type)
        )
        return Text(f"{text.within(Strength.PRODUCT)} // {1 << places}", Strength.PRODUCT)

    # Choices

    def _case(self, case: Case) -> Text:
        values = [v for _, v in case.branches]
        # Plain numbers take the type of what stands beside them, which is the same in the IR.
        plain = case.type in (pa.int32(), FLOAT64) or (
            pt.is_integer(case.type) and not all(isinstance(fold(v), Lit) for v in values)
        )
        text = "pl"
        for condition, value in case.branches:
            chosen = self._chosen(value, plain=plain)
            text += f".when({self.text(condition).code}).then({chosen})"
        if case.otherwise is not None and not _is_null(fold(case.otherwise)):
            text += f".otherwise({self._chosen(case.otherwise, plain=plain)})"
        return Text(text)

    def _chosen(self, value: Expr, *, plain: bool) -> str:
        return (
            self.operand(value) if plain and isinstance(fold(value), Lit) else self.exact(value)
        ).code

    def _in_list(self, expr: InList) -> Text:
        arg = expr.arg
        options = [fold(o) for o in expr.options]
        values = [o for o in options if not _is_null(o)]
        if not values:
            return literal(Lit(expr.type, None))
        kind = canonical(arg.type)
        alike = all(
            isinstance(o, Lit)
            and (canonical(o.type) == kind or (pt.is_integer(o.type) and pt.is_integer(kind)))
            for o in values
        )
        if alike and not isinstance(fold(arg), Lit):
            listed = ", ".join(_listed(o) for o in values if isinstance(o, Lit))
            text = self.text(arg).then(f"is_in([{listed}])")
        else:
            parts = [self._compare("==", arg, o).within(Strength.OR) for o in values]
            text = Text(" | ".join(parts), Strength.OR) if len(parts) > 1 else Text(parts[0])
        if len(values) < len(options):
            return Text(f"{text.within(Strength.OR)} | pl.lit(None, dtype=pl.Boolean)", Strength.OR)
        return text


def fold(expr: Expr) -> Expr:
    """`expr`, as a constant where it is the cast of one that changes no value."""
    if isinstance(expr, Call) and expr.function in _STRICT and any(map(_is_null, expr.args)):
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
        return Lit(type, datetime.date.fromisoformat(arg.value))
    return expr


def _may_be_constant(expr: Expr) -> bool:
    """Whether `expr` may have one value for all rows that Polars then keeps as one."""
    if isinstance(expr, Lit | Case) or (isinstance(expr, Call) and expr.function in _CHOICES):
        return True
    if isinstance(expr, Column):
        return False
    return all(_may_be_constant(child) for child in expr.children())


def _listed(option: Lit) -> str:
    """An option of IN; a list of Python's numbers would get the type of the first."""
    text = value_text(option).code
    if pt.is_decimal(option.type) and abs(option.value) >= 2**63:
        return f'Decimal("{int(option.value)}")' if option.type.scale == 0 else text
    return text


def _fits(value: int, type: pa.DataType) -> bool:
    signed = pt.is_signed_integer(type)
    bits = type.bit_width - signed
    return (-(1 << bits) if signed else 0) <= value < 1 << bits


def _is_null(expr: Expr) -> bool:
    return isinstance(expr, Lit) and expr.value is None


def _plain_name(name: str) -> str:
    """A column's name that Polars takes for nothing but a name."""
    if name == "*" or (name.startswith("^") and name.endswith("$")):
        raise UnsupportedPlan(f"a column named {name!r}, which is a pattern")
    return name


def _narrow(*exprs: Expr) -> bool:
    """Whether 64 bits hold any sum and product of two of these."""
    return all(pt.is_integer(e.type) and e.type.bit_width <= 32 for e in exprs)


def _negative(text: Text, wide: str | None) -> Text:
    """The negated text; Polars negates no `pl.Int128`."""
    if wide == "pl.Int128":
        return Text(f"0 - {text.within(Strength.PRODUCT)}", Strength.SUM)
    return Text(f"-{text.tight}", Strength.UNARY, exact=text.exact)


def _natural_precision(function: str, args: Sequence[Expr]) -> int:
    """Digits that a decimal sum or product may need, before the IR caps them."""
    (p1, s1), (p2, s2) = (as_decimal(canonical(a.type)) for a in args)
    if function == "multiply":
        return p1 + p2
    return max(p1 - s1, p2 - s2) + max(s1, s2) + 1


def _fitted(text: Text, expr: Expr, common: pa.DataType) -> Text:
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
