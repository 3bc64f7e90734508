"""Expressions over named columns: ``col("price") * 2``, ``col("qty").sum().over("store")``.

An `Expr` is a recipe: it becomes an expression of the plan IR when a frame operation gives it a
scope that knows the columns. Names follow Polars, those of results too: an expression is called
like the first column that it comes from. The meaning is SQL's, as DuckDB has it: nulls propagate,
comparisons with null are null, ``/`` gives a float and ``//`` truncates.

The vocabulary is in `remote_frame.rowwise` and `remote_frame.numbers` (row by row),
`remote_frame.aggregates` (over rows) and `remote_frame.strings`, `remote_frame.dates` and
`remote_frame.namespaces` (``.str``, ``.dt``, ``.name``); functions of several expressions are in
`remote_frame.functions`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa

from operators import build
from operators import expr as ir
from operators.schema import Schema
from remote_frame.aggregates import AggregateMethods, WindowMethods
from remote_frame.core import Node, as_expr, as_order, as_type, derived, flat, literal
from remote_frame.errors import ExpressionError
from remote_frame.numbers import NumberMethods
from remote_frame.rowwise import RowMethods
from remote_frame.scopes import Order, Scope, position

if TYPE_CHECKING:
    from remote_frame.dates import DateMethods
    from remote_frame.namespaces import NameMethods
    from remote_frame.strings import StringMethods

__all__ = ["Expr", "Restricted", "Several", "When", "as_expr", "col", "lit", "when"]


class Expr(RowMethods, NumberMethods, AggregateMethods, WindowMethods, Node):
    """An expression; made by `col`, `lit`, `when`, functions, methods and operators.

    Not hashable and without a truth value: ``==`` makes an expression. Combine conditions with
    ``&``, ``|`` and ``~``.

    Examples
    --------
    >>> (col("qty") * 2 + 1).alias("more")
    ((qty * 2) + 1) as more
    >>> sales.select(col("qty") * 2).collect().to_pydict()
    {'qty': [10, None, 14, 2, 4]}
    """

    __slots__ = ()

    @classmethod
    def column(cls, name: str) -> Expr:
        """The column called `name`."""
        return cls(lambda scope: scope.column(name), name, name)

    def alias(self, name: str) -> Expr:
        """The same expression, making a column called `name`."""
        return derived(
            [self],
            lambda e: Expr(
                e.lower, e.text, e.root_name, name=name, aggregates=e.aggregates, rows=e.rows
            ),
        )

    def over(
        self,
        *partition_by: Any,
        order_by: Any = None,
        descending: bool | Sequence[bool] = False,
        nulls_last: bool | Sequence[bool] = True,
    ) -> Expr:
        """The expression over the rows that agree on `partition_by`, beside each of them.

        An aggregate is over the whole partition, whatever `order_by` says; what depends on the
        order of rows (`shift`, `cum_sum`, `rolling_mean`, `row_number`, …) needs `order_by`.

        Parameters
        ----------
        partition_by
            Names or expressions; none: all rows are one partition.
        order_by
            A name, an expression or a list of them.
        descending, nulls_last
            Of `order_by`, one for all or one for each.

        Examples
        --------
        >>> most = col("qty").max().over("store")
        >>> so_far = col("qty").cum_sum().over("store", order_by="item")
        >>> of_a = sales.filter(col("store") == "a").sort("item")
        >>> of_a.select("qty", most=most, so_far=so_far.cast("int64")).collect().to_pydict()
        {'qty': [5, 7, 2], 'most': [7, 7, 7], 'so_far': [5, 12, 14]}
        """
        parts = [Expr.column(p) if isinstance(p, str) else as_expr(p) for p in flat(partition_by)]
        order = () if order_by is None else as_order(order_by, descending, nulls_last)
        if any(p.aggregates for p in parts) or any(o.by.aggregates for o in order):
            raise ExpressionError("over(): a bare aggregate cannot divide or order rows")
        shown = [*(p.text for p in parts)]
        if order:
            shown.append(f"order_by=[{', '.join(o.by.text for o in order)}]")

        def make(e: Expr) -> Expr:
            return Expr(
                lambda scope: e.lower(scope.over(parts, order)),
                f"{e.text}.over({', '.join(shown)})",
                e.root_name,
                name=e._name,
            )

        return derived([self], make)

    def filter(self, *conditions: Any) -> Expr:
        """Of the rows to be aggregated only those for which all conditions are true.

        Examples
        --------
        >>> sales.select(col("qty").filter(col("store") == "a").max()).collect().to_pydict()
        {'qty': [7]}
        """
        if not conditions:
            raise ExpressionError("filter() needs a condition")
        condition = as_expr(conditions[0])
        for more in conditions[1:]:
            condition = condition & more

        def make(e: Expr, c: Expr) -> Expr:
            where = c if not isinstance(e, Restricted) or e.where is None else e.where & c
            inner, order = (e.inner, e.order) if isinstance(e, Restricted) else (e, ())
            return Restricted(inner, where, order, f"{e.text}.filter({c.text})")

        return derived([self, condition], make)

    def sort_by(
        self,
        *by: Any,
        descending: bool | Sequence[bool] = False,
        nulls_last: bool | Sequence[bool] = True,
    ) -> Expr:
        """The rows to be aggregated in an order, for `first`, `last` and `str.join`.

        Examples
        --------
        >>> sales.select(col("store").sort_by("qty").first()).collect().to_pydict()
        {'store': [None]}
        """
        order = as_order(by, descending, nulls_last)

        def make(e: Expr) -> Expr:
            inner, where = (e.inner, e.where) if isinstance(e, Restricted) else (e, None)
            shown = ", ".join(o.by.text for o in order)
            return Restricted(inner, where, order, f"{e.text}.sort_by({shown})")

        return derived([self], make)

    @property
    def str(self) -> StringMethods:
        """Operations on strings."""
        from remote_frame.strings import StringMethods

        return StringMethods(self)

    @property
    def dt(self) -> DateMethods:
        """Parts of dates and timestamps."""
        from remote_frame.dates import DateMethods

        return DateMethods(self)

    @property
    def name(self) -> NameMethods:
        """Changes of the resulting column's name."""
        from remote_frame.namespaces import NameMethods

        return NameMethods(self)


Node.expression = Expr


class Several(Expr):
    """An expression that stands for as many columns as a frame has of some kind."""

    __slots__ = ("_expand",)

    def __init__(self, expand: Callable[[Schema], list[Expr]], text: str) -> None:
        super().__init__(self._refuse, text)
        self._expand = expand

    @property
    def several(self) -> bool:
        """It does."""
        return True

    def expand(self, schema: Schema) -> list[Expr]:
        """One expression for each column."""
        return self._expand(schema)

    def _refuse(self, scope: Scope) -> NoReturn:
        raise ExpressionError(f"{self.text} may stand for several columns: name one of them here")


class Restricted(Expr):
    """A column of which an aggregate will take some rows, or in an order."""

    __slots__ = ("inner", "order", "where")

    def __init__(
        self, inner: Expr, where: Expr | None, order: tuple[Order, ...], text: str
    ) -> None:
        super().__init__(self._refuse, text, inner.root_name, name=inner._name)
        self.inner = inner
        self.where = where
        self.order = order

    def _refuse(self, scope: Scope) -> NoReturn:
        raise ExpressionError(f"{self.text}: an aggregate must follow a filter() or sort_by()")


class When:
    """The unfinished ``when(…).then(…)``: `otherwise` finishes it, `when` adds a branch.

    Without an `otherwise` it is null where no condition was true.
    """

    __slots__ = ("_branches", "_open")

    def __init__(self, branches: tuple[tuple[Expr, Expr], ...], condition: Expr | None) -> None:
        self._branches = branches
        self._open = condition

    def when(self, *conditions: Any) -> When:
        """Other conditions, tried where those before were not true."""
        if self._open is not None:
            raise ExpressionError("when() needs its then() before the next when()")
        return When(self._branches, _all_of(conditions))

    def then(self, value: Any) -> When:
        """The value where the condition is true; a string is a value, not a column."""
        if self._open is None:
            raise ExpressionError("then() needs a when() before it")
        return When((*self._branches, (self._open, as_expr(value))), None)

    def otherwise(self, value: Any) -> Expr:
        """The value where no condition was true."""
        if self._open is not None:
            raise ExpressionError("when() needs its then() before otherwise()")
        parts = [e for condition, value in self._branches for e in (value, condition)]
        return derived([*parts, as_expr(value)], _chosen)

    def finished(self) -> Expr:
        """The expression that it is without an `otherwise`."""
        return self.otherwise(None)

    def alias(self, name: str) -> Expr:
        """It is null where no condition was true; the column is called `name`."""
        return self.finished().alias(name)


def _chosen(*parts: Expr) -> Expr:
    """Values and conditions in turn, and the last value."""
    *pairs, last = parts
    branches = list(zip(pairs[1::2], pairs[::2], strict=True))

    def lower(scope: Scope) -> ir.Expr:
        lowered = [(c.lower(scope), v.lower(scope)) for c, v in branches]
        return build.case(lowered, last.lower(scope))

    shown = "".join(f"when({c.text}).then({v.text})." for c, v in branches)
    return Expr(
        lower,
        f"{shown}otherwise({last.text})",
        pairs[0].root_name,
        name=pairs[0]._name,
        aggregates=any(e.aggregates for e in parts),
        rows=any(e.rows for e in parts),
    )


def col(*names: Any) -> Expr:
    """The columns of these names.

    Parameters
    ----------
    names
        A name; several, or a list of them; ``"*"`` for all; a pattern between ``^`` and ``$``; or
        Arrow types, for the columns that have one of them.

    Examples
    --------
    >>> sales.select(col("item", "qty").max()).collect().to_pydict()
    {'item': [3], 'qty': [7]}
    >>> sales.select(col("^s.*$")).columns
    ['store']
    """
    wanted = flat(names)
    if not wanted or not all(isinstance(n, str | pa.DataType) for n in wanted):
        shown = repr(names[0]) if len(names) == 1 else repr(names)
        raise ExpressionError(f"col() wants names of columns, or types, not {shown}")
    if len(wanted) == 1 and isinstance(wanted[0], str) and not _is_pattern(wanted[0]):
        return Expr.column(wanted[0])

    def expand(schema: Schema) -> list[Expr]:
        chosen: dict[str, None] = {}
        for one in wanted:
            chosen.update(dict.fromkeys(_named(one, schema)))
        return [Expr.column(name) for name in chosen]

    return Several(expand, f"col({', '.join(repr(n) for n in wanted)})")


def _is_pattern(name: str) -> bool:
    return name == "*" or (len(name) > 1 and name.startswith("^") and name.endswith("$"))


def _named(one: str | pa.DataType, schema: Schema) -> list[str]:
    if isinstance(one, pa.DataType):
        return [f.name for f in schema if f.type == one]
    if one == "*":
        return list(schema.names)
    if _is_pattern(one):
        return [n for n in schema.names if re.match(one, n)]
    position(schema, one)
    return [one]


def lit(value: Any, dtype: Any = None) -> Expr:
    """A constant; `dtype` says its type where Python's does not.

    Examples
    --------
    >>> sales.select(lit(1, "int8").alias("one")).schema.field("one").type
    DataType(int8)
    """
    if isinstance(value, Expr):
        return value if dtype is None else value.cast(as_type(dtype))
    return literal(value, dtype)


def when(*conditions: Any) -> When:
    """Begin ``when(condition).then(value).otherwise(value)``; all conditions must be true.

    Examples
    --------
    >>> size = when(col("qty") > 4).then(lit("big")).otherwise(lit("small"))
    >>> sales.select(size.alias("size")).collect().to_pydict()
    {'size': ['big', 'small', 'big', 'small', 'small']}
    """
    return When((), _all_of(conditions))


def _all_of(conditions: Sequence[Any]) -> Expr:
    if not conditions:
        raise ExpressionError("when() needs a condition")
    found = as_expr(conditions[0])
    for more in conditions[1:]:
        found = found & more
    return found
