"""What an expression computes of numbers: tests of floats, rounding, powers, angles, bounds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from operators import build
from operators import expr as ir
from remote_frame.core import Node, as_expr, call, infix, rule
from remote_frame.errors import ExpressionError

if TYPE_CHECKING:
    from remote_frame.expressions import Expr

__all__ = ["NumberMethods"]


class NumberMethods(Node):
    """Methods of expressions that are numbers."""

    __slots__ = ()

    def is_nan(self) -> Expr:
        """Whether the value is not a number; null for null."""
        return call("isnan", self, text=f"{self.text}.is_nan()")

    def is_not_nan(self) -> Expr:
        """Whether the value is a number; null for null."""
        return ~self.is_nan()

    def is_finite(self) -> Expr:
        """Whether the value is a finite number."""
        return call("isfinite", self, text=f"{self.text}.is_finite()")

    def is_infinite(self) -> Expr:
        """Whether the value is an infinity."""
        return call("isinf", self, text=f"{self.text}.is_infinite()")

    def fill_nan(self, value: Any) -> Expr:
        """`value` where the value is not a number."""
        return rule(
            [self, as_expr(value)],
            lambda x, v: build.case([(build.call("isnan", x), v)], x),
            lambda x, v: f"{x}.fill_nan({v})",
        )

    def abs(self) -> Expr:
        """The absolute value."""
        return call("abs", self)

    def sign(self) -> Expr:
        """-1, 0 or 1."""
        return call("sign", self)

    def round(self, decimals: int = 0) -> Expr:
        """The value rounded, halves away from zero."""
        return call("round", self, decimals)

    def floor(self) -> Expr:
        """The greatest whole number that is not more."""
        return call("floor", self)

    def ceil(self) -> Expr:
        """The least whole number that is not less."""
        return call("ceil", self)

    def sqrt(self) -> Expr:
        """The square root."""
        return call("sqrt", self)

    def cbrt(self) -> Expr:
        """The cube root."""
        return call("cbrt", self)

    def exp(self) -> Expr:
        """E to the power of the value."""
        return call("exp", self)

    def log(self, base: float = math.e) -> Expr:
        """The logarithm to a base.

        Examples
        --------
        >>> sales.select((col("qty") + 3).log(2)).head(1).collect().to_pydict()
        {'qty': [3.0]}
        """
        known = {math.e: "ln", 10.0: "log10", 2.0: "log2"}
        if float(base) in known:
            return call(known[float(base)], self, text=f"{self.text}.log({base})")
        return rule(
            [self],
            lambda x: build.call("divide", build.call("ln", x), build.lit(math.log(base))),
            lambda x: f"{x}.log({base})",
        )

    def log10(self) -> Expr:
        """The logarithm to base 10."""
        return call("log10", self)

    def log1p(self) -> Expr:
        """The natural logarithm of the value and one."""
        return infix("add", "+", self, 1).log()

    def pow(self, exponent: Any) -> Expr:
        """The value to a power, as a float."""
        return infix("power", "**", self, exponent)

    def sin(self) -> Expr:
        """The sine of an angle in radians."""
        return call("sin", self)

    def cos(self) -> Expr:
        """The cosine of an angle in radians."""
        return call("cos", self)

    def tan(self) -> Expr:
        """The tangent of an angle in radians."""
        return call("tan", self)

    def arcsin(self) -> Expr:
        """The angle in radians of a sine."""
        return call("asin", self, text=f"{self.text}.arcsin()")

    def arccos(self) -> Expr:
        """The angle in radians of a cosine."""
        return call("acos", self, text=f"{self.text}.arccos()")

    def arctan(self) -> Expr:
        """The angle in radians of a tangent."""
        return call("atan", self, text=f"{self.text}.arctan()")

    def degrees(self) -> Expr:
        """Radians as degrees."""
        return call("degrees", self)

    def radians(self) -> Expr:
        """Degrees as radians."""
        return call("radians", self)

    def clip(self, lower_bound: Any = None, upper_bound: Any = None) -> Expr:
        """The value, but no less and no more than the bounds; null stays null.

        Examples
        --------
        >>> sales.select(col("qty").clip(2, 6)).collect().to_pydict()
        {'qty': [5, None, 6, 2, 2]}
        """
        if lower_bound is None and upper_bound is None:
            raise ExpressionError("clip() needs a bound")
        bounds = [(lower_bound, "less"), (upper_bound, "greater")]
        given = [(as_expr(b), test) for b, test in bounds if b is not None]

        def make(x: ir.Expr, *limits: ir.Expr) -> ir.Expr:
            branches = [
                (build.call(test, x, limit), limit)
                for limit, (_, test) in zip(limits, given, strict=True)
            ]
            return build.case(branches, x)

        shown = ", ".join(b.text for b, _ in given)
        return rule([self, *(b for b, _ in given)], make, lambda x, *_: f"{x}.clip({shown})")
