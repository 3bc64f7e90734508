"""Scalar IR expressions as text of Polars expressions.

``IN`` with a NULL among its options is NULL where it finds nothing, which ``is_in`` is not told.

A CASE computes a branch only for the rows that take it, in Polars as in DuckDB; but what two
branches have in common may be computed once for all rows (``comm_subexpr_elim``), and then raise
where DuckDB does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import UnsupportedPlan
from operators.expr import Call, Case, Cast, Column, Expr, InList, Lit
from operators.polars.arithmetic import ARITHMETIC, fitted, floats
from operators.polars.casts import cast
from operators.polars.folding import CHOICES, fold, is_null, may_raise
from operators.polars.functions import FUNCTIONS
from operators.polars.text import Strength, Text, plain_name, quoted
from operators.polars.types import literal, polars_type, value_text
from operators.types import (
    FLOAT64,
    as_decimal,
    canonical,
    common_type,
    is_hugeint,
    is_numeric,
    is_temporal,
)

__all__ = ["Scalars"]

_COMPARISONS = {
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}

# Python nests them as deep as they are many, and in an element's memory Polars may find no room for
# the stack that it takes to walk thousands: a thread of it ends then, and the query hangs.
_MOST_TERMS = 400


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
    constant
        Which of them may have one value for all rows of a batch that Polars keeps only once, as it
        does constants, what a CASE chose, and Hive's columns; none by default.
    """

    def __init__(
        self,
        columns: Sequence[str],
        types: Sequence[pa.DataType],
        nullable: Sequence[bool] | None = None,
        constant: Sequence[bool] | None = None,
    ) -> None:
        self._columns = columns
        self._types = types
        self._nullable = nullable if nullable is not None else [True] * len(columns)
        self._constant = constant if constant is not None else [False] * len(columns)

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
                return Text(f"pl.col({quoted(plain_name(self._columns[i]))})")
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

    def may_be_constant(self, expr: Expr) -> bool:
        """Whether `expr` may have one value for all rows that Polars keeps only once."""
        if isinstance(expr, Lit | Case) or (isinstance(expr, Call) and expr.function in CHOICES):
            return True
        if isinstance(expr, Column):
            return self._constant[expr.index]
        return all(self.may_be_constant(child) for child in expr.children())

    # Calls

    def _call(self, call: Call) -> Text:
        name, args = call.function, call.args
        if name in ("and", "or"):
            strength, sign = (Strength.AND, " & ") if name == "and" else (Strength.OR, " | ")
            code = sign.join(self.text(a).within(strength) for a in args)
            if code.count(sign) > _MOST_TERMS:
                raise UnsupportedPlan(f"{name} of more than {_MOST_TERMS} terms")
            return Text(code, strength)
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
        if name in CHOICES:
            return self._choice(call)
        if name in ARITHMETIC and is_numeric(call.type) and not _counts_days(call):
            return ARITHMETIC[name](self, call)
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
            return fitted(texts[0], left, common), fitted(texts[1], right, common)
        if all(map(is_numeric, kinds)) and FLOAT64 in kinds:
            return floats(self, left, right, FLOAT64)
        raise UnsupportedPlan(f"a comparison of {kinds[0]} with {kinds[1]}")

    def _compare(self, sign: str, left: Expr, right: Expr) -> Text:
        one, other = self._comparable(left, right)
        # Comparisons chain in Python, so none stands beside another without parentheses.
        return Text(
            f"{one.within(Strength.OR)} {sign} {other.within(Strength.OR)}", Strength.COMPARE
        )

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
        if case.otherwise is not None and not is_null(fold(case.otherwise)):
            text += f".otherwise({self._chosen(case.otherwise, plain=plain)})"
        return Text(text)

    def _chosen(self, value: Expr, *, plain: bool) -> str:
        return (
            self.operand(value) if plain and isinstance(fold(value), Lit) else self.exact(value)
        ).code

    def _in_list(self, expr: InList) -> Text:
        arg = expr.arg
        options = [fold(o) for o in expr.options]
        values = [o for o in options if not is_null(o)]
        if not values:
            return literal(Lit(expr.type, None))
        kind = canonical(arg.type)
        if all(_is_alike(o, kind) for o in values) and not isinstance(fold(arg), Lit):
            listed = ", ".join(value_text(o).code for o in values if isinstance(o, Lit))
            text = self.text(arg).then(f"is_in([{listed}])")
        else:
            parts = [self._compare("==", arg, o).within(Strength.OR) for o in values]
            text = Text(" | ".join(parts), Strength.OR) if len(parts) > 1 else Text(parts[0])
        if len(values) < len(options):
            return Text(f"{text.within(Strength.OR)} | pl.lit(None, dtype=pl.Boolean)", Strength.OR)
        return text


def _is_alike(option: Expr, kind: pa.DataType) -> bool:
    """Whether a list of such constants gets a type that compares with `kind` exactly."""
    if not isinstance(option, Lit):
        return False
    if pt.is_integer(option.type) or is_hugeint(option.type):
        return (pt.is_integer(kind) or is_hugeint(kind)) and abs(int(option.value)) < 2**63
    return bool(canonical(option.type) == kind)


def _counts_days(call: Call) -> bool:
    return any(is_temporal(a.type) for a in call.args)
