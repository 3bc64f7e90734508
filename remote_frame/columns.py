"""Methods of a frame that choose, compute and name its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from operators import build
from remote_frame.building import built, check_unique, stands_for_null
from remote_frame.core import as_expr, as_type, flat
from remote_frame.errors import ExpressionError
from remote_frame.expressions import Expr, col
from remote_frame.functions import row_number
from remote_frame.grouping import aggregate
from remote_frame.planned import Planned
from remote_frame.scopes import RowScope, position

__all__ = ["Columns"]


class Columns(Planned):
    """The methods of a `RemoteFrame` that are about columns."""

    __slots__ = ()

    def select(self, *exprs: Any, **named: Any) -> Self:
        """These columns only: names, expressions, lists of them, or ``name=expression`` (a string
        is a name here, too).

        If they are nothing but aggregates, the result has one row; an aggregate beside other
        columns has the same value in every row.

        Examples
        --------
        >>> sales.select("item", half=col("qty") / 2).head(1).collect().to_pydict()
        {'item': [1], 'half': [2.5]}
        >>> sales.select(col("qty").max(), remote_frame.len()).collect().to_pydict()
        {'qty': [7], 'len': [5]}
        >>> sales.select("qty", best=col("qty") == col("qty").max()).head(1).collect().to_pydict()
        {'qty': [5], 'best': [False]}
        """
        wanted = self._expressions(exprs, named)
        if not wanted:
            raise ExpressionError("select() needs at least one column")
        check_unique([e.output_name for e in wanted], "select")
        if any(e.aggregates for e in wanted) and not any(e.rows for e in wanted):
            return self._with(built("select", aggregate, self._plan, [], wanted))
        return self._project(wanted, "select")

    def with_columns(self, *exprs: Any, **named: Any) -> Self:
        """All columns, and these: one of the same name is replaced where it stands.

        Examples
        --------
        >>> sales.with_columns(col("qty").fill_null(0), dear=col("price") > 2).columns
        ['item', 'store', 'qty', 'price', 'day', 'dear']
        """
        wanted = self._expressions(exprs, named)
        check_unique([e.output_name for e in wanted], "with_columns")
        new = {e.output_name: e for e in wanted}
        if not new:
            return self
        kept = [new.pop(name) if name in new else Expr.column(name) for name in self.columns]
        return self._project([*kept, *new.values()], "with_columns")

    def drop(self, *names: Any, strict: bool = True) -> Self:
        """All columns but these: names or selectors; `strict`: each must exist.

        Examples
        --------
        >>> sales.drop("day", "price").columns
        ['item', 'store', 'qty']
        """
        given = [n for n in flat(names) if strict or not isinstance(n, str) or n in self.columns]
        gone = {position(self._plan.schema, name) for name in self._names(given, "drop")}
        kept = [i for i in range(len(self._plan.schema)) if i not in gone]
        if not kept:
            raise ExpressionError("drop() would leave no column")
        return self._with(build.select_columns(self._plan, kept))

    def rename(self, names: Mapping[str, str] | Callable[[str], str]) -> Self:
        """The same columns, some under other names: a mapping, or a function of the name.

        Examples
        --------
        >>> sales.rename({"qty": "amount"}).rename(str.upper).columns
        ['ITEM', 'STORE', 'AMOUNT', 'PRICE', 'DAY']
        """
        if callable(names):
            renamed = [names(name) for name in self.columns]
        else:
            for name in names:
                position(self._plan.schema, name)
            renamed = [names.get(name, name) for name in self.columns]
        check_unique(renamed, "rename")
        columns = [build.col(self._plan.schema, i) for i in range(self.width)]
        return self._with(built("rename", build.project, self._plan, columns, renamed))

    def cast(self, dtypes: Any, *, strict: bool = True) -> Self:
        """Columns as other types: a mapping from names (or selectors) to types, or one for all.

        Examples
        --------
        >>> sales.cast({"qty": "int8"}).schema.field("qty").type
        DataType(int8)
        """
        if not isinstance(dtypes, Mapping):
            wanted = dict.fromkeys(self.columns, as_type(dtypes))
        else:
            wanted = {
                name: as_type(dtype)
                for given, dtype in dtypes.items()
                for name in self._names([given], "cast")
            }
        return self.with_columns(*(col(n).cast(t, strict=strict) for n, t in wanted.items()))

    def with_row_index(
        self,
        name: str = "index",
        offset: int = 0,
        *,
        order_by: Any,
        descending: bool | Sequence[bool] = False,
    ) -> Self:
        """A first column that numbers the rows in an order.

        Examples
        --------
        >>> frame = sales.select("qty").with_row_index(order_by="qty").sort("index")
        >>> frame.collect().to_pydict()
        {'index': [0, 1, 2, 3, 4], 'qty': [1, 2, 5, 7, None]}
        """
        number = row_number().over(order_by=order_by, descending=descending) + (offset - 1)
        return self.select(number.alias(name), *map(Expr.column, self.columns))

    def fill_null(self, value: Any, *, subset: Any = None) -> Self:
        """`value` instead of null in the columns whose type it fits (or those named).

        Examples
        --------
        >>> sales.select("store", "qty").fill_null(0).collect().to_pydict()
        {'store': ['a', 'b', 'a', None, 'a'], 'qty': [5, 0, 7, 1, 2]}
        """
        if subset is not None:
            names = self._names(flat([subset]), "fill_null")
        else:
            type = as_expr(value).lower(RowScope(self._plan.schema)).type
            names = [f.name for f in self._plan.schema if stands_for_null(type, f.type)]
        return self.with_columns(*(col(n).fill_null(value) for n in names))

    def fill_nan(self, value: Any) -> Self:
        """`value` instead of NaN in columns of floats."""
        return self.with_columns(*(col(n).fill_nan(value) for n in self._floats()))
