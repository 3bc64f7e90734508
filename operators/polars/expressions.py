"""IR expressions, aggregates and windows as text of Polars expressions.

A text that is written gives DuckDB's answer or raises; what neither can be said of raises
`UnsupportedPlan` here. It may raise where DuckDB does not: beyond ASCII in UPPER and LOWER, at
intermediate results that Polars computes for rows that need none. A fragment that raises is
therefore to be run by DuckDB, which also says it in its own words.

Sums of floats, and averages and deviations of anything, are the same up to rounding in the last
places: the order in which either engine adds is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import UnsupportedPlan
from operators.expr import Aggregate, Cast, Column, Expr, FrameBound, SortKey, Window
from operators.function_types import literal_integer
from operators.polars.folding import fold
from operators.polars.scalars import Scalars
from operators.polars.text import Strength, Text
from operators.polars.types import VALUES, polars_type
from operators.rewrite import columns_used
from operators.types import canonical, is_hugeint

__all__ = ["Ordering", "Writer"]

_DEVIATIONS = {
    "stddev_samp": "std()",
    "stddev_pop": "std(ddof=0)",
    "var_samp": "var()",
    "var_pop": "var(ddof=0)",
}
_RANKS = {"rank": "min", "dense_rank": "dense"}
_SHORT = 40
"""Characters of an expression that may be written twice."""
_START = FrameBound("unbounded")
_HERE = FrameBound("current")
# After and before every rank that Polars gives.
_LAST, _FIRST = 2**32 - 1, 0


class Ordering(NamedTuple):
    """Arguments of ``sort``, one item per key."""

    keys: list[str]
    descending: list[bool]
    nulls_last: list[bool]


class Writer(Scalars):
    """Writes scalar expressions, aggregates and windows; see `Scalars` for the parameters."""

    def sort(self, keys: Sequence[SortKey]) -> Ordering:
        """What to ``sort`` by. Polars has NaN as the greatest number there, as DuckDB."""
        return Ordering(
            [self.text(k.expr).code for k in keys],
            [k.descending for k in keys],
            [not k.nulls_first for k in keys],
        )

    # Aggregates

    def aggregate(self, measure: Aggregate, *, grouped: bool = False) -> str:
        """Source of an aggregating `pl.Expr` for ``agg`` and ``select``.

        `grouped` says that every group has a row, so that a sum of what is never NULL is not NULL.
        """
        if measure.order:
            raise UnsupportedPlan(f"an ordered {measure.function}")
        return self._aggregate(
            measure.function,
            measure.args,
            measure.type,
            distinct=measure.distinct,
            filter=measure.filter,
            grouped=grouped,
        ).code

    def _aggregate(
        self,
        function: str,
        args: Sequence[Expr],
        type: pa.DataType,
        *,
        distinct: bool = False,
        filter: Expr | None = None,
        grouped: bool = False,
    ) -> Text:
        if function == "count" and (not args or not self.may_be_null(args[0])) and not distinct:
            if filter is None:
                return Text("pl.len().cast(pl.Int64)")
            return self._rows(filter).then("sum()").then("cast(pl.Int64)")
        if len(args) != 1:
            raise UnsupportedPlan(f"{function} of {len(args)} arguments")
        arg = fold(args[0])
        if not columns_used(arg):
            raise UnsupportedPlan(f"{function} of a constant")
        kind = canonical(arg.type)
        if function == "avg" and pt.is_temporal(kind):
            raise UnsupportedPlan(f"an average of {kind}, which Polars rounds down")
        text = self.exact(arg)
        if filter is not None:
            text = text.then(f"filter({self._rows(filter).code})")
        if function == "count":
            text = text.then("drop_nulls().n_unique()" if distinct else "count()")
            return text.then("cast(pl.Int64)")
        if function in ("min", "max"):
            return _extreme(function, kind, text)
        if function == "any_value":
            return text.then("drop_nulls().first()")
        if function != "sum" and function != "avg" and function not in _DEVIATIONS:
            raise UnsupportedPlan(f"the aggregate {function}")
        if function == "avg" and not _sums_first(kind):
            return _mean(kind, text.then("unique()") if distinct else text)
        # Of no value at all it is NULL, where Polars' sum and deviation are 0.
        never_empty = grouped and filter is None and not self.may_be_null(arg)
        if never_empty or (function in _DEVIATIONS and not function.endswith("_pop")):
            return _computed(function, arg, type, text.then("unique()") if distinct else text)
        once, again = _named(text)
        found = _computed(function, arg, type, again.then("unique()") if distinct else again)
        return Text(f"pl.when({once.tight}.count() > 0).then({found.code})")

    def _rows(self, filter: Expr) -> Text:
        if not columns_used(filter):
            raise UnsupportedPlan("a constant FILTER")
        return self.text(filter)

    # Windows

    def window(self, window: Window) -> str:
        """Source of a window expression, one value per row in the rows' own order."""
        function, keys = window.function, window.order_by
        if window.distinct:
            raise UnsupportedPlan(f"distinct values in a window of {function}")
        if any(not columns_used(k.expr) for k in keys):
            keys = tuple(k for k in keys if columns_used(k.expr))
        if function in _RANKS:
            return self._ranked(window, keys)
        if function == "row_number":
            text = Text("pl.int_range(1, pl.len() + 1)")
            return self._over(text, window, keys).then("cast(pl.Int64)").code
        if function in ("lag", "lead"):
            return self._shifted(window, keys)
        whole = window.frame is None and not keys
        if window.frame is not None:
            unit, low, high = window.frame
            whole = low == _START and high.kind == "unbounded"
            if not whole and (unit, low, high) == ("rows", _START, _HERE) and keys:
                return self._over(self._running(window), window, keys).code
        if not whole:
            raise UnsupportedPlan(f"the frame of {function}")
        text = self._aggregate(function, window.args, window.type, grouped=True)
        return self._over(text, window, ()).code

    def _over(self, text: Text, window: Window, keys: Sequence[SortKey]) -> Text:
        parts = []
        for expr in window.partition_by:
            if columns_used(expr):
                parts.append(self._by(expr))
        if not keys:
            return text.then(f"over({', '.join(parts) or 'pl.lit(0)'})")
        alike = len({(k.descending, k.nulls_first) for k in keys}) == 1
        terms = [self._by(k.expr) for k in keys] if alike else [self._code(k).code for k in keys]
        order = terms[0] if len(terms) == 1 else f"[{', '.join(terms)}]"
        listed = [*(parts or ["None"]), f"order_by={order}"]
        if alike and keys[0].descending:
            listed.append("descending=True")
        if alike and not keys[0].nulls_first and any(self.may_be_null(k.expr) for k in keys):
            listed.append("nulls_last=True")
        return text.then(f"over({', '.join(listed)})")

    def _by(self, expr: Expr) -> str:
        """A key: a column goes by its name."""
        text = self.text(expr)
        return text.code[7:-1] if isinstance(fold(expr), Column) else text.code

    def _code(self, key: SortKey) -> Text:
        """Numbers that stand in the order of `key`, in which NULLs are where it says."""
        null = _FIRST if key.nulls_first else _LAST
        ranks = self.text(key.expr).then(f'rank("dense"{_descending(key)})')
        return ranks.then(f"fill_null({null})") if self.may_be_null(key.expr) else ranks

    def _ranked(self, window: Window, keys: Sequence[SortKey]) -> str:
        method = _RANKS[window.function]
        if not keys:
            return self._over(Text("pl.len() * 0 + 1", Strength.SUM), window, ()).code
        key = keys[0]
        if len(keys) > 1:
            codes = ", ".join(f"k{i}={self._code(k).code}" for i, k in enumerate(keys))
            text = Text(f'pl.struct({codes}).rank("{method}")')
        elif not self.may_be_null(key.expr):
            text = self.text(key.expr).then(f'rank("{method}"{_descending(key)})')
        elif method == "min" and not key.nulls_first:
            value = self.text(key.expr)
            text = value.then(f'rank("min"{_descending(key)})')
            text = text.then(f"fill_null({value.tight}.count() + 1)")
        else:
            text = self._code(key).then(f'rank("{method}")')
        return self._over(text, window, ()).then("cast(pl.Int64)").code

    def _shifted(self, window: Window, keys: Sequence[SortKey]) -> str:
        arg, *rest = window.args
        places = literal_integer(rest[0]) if rest else 1
        if places is None or not keys:
            raise UnsupportedPlan(f"{window.function} of no constant distance or order")
        offset = str(places if window.function == "lag" else -places)
        if len(rest) > 1:
            default = fold(rest[1])
            if columns_used(default):
                raise UnsupportedPlan(f"a default of {window.function} that is not constant")
            offset += f", fill_value={self.exact(default).code}"
        text = self.exact(arg).then(f"shift({offset})")
        return self._over(text, window, keys).code

    def _running(self, window: Window) -> Text:
        """An aggregate of the rows up to this one; a NULL leaves it as it was."""
        function = window.function
        if function == "count" and (not window.args or not self.may_be_null(window.args[0])):
            return Text("pl.int_range(1, pl.len() + 1).cast(pl.Int64)")
        arg = fold(window.args[0])
        if not columns_used(arg):
            raise UnsupportedPlan(f"{function} of a constant")
        kind, text = canonical(arg.type), self.exact(arg)
        if function == "count":
            return text.then("cum_count().cast(pl.Int64)")
        if function == "sum":
            text = _total(kind, window.type, text, "cum_sum")
        elif function in ("min", "max") and not pt.is_floating(kind):
            text = text.then(f"cum_{function}()")
        else:
            raise UnsupportedPlan(f"a running {function} of {kind}")
        return text.then("forward_fill()") if self.may_be_null(arg) else text


def _descending(key: SortKey) -> str:
    return ", descending=True" if key.descending else ""


def _named(text: Text) -> tuple[Text, Text]:
    """An expression where it stands first, and where it stands again in the same term."""
    if len(text.code) <= _SHORT:
        return text, text
    return Text(f"({VALUES} := {text.code})"), Text(VALUES)


def _computed(function: str, arg: Expr, type: pa.DataType, values: Text) -> Text:
    """A sum, an exact mean or a deviation of values of which there are some."""
    kind = canonical(arg.type)
    if function == "sum":
        return _total(kind, type, values, "sum")
    return _exact_mean(kind, values) if function == "avg" else _deviation(function, arg, values)


def _total(kind: pa.DataType, type: pa.DataType, text: Text, method: str) -> Text:
    """A sum, in a type that it cannot leave unseen."""
    if pt.is_decimal(kind) or pt.is_float64(kind):
        return text.then(f"{method}()")
    if pt.is_float32(kind):
        return text.then(f"cast(pl.Float64).{method}()")
    wide = "pl.Int128" if pt.is_integer(kind) and kind.bit_width == 64 else "pl.Int64"
    return text.then(f"cast({wide}).{method}().cast({polars_type(type)})")


def _extreme(function: str, kind: pa.DataType, text: Text) -> Text:
    if function == "max" and pt.is_floating(kind):
        return text.then("nan_max()")  # NaN is the greatest; `max` passes over it, as `min` may
    return text.then(f"{function}()")


def _sums_first(kind: pa.DataType) -> bool:
    """Whether ``mean``, which adds up floats, loses what the exact sum has."""
    if pt.is_decimal(kind):
        return bool(kind.scale)
    return bool(pt.is_integer(kind)) and kind.bit_width == 64


def _mean(kind: pa.DataType, text: Text) -> Text:
    if pt.is_float32(kind):
        text = text.then("cast(pl.Float64)")
    return text.then("mean()")


def _exact_mean(kind: pa.DataType, text: Text) -> Text:
    """The mean of decimals or 64-bit integers as DuckDB has it: of the exact sum, rounded once."""
    if pt.is_integer(kind):
        total = f"{text.tight}.cast(pl.Int128).sum()"
        return Text(f"{total} / {text.tight}.count().cast(pl.Int64)", Strength.PRODUCT)
    scale = 10**kind.scale
    total = f"({text.tight}.sum() * {scale}).cast(pl.Int128)"
    return Text(f"{total} / ({text.tight}.count().cast(pl.Int64) * {scale})", Strength.PRODUCT)


def _deviation(function: str, arg: Expr, text: Text) -> Text:
    kind = canonical(arg.type)
    if pt.is_decimal(kind) or is_hugeint(kind):
        text = text.then("cast(pl.Float64)")
    found = text.then(_DEVIATIONS[function])
    if not pt.is_floating(kind) or (isinstance(arg, Cast) and not pt.is_floating(arg.arg.type)):
        return found
    # Of infinities and NaN it raises, as the cast of what is no finite number does.
    otherwise = f"otherwise({found.code}.cast(pl.Int8).cast(pl.Float64))"
    return Text(f"pl.when({found.code}.is_finite()).then({found.code}).{otherwise}")
