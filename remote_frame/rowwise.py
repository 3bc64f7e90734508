"""What an expression of any type computes row by row: operators, logic, nulls, conversions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow.types as pt

from operators import build
from operators import expr as ir
from operators.types import is_integer
from remote_frame.core import Node, as_expr, as_type, call, derived, infix, literal, rule, typed
from remote_frame.errors import ExpressionError

if TYPE_CHECKING:
    from remote_frame.expressions import Expr

__all__ = ["RowMethods"]


class RowMethods(Node):
    """Arithmetic, comparisons, logic, conversions."""

    __slots__ = ()

    # Arithmetic and comparison.

    def __add__(self, other: Any) -> Expr:
        return infix("add", "+", self, other)

    def __radd__(self, other: Any) -> Expr:
        return infix("add", "+", other, self)

    def __sub__(self, other: Any) -> Expr:
        return infix("subtract", "-", self, other)

    def __rsub__(self, other: Any) -> Expr:
        return infix("subtract", "-", other, self)

    def __mul__(self, other: Any) -> Expr:
        return infix("multiply", "*", self, other)

    def __rmul__(self, other: Any) -> Expr:
        return infix("multiply", "*", other, self)

    def __truediv__(self, other: Any) -> Expr:
        return infix("divide", "/", self, other)

    def __rtruediv__(self, other: Any) -> Expr:
        return infix("divide", "/", other, self)

    def __floordiv__(self, other: Any) -> Expr:
        return infix("integer_divide", "//", self, other)

    def __rfloordiv__(self, other: Any) -> Expr:
        return infix("integer_divide", "//", other, self)

    def __mod__(self, other: Any) -> Expr:
        return infix("modulo", "%", self, other)

    def __rmod__(self, other: Any) -> Expr:
        return infix("modulo", "%", other, self)

    def __pow__(self, other: Any) -> Expr:
        return infix("power", "**", self, other)

    def __rpow__(self, other: Any) -> Expr:
        return infix("power", "**", other, self)

    def __neg__(self) -> Expr:
        return _prefix("negate", "-", self)

    def __pos__(self) -> Expr:
        return cast("Expr", self)

    def __eq__(self, other: Any) -> Expr:  # type: ignore[override]
        return infix("equal", "==", self, other)

    def __ne__(self, other: Any) -> Expr:  # type: ignore[override]
        return infix("not_equal", "!=", self, other)

    def __lt__(self, other: Any) -> Expr:
        return infix("less", "<", self, other)

    def __le__(self, other: Any) -> Expr:
        return infix("less_equal", "<=", self, other)

    def __gt__(self, other: Any) -> Expr:
        return infix("greater", ">", self, other)

    def __ge__(self, other: Any) -> Expr:
        return infix("greater_equal", ">=", self, other)

    def __and__(self, other: Any) -> Expr:
        return _logic("and", "bitwise_and", "&", self, other)

    def __rand__(self, other: Any) -> Expr:
        return _logic("and", "bitwise_and", "&", other, self)

    def __or__(self, other: Any) -> Expr:
        return _logic("or", "bitwise_or", "|", self, other)

    def __ror__(self, other: Any) -> Expr:
        return _logic("or", "bitwise_or", "|", other, self)

    def __xor__(self, other: Any) -> Expr:
        return _logic("not_equal", "bitwise_xor", "^", self, other)

    def __rxor__(self, other: Any) -> Expr:
        return _logic("not_equal", "bitwise_xor", "^", other, self)

    def __invert__(self) -> Expr:
        return _prefix("not", "~", self)

    def not_(self) -> Expr:
        """Whether the condition is false."""
        return ~self

    def eq_missing(self, other: Any) -> Expr:
        """Whether two values are equal, or both null; never null itself.

        Examples
        --------
        >>> sales.select(col("qty").eq_missing(None)).collect().to_pydict()
        {'qty': [False, True, False, False, False]}
        """
        return call("is_not_distinct_from", self, other)

    def ne_missing(self, other: Any) -> Expr:
        """Whether two values differ, a null from everything but null."""
        return call("is_distinct_from", self, other)

    # Nulls, sets, ranges.

    def is_null(self) -> Expr:
        """Whether the value is null."""
        return call("is_null", self)

    def is_not_null(self) -> Expr:
        """Whether the value is not null."""
        return call("is_not_null", self)

    def fill_null(self, value: Any) -> Expr:
        """`value` (a constant or an expression) where the value is null.

        Examples
        --------
        >>> sales.select(col("qty").fill_null(0)).collect().to_pydict()
        {'qty': [5, 0, 7, 1, 2]}
        """
        shown = as_expr(value).text
        return call("coalesce", self, value, text=f"{self.text}.fill_null({shown})")

    def is_in(self, values: Iterable[Any]) -> Expr:
        """Whether the value is one of `values`; null for null.

        Examples
        --------
        >>> sales.filter(col("item").is_in([2, 3])).select("item").collect().to_pydict()
        {'item': [2, 3]}
        """
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise ExpressionError(f"is_in() wants a list of values, not {values!r}")
        options = [as_expr(v) for v in values]
        if not options:
            return derived([self], lambda e: literal(False).alias(e.output_name))
        listed = ", ".join(o.text for o in options)
        return rule(
            [self, *options],
            lambda x, *rest: build.in_list(x, rest),
            lambda x, *_: f"{x}.is_in([{listed}])",
        )

    def is_between(
        self,
        lower: Any,
        upper: Any,
        closed: Literal["both", "left", "right", "none"] = "both",
    ) -> Expr:
        """Whether the value lies between two others; `closed` says which of them count.

        Examples
        --------
        >>> sales.select(col("qty").is_between(1, 5, closed="left")).collect().to_pydict()
        {'qty': [False, None, False, True, True]}
        """
        if closed not in ("both", "left", "right", "none"):
            raise ExpressionError(f"is_between: closed={closed!r}; it is both, left, right or none")
        least: Expr = self >= lower if closed in ("both", "left") else self > lower
        most: Expr = self <= upper if closed in ("both", "right") else self < upper
        return least & most

    between = is_between

    # Conversions.

    def cast(self, dtype: Any, *, strict: bool = True) -> Expr:
        """The value as another type.

        Parameters
        ----------
        dtype
            An Arrow type, its name (``int64``, ``decimal(12,2)``) or a Python type.
        strict
            Whether a value that cannot be converted is an error; else it becomes null.

        Examples
        --------
        >>> sales.select(col("store").cast(int, strict=False)).collect().to_pydict()
        {'store': [None, None, None, None, None]}
        """
        wanted = as_type(dtype)
        return rule(
            [self],
            lambda x: build.cast(x, wanted, try_cast=not strict),
            lambda x: f"{x}.cast({wanted})",
        )

    def replace(self, old: Any, new: Any = None) -> Expr:
        """Some values replaced by others; the rest stays.

        Parameters
        ----------
        old
            A mapping from values to values, a value, or a list of values.
        new
            What to put in the place of `old`: a value, or a list as long.

        Examples
        --------
        >>> sales.select(col("item").replace({1: 10, 2: 20})).collect().to_pydict()
        {'item': [10, 10, 20, 3, None]}
        """
        pairs = _pairs(old, new)
        return _replaced(self, pairs, lambda x: x, "replace")

    def replace_strict(self, old: Any, new: Any = None, *, default: Any = None) -> Expr:
        """Every value replaced: by what `replace` says, or else by `default`.

        Examples
        --------
        >>> sales.select(col("item").replace_strict({1: "one"}, default="?")).collect().to_pydict()
        {'item': ['one', 'one', '?', '?', '?']}
        """
        last = build.lit(default)
        return _replaced(self, _pairs(old, new), lambda x: last, "replace_strict")


def _prefix(function: str, sign: str, arg: Node) -> Expr:
    return call(function, arg, text=f"{sign}{arg.text}")


def _logic(condition: str, bits: str, sign: str, left: Any, right: Any) -> Expr:
    """Logic on conditions, bit by bit on integers; of a chain all operands side by side."""

    def lowered(*args: ir.Expr) -> ir.Expr:
        if all(is_integer(a.type) for a in args):
            return reduce(lambda a, b: build.call(bits, a, b), args)
        _require_conditions(args)
        if condition in ("and", "or"):
            return build.call(condition, *args)
        return reduce(lambda a, b: build.call(condition, a, b), args)

    def make(a: Expr, b: Expr) -> Expr:
        longer = a.chain is not None and a.chain[0] == sign
        parts = (*(a.chain[1] if longer and a.chain else (a,)), b)
        # A chain grows to the right inside its brackets.
        text = f"{a.text[:-1]} {sign} {b.text})" if longer else f"({a.text} {sign} {b.text})"
        made = typed(parts, lowered, text)
        made.chain = (sign, parts)
        return made

    return derived([as_expr(left), as_expr(right)], make)


def _require_conditions(args: Sequence[ir.Expr]) -> None:
    for arg in args:
        if not (pt.is_boolean(arg.type) or pt.is_null(arg.type)):
            raise ExpressionError(f"{arg.type} is neither a condition nor, on both sides, integers")


def _pairs(old: Any, new: Any) -> list[tuple[Any, Any]]:
    if isinstance(old, Mapping):
        return list(old.items())
    if not isinstance(old, list | tuple):
        return [(old, new)]
    news = list(new) if isinstance(new, list | tuple) else [new] * len(old)
    if len(news) != len(old):
        raise ExpressionError(f"replace: {len(old)} old values and {len(news)} new ones")
    return list(zip(old, news, strict=True))


def _replaced(
    arg: Node,
    pairs: list[tuple[Any, Any]],
    last: Callable[[ir.Expr], ir.Expr],
    shown: str,
) -> Expr:
    def make(x: ir.Expr) -> ir.Expr:
        branches = [
            (build.call("is_not_distinct_from", x, build.lit(a)), build.lit(b)) for a, b in pairs
        ]
        return build.case(branches, last(x)) if branches else last(x)

    return rule([arg], make, lambda x: f"{x}.{shown}({dict(pairs)!r})")
