"""Expressions over named columns: ``col("price") * lit(2)``, ``col("qty").sum().alias("total")``.

An `Expr` is a recipe: it becomes an expression of the plan IR when a frame operation gives it a
`Scope` that knows the columns. Names follow Polars; the meaning is SQL's, as DuckDB has it: nulls
propagate, comparisons with null are null, ``/`` gives a float and ``//`` truncates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from operators import build
from operators import expr as ir
from operators.errors import OperatorError
from operators.schema import Schema
from operators.types import decimal
from remote_frame.errors import AmbiguousColumnError, ColumnNotFoundError, ExpressionError
from remote_frame.types import type_from_text

if TYPE_CHECKING:
    from remote_frame.namespaces import DateMethods, StringMethods

__all__ = ["Expr", "RowScope", "Scope", "When", "as_expr", "call", "col", "count", "lit", "when"]


class Scope(Protocol):
    """Where an expression stands: what names mean there, and whether aggregates may stand there."""

    def column(self, name: str) -> ir.Expr:
        """The column called `name`."""

    def aggregate(self, function: str, args: Sequence[Expr], distinct: bool) -> ir.Expr:
        """An aggregate over rows."""


class RowScope:
    """One row of a relation."""

    def __init__(self, schema: Schema, what: str) -> None:
        self._schema = schema
        self._what = what

    def column(self, name: str) -> ir.Expr:
        """The column called `name`."""
        return build.col(self._schema, position(self._schema, name))

    def aggregate(self, function: str, args: Sequence[Expr], distinct: bool) -> ir.Expr:
        """Refuse: a row has no aggregates."""
        raise ExpressionError(
            f"{function}() aggregates rows and cannot stand in {self._what}; use group_by().agg() "
            "or select()"
        )


def position(schema: Schema, name: str) -> int:
    """The position of the one column called `name`.

    Raises
    ------
    ColumnNotFoundError, AmbiguousColumnError
        If there is none, or more than one.
    """
    found = [i for i, known in enumerate(schema.names) if known == name]
    if not found:
        raise ColumnNotFoundError(name, schema.names)
    if len(found) > 1:
        raise AmbiguousColumnError(
            f"{len(found)} columns are called {name!r}: rename them before using one"
        )
    return found[0]


class Expr:
    """An expression; made by `col`, `lit`, `count`, `when` and by methods and operators.

    Not hashable and without a truth value: ``==`` makes an expression. Combine conditions with
    ``&``, ``|`` and ``~``.
    """

    __slots__ = ("_lower", "_name", "_text", "aggregates")
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        lower: Callable[[Scope], ir.Expr],
        text: str,
        name: str | None = None,
        aggregates: bool = False,
    ) -> None:
        self._lower = lower
        self._text = text
        self._name = name
        self.aggregates = aggregates

    def lower(self, scope: Scope) -> ir.Expr:
        """The expression of the IR in a scope.

        Raises
        ------
        ExpressionError
            If types do not fit or an aggregate stands where none may.
        ColumnNotFoundError, AmbiguousColumnError
            If a name is not that of exactly one column.
        """
        try:
            return self._lower(scope)
        except OperatorError as error:
            raise ExpressionError(f"{self._text}: {error}") from error

    @property
    def name(self) -> str:
        """The name of the column that the expression makes."""
        return self._text if self._name is None else self._name

    def alias(self, name: str) -> Expr:
        """The same expression, making a column called `name`."""
        return Expr(self._lower, self._text, name, self.aggregates)

    def __repr__(self) -> str:
        return self._text if self._name in (None, self._text) else f"{self._text} as {self._name}"

    def __bool__(self) -> bool:
        raise ExpressionError(
            f"{self._text} has no truth value here: combine conditions with &, | and ~"
        )

    # Arithmetic and comparison.

    def __add__(self, other: Any) -> Expr:
        return _infix("add", "+", self, other)

    def __radd__(self, other: Any) -> Expr:
        return _infix("add", "+", other, self)

    def __sub__(self, other: Any) -> Expr:
        return _infix("subtract", "-", self, other)

    def __rsub__(self, other: Any) -> Expr:
        return _infix("subtract", "-", other, self)

    def __mul__(self, other: Any) -> Expr:
        return _infix("multiply", "*", self, other)

    def __rmul__(self, other: Any) -> Expr:
        return _infix("multiply", "*", other, self)

    def __truediv__(self, other: Any) -> Expr:
        return _infix("divide", "/", self, other)

    def __rtruediv__(self, other: Any) -> Expr:
        return _infix("divide", "/", other, self)

    def __floordiv__(self, other: Any) -> Expr:
        return _infix("integer_divide", "//", self, other)

    def __rfloordiv__(self, other: Any) -> Expr:
        return _infix("integer_divide", "//", other, self)

    def __mod__(self, other: Any) -> Expr:
        return _infix("modulo", "%", self, other)

    def __rmod__(self, other: Any) -> Expr:
        return _infix("modulo", "%", other, self)

    def __pow__(self, other: Any) -> Expr:
        return _infix("power", "**", self, other)

    def __neg__(self) -> Expr:
        return call("negate", self, text=f"-{self._text}")

    def __eq__(self, other: Any) -> Expr:  # type: ignore[override]
        return _infix("equal", "==", self, other)

    def __ne__(self, other: Any) -> Expr:  # type: ignore[override]
        return _infix("not_equal", "!=", self, other)

    def __lt__(self, other: Any) -> Expr:
        return _infix("less", "<", self, other)

    def __le__(self, other: Any) -> Expr:
        return _infix("less_equal", "<=", self, other)

    def __gt__(self, other: Any) -> Expr:
        return _infix("greater", ">", self, other)

    def __ge__(self, other: Any) -> Expr:
        return _infix("greater_equal", ">=", self, other)

    def __and__(self, other: Any) -> Expr:
        return _infix("and", "&", self, other)

    def __rand__(self, other: Any) -> Expr:
        return _infix("and", "&", other, self)

    def __or__(self, other: Any) -> Expr:
        return _infix("or", "|", self, other)

    def __ror__(self, other: Any) -> Expr:
        return _infix("or", "|", other, self)

    def __invert__(self) -> Expr:
        return call("not", self, text=f"~{self._text}")

    # Row by row.

    def cast(self, dtype: pa.DataType | str) -> Expr:
        """The value as another type: an Arrow type, or its name (``int64``, ``decimal(12,2)``)."""
        wanted = _as_type(dtype)
        return Expr(
            lambda scope: build.cast(self.lower(scope), wanted),
            f"{self._text}.cast({wanted})",
            self._name,
            self.aggregates,
        )

    def is_null(self) -> Expr:
        """Whether the value is null."""
        return call("is_null", self)

    def is_not_null(self) -> Expr:
        """Whether the value is not null."""
        return call("is_not_null", self)

    def fill_null(self, value: Any) -> Expr:
        """`value` where the value is null."""
        return call("coalesce", self, value, text=f"{self._text}.fill_null({value!r})")

    def is_in(self, values: Iterable[Any]) -> Expr:
        """Whether the value is one of `values`; never true for null."""
        options = [as_expr(v) for v in values]
        text = f"{self._text}.is_in([{', '.join(o._text for o in options)}])"
        if not options:
            return lit(False).alias(text)
        return Expr(
            lambda scope: build.in_list(self.lower(scope), [o.lower(scope) for o in options]),
            text,
            aggregates=self.aggregates,
        )

    def between(self, lower: Any, upper: Any) -> Expr:
        """Whether the value is at least `lower` and at most `upper`."""
        least: Expr = self >= lower
        most: Expr = self <= upper
        return least & most

    is_between = between

    def abs(self) -> Expr:
        """The absolute value."""
        return call("abs", self)

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

    @property
    def str(self) -> StringMethods:
        """Operations on strings."""
        from remote_frame.namespaces import StringMethods

        return StringMethods(self)

    @property
    def dt(self) -> DateMethods:
        """Parts of dates and timestamps."""
        from remote_frame.namespaces import DateMethods

        return DateMethods(self)

    # Aggregates. Nulls are left out by all of them.

    def sum(self) -> Expr:
        """The sum; null over no rows. Of integers it is a decimal(38, 0), which cannot overflow."""
        return _aggregate("sum", self)

    def mean(self) -> Expr:
        """The mean as a float."""
        return _aggregate("avg", self, shown="mean")

    def min(self) -> Expr:
        """The least value."""
        return _aggregate("min", self)

    def max(self) -> Expr:
        """The greatest value."""
        return _aggregate("max", self)

    def count(self) -> Expr:
        """How many values are not null."""
        return _aggregate("count", self)

    def n_unique(self) -> Expr:
        """How many different values there are, null not counted."""
        return _aggregate("count", self, distinct=True, shown="n_unique")

    def median(self) -> Expr:
        """The median."""
        return _aggregate("median", self)

    def std(self) -> Expr:
        """The standard deviation of a sample."""
        return _aggregate("stddev_samp", self, shown="std")

    def var(self) -> Expr:
        """The variance of a sample."""
        return _aggregate("var_samp", self, shown="var")


class When:
    """The unfinished ``when(…).then(…)``; `otherwise` finishes it, `when` adds a branch."""

    __slots__ = ("_branches", "_open")

    def __init__(self, branches: tuple[tuple[Expr, Expr], ...], condition: Expr | None) -> None:
        self._branches = branches
        self._open = condition

    def when(self, condition: Expr) -> When:
        """Another condition, tried where those before were not true."""
        if self._open is not None:
            raise ExpressionError("when() needs its then() before the next when()")
        return When(self._branches, condition)

    def then(self, value: Any) -> When:
        """The value where the condition is true."""
        if self._open is None:
            raise ExpressionError("then() needs a when() before it")
        return When((*self._branches, (self._open, as_expr(value))), None)

    def otherwise(self, value: Any) -> Expr:
        """The value where no condition was true."""
        if self._open is not None:
            raise ExpressionError("when() needs its then() before otherwise()")
        last = as_expr(value)
        parts = [e for branch in self._branches for e in branch]
        shown = "".join(f"when({c!r}).then({v!r})." for c, v in self._branches)
        return Expr(
            lambda scope: build.case(
                [(c.lower(scope), v.lower(scope)) for c, v in self._branches], last.lower(scope)
            ),
            f"{shown}otherwise({last!r})",
            aggregates=any(e.aggregates for e in [*parts, last]),
        )


def col(name: str) -> Expr:
    """The column called `name`."""
    if not isinstance(name, str):
        raise ExpressionError(f"col() wants a column's name, not {name!r}")
    return Expr(lambda scope: scope.column(name), name, name)


def lit(value: Any, dtype: pa.DataType | str | None = None) -> Expr:
    """A constant; `dtype` says its type where Python's does not."""
    wanted = None if dtype is None else _as_type(dtype)

    def lower(scope: Scope) -> ir.Expr:
        if wanted is None:
            return build.lit(value)
        return build.cast(build.lit(value), wanted)

    return Expr(lower, repr(value), "literal")


def count() -> Expr:
    """How many rows there are."""
    return Expr(lambda scope: scope.aggregate("count", (), False), "count()", "count", True)


def when(condition: Expr) -> When:
    """Begin ``when(condition).then(value).otherwise(value)``."""
    return When((), condition)


def as_expr(value: Any) -> Expr:
    """`value` if it is an expression, else a constant."""
    if isinstance(value, When):
        raise ExpressionError("when().then() needs an otherwise()")
    return value if isinstance(value, Expr) else lit(value)


def call(function: str, *args: Any, text: str | None = None) -> Expr:
    """A scalar function of the IR's vocabulary over expressions and constants."""
    exprs = [as_expr(a) for a in args]
    if text is None:
        shown = ", ".join(e._text for e in exprs[1:])
        text = f"{exprs[0]._text}.{function}({shown})"
    return Expr(
        lambda scope: build.call(function, *(e.lower(scope) for e in exprs)),
        text,
        aggregates=any(e.aggregates for e in exprs),
    )


def _infix(function: str, sign: str, left: Any, right: Any) -> Expr:
    a, b = as_expr(left), as_expr(right)
    return call(function, a, b, text=f"({a._text} {sign} {b._text})")


def _aggregate(
    function: str, arg: Expr, *, distinct: bool = False, shown: str | None = None
) -> Expr:
    if arg.aggregates:
        raise ExpressionError(f"{arg!r} is an aggregate already")
    return Expr(
        lambda scope: scope.aggregate(function, (arg,), distinct),
        f"{arg._text}.{shown or function}()",
        arg._name,
        True,
    )


def _as_type(dtype: pa.DataType | str) -> pa.DataType:
    if isinstance(dtype, pa.DataType):
        return dtype
    try:
        if dtype.startswith("decimal(") and dtype.endswith(")"):
            precision, scale = dtype[8:-1].split(",")
            return decimal(int(precision), int(scale))
        return type_from_text(dtype)
    except (ValueError, OperatorError) as error:
        raise ExpressionError(f"cast: {error}") from None
