"""Where an expression stands: what names, aggregates and windows mean there.

The plan IR allows a window only at the top of a projection and an aggregate only in an
aggregation, while users write both anywhere. A `RowScope` collects them while expressions are
lowered; `RowScope.extend` then puts them below as columns of their own, in as many steps as they
build on one another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from operators import build
from operators import expr as ir
from operators.rel import Filter, Limit, Project, Rel, Sort
from operators.rewrite import columns_used
from operators.schema import Schema
from remote_frame.errors import AmbiguousColumnError, ColumnNotFoundError, ExpressionError

if TYPE_CHECKING:
    from remote_frame.expressions import Expr

__all__ = [
    "WHOLE",
    "AggregateCall",
    "Frame",
    "GroupScope",
    "Order",
    "OverScope",
    "RowScope",
    "Scope",
    "WindowCall",
    "ordering",
    "position",
]

Frame = tuple[Literal["rows", "range"], ir.FrameBound, ir.FrameBound]

WHOLE: Frame = ("rows", ir.FrameBound("unbounded"), ir.FrameBound("unbounded"))
"""All rows of a partition, whatever its order."""

# Aggregates that leave nulls out, so that a condition may turn other rows into nulls.
_SKIP_NULLS = frozenset(
    (
        *("sum", "avg", "min", "max", "count", "median", "quantile_cont", "product"),
        *("stddev_samp", "stddev_pop", "var_samp", "var_pop", "bool_and", "bool_or", "any_value"),
    )
)
_ORDERED = {"first": "first_value", "last": "last_value"}


@dataclass(frozen=True, slots=True)
class Order:
    """One term of an order among rows."""

    by: Expr
    descending: bool = False
    nulls_last: bool = True

    def lower(self, scope: Scope) -> list[ir.SortKey]:
        """Sort keys of the IR: as many as the expression stands for columns."""
        return [
            build.sort_key(
                e.lower(scope), descending=self.descending, nulls_first=not self.nulls_last
            )
            for e in self.by.expand(scope.schema)
        ]


@dataclass(frozen=True, slots=True)
class AggregateCall:
    """An aggregate as it was written; `shown` is what its user calls it."""

    function: str
    shown: str
    args: tuple[Expr, ...] = ()
    distinct: bool = False
    where: Expr | None = None
    order: tuple[Order, ...] = ()


@dataclass(frozen=True, slots=True)
class WindowCall:
    """A window function as it was written.

    `order` is its own (a rank's), or None for that of `over`; `partition` divides the partitions
    of `over` further. `ordered` says that it means nothing without an order.
    """

    function: str
    shown: str
    args: tuple[Expr, ...] = ()
    partition: tuple[Expr, ...] = ()
    order: tuple[Order, ...] | None = None
    frame: Frame | None = None
    ordered: bool = True


class Scope(Protocol):
    """Where an expression stands."""

    @property
    def schema(self) -> Schema:
        """The columns that expressions may name."""

    def column(self, name: str) -> ir.Expr:
        """The column called `name`."""

    def aggregate(self, call: AggregateCall) -> ir.Expr:
        """The value of an aggregate."""

    def window(self, call: WindowCall) -> ir.Expr:
        """The value of a window function outside of `over`."""

    def over(self, partition: Sequence[Expr], order: Sequence[Order]) -> Scope:
        """The same place, in which aggregates and window functions are those of a window."""


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


class RowScope:
    """One row of a relation, and whatever its expressions need of other rows.

    Parameters
    ----------
    schema
        The columns that may be named; they are the first of the relation.
    width
        How many columns the relation has, those without a name included.
    partition
        What aggregates are over: rows that agree on these. All rows if there are none.
    """

    def __init__(
        self, schema: Schema, width: int | None = None, partition: Sequence[ir.Expr] = ()
    ) -> None:
        self._schema = schema
        self._width = len(schema) if width is None else width
        self._partition = partition
        self._positions: dict[str, int] = {}
        self._added: dict[ir.Expr | ir.Aggregate, int] = {}

    @property
    def schema(self) -> Schema:
        """The columns that may be named."""
        return self._schema

    def column(self, name: str) -> ir.Expr:
        """The column called `name`."""
        if not self._positions:
            names = self._schema.names
            several = {n for n, times in Counter(names).items() if times > 1}
            self._positions = {n: i for i, n in enumerate(names) if n not in several}
        found = self._positions.get(name)
        return build.col(self._schema, position(self._schema, name) if found is None else found)

    def aggregate(self, call: AggregateCall) -> ir.Expr:
        """An aggregate over all rows (or those of the partition), beside each of them."""
        if self._partition:
            return OverScope(self, self._partition, ()).aggregate(call)
        return self.add(lowered_aggregate(call, self))

    def window(self, call: WindowCall) -> ir.Expr:
        """A window function over all rows."""
        return OverScope(self, self._partition, ()).window(call)

    def over(self, partition: Sequence[Expr], order: Sequence[Order]) -> Scope:
        """Windows over rows that agree on `partition`."""
        parts = [e.lower(self) for p in partition for e in p.expand(self._schema)]
        keys = [k for o in order for k in o.lower(self)]
        return OverScope(self, parts, keys)

    def add(self, item: ir.Expr | ir.Aggregate) -> ir.Expr:
        """The column that will hold `item`; equal ones are computed once."""
        if isinstance(item, ir.Column):
            return item
        number = self._added.setdefault(item, len(self._added))
        return ir.Column(item.type, self._width + number)

    @property
    def extended(self) -> bool:
        """Whether expressions need columns that the relation does not have yet."""
        return bool(self._added)

    def extend(self, plan: Rel) -> Rel:
        """`plan` with the columns that the lowered expressions need, in the order it had."""
        if not self._added:
            return plan
        keys = ordering(plan)
        extended = plan
        layer: list[ir.Expr | ir.Aggregate] = []
        for item in self._added:
            if layer and (
                isinstance(item, ir.Aggregate) != isinstance(layer[0], ir.Aggregate)
                or any(i >= len(extended.schema) for i in columns_used(item))
            ):
                extended, layer = _with_layer(extended, layer), []
            layer.append(item)
        extended = _with_layer(extended, layer)
        return build.sort(extended, keys) if keys else extended

    def project(self, plan: Rel, exprs: Sequence[ir.Expr], names: Sequence[str]) -> Rel:
        """The projection of `plan` to lowered expressions."""
        windows = dict(enumerate(self._added, self._width))
        tops = {e.index for e in exprs if isinstance(e, ir.Column) and e.index in windows}
        inner = columns_used(*(e for e in exprs if not isinstance(e, ir.Column)))
        direct = (
            all(isinstance(w, ir.Window) for w in windows.values())
            and not inner & windows.keys()
            and tops == windows.keys()
            and not any(columns_used(w) & windows.keys() for w in windows.values())
            and not ordering(plan)
        )
        if not direct:
            return build.project(self.extend(plan), exprs, names)
        made: list[ir.Expr] = []
        for e in exprs:
            window = windows.get(e.index) if isinstance(e, ir.Column) else None
            made.append(window if isinstance(window, ir.Window) else e)
        return build.project(plan, made, names)


def _with_layer(plan: Rel, layer: Sequence[ir.Expr | ir.Aggregate]) -> Rel:
    """`plan` with more columns: windows and values by a projection, aggregates by a cross join."""
    names = [f"_{len(plan.schema) + i}" for i in range(len(layer))]
    measures = [m for m in layer if isinstance(m, ir.Aggregate)]
    if measures:
        return build.join(plan, build.aggregation(plan, [], measures, names=names), "cross")
    known = [build.col(plan.schema, i) for i in range(len(plan.schema))]
    values = [e for e in layer if not isinstance(e, ir.Aggregate)]
    return build.project(plan, [*known, *values], [*plan.schema.names, *names])


def ordering(plan: Rel) -> list[ir.SortKey]:
    """By which of its columns the rows of `plan` are known to be sorted; none if they are not."""
    match plan:
        case Sort(keys=keys):
            return list(keys)
        case Filter() | Limit():
            return ordering(plan.input)
        case Project(exprs=exprs):
            places: dict[int, int] = {}
            for i, e in enumerate(exprs):
                if isinstance(e, ir.Column):
                    places.setdefault(e.index, i)
            found: list[ir.SortKey] = []
            for key in ordering(plan.input):
                if not isinstance(key.expr, ir.Column) or key.expr.index not in places:
                    break
                column = ir.Column(key.expr.type, places[key.expr.index])
                found.append(ir.SortKey(column, key.descending, key.nulls_first))
            return found
    return []


def lowered_aggregate(call: AggregateCall, rows: RowScope) -> ir.Aggregate:
    """An aggregate of the IR, its arguments taken from `rows`."""
    if call.function in _ORDERED and not call.order:
        raise ExpressionError(
            f"{call.shown}() depends on the order of rows, and a frame has none: say it with "
            f"{call.shown}(order_by=…) or sort_by() before it"
        )
    return build.aggregate(
        call.function,
        *(a.lower(rows) for a in call.args),
        distinct=call.distinct,
        filter=None if call.where is None else call.where.lower(rows),
        order=[k for o in call.order for k in o.lower(rows)],
    )


@dataclass
class OverScope:
    """A row and the window around it."""

    rows: RowScope
    partition: Sequence[ir.Expr]
    order: Sequence[ir.SortKey]

    @property
    def schema(self) -> Schema:
        """The columns that may be named."""
        return self.rows.schema

    def column(self, name: str) -> ir.Expr:
        """The column called `name`."""
        return self.rows.column(name)

    def aggregate(self, call: AggregateCall) -> ir.Expr:
        """An aggregate over the whole partition."""
        args = [a.lower(self) for a in call.args]
        if call.function in _ORDERED:
            order = [k for o in call.order for k in o.lower(self)] or list(self.order)
            if not order:
                raise _unordered(call.shown)
            if call.where is not None:
                raise ExpressionError(f"{call.shown}() over a window cannot have a filter()")
            return self._add(_ORDERED[call.function], args, order=order, frame=WHOLE)
        if call.order:
            raise ExpressionError(f"{call.shown}() over a window cannot have an order of its own")
        if call.where is not None:
            condition = call.where.lower(self)
            kept: ir.Expr = args[0] if args else build.lit(True)
            if call.function not in _SKIP_NULLS:
                raise ExpressionError(f"{call.shown}() over a window cannot have a filter()")
            args = [build.case([(condition, kept)]), *args[1:]]
        if call.distinct:
            return self._distinct(call.shown, args)
        return self._add(call.function, args)

    def _distinct(self, shown: str, args: Sequence[ir.Expr]) -> ir.Expr:
        """How many different values: the greatest of their dense ranks."""
        if len(args) != 1:
            raise ExpressionError(f"{shown}() cannot stand in a window")
        (arg,) = args
        rank = self._add("dense_rank", [], order=[build.sort_key(arg)])
        ranked = build.case([(build.call("is_not_null", arg), rank)])
        return build.call("coalesce", self._add("max", [ranked]), build.lit(0))

    def window(self, call: WindowCall) -> ir.Expr:
        """A window function over the partition."""
        args = [a.lower(self) for a in call.args]
        extra = [e.lower(self) for e in call.partition]
        if call.order is None:
            order = list(self.order)
        else:
            order = [k for o in call.order for k in o.lower(self)]
        if call.ordered and not order:
            raise _unordered(call.shown)
        return self._add(call.function, args, extra, order, call.frame)

    def over(self, partition: Sequence[Expr], order: Sequence[Order]) -> Scope:
        """A window inside an expression that is itself over a window: the inner one holds."""
        return self.rows.over(partition, order)

    def _add(
        self,
        function: str,
        args: Sequence[ir.Expr],
        extra: Sequence[ir.Expr] = (),
        order: Sequence[ir.SortKey] = (),
        frame: Frame | None = None,
    ) -> ir.Expr:
        # A partition by a plain column can be scattered; one by an expression cannot.
        parts = [self.rows.add(p) for p in (*self.partition, *extra)]
        made = build.window(function, *args, partition_by=parts, order_by=order, frame=frame)
        return self.rows.add(made)


def _unordered(shown: str) -> ExpressionError:
    return ExpressionError(
        f"{shown}() depends on the order of rows, and a frame has none: "
        "say it with .over(order_by=…)"
    )


@dataclass
class GroupScope:
    """One group: keys by name, and aggregates, collected while expressions are lowered."""

    schema: Schema
    keys: Sequence[tuple[str, ir.Expr]]
    rows: RowScope
    measures: dict[ir.Aggregate, int] = field(default_factory=dict)

    def column(self, name: str) -> ir.Expr:
        """The key called `name`."""
        for i, (key, lowered) in enumerate(self.keys):
            if key == name:
                return ir.Column(lowered.type, i)
        if name not in self.schema.names:
            raise ColumnNotFoundError(name, self.schema.names)
        raise ExpressionError(
            f"column {name!r} is neither a key nor aggregated: which of a group's values is meant?"
        )

    def aggregate(self, call: AggregateCall) -> ir.Expr:
        """The column that will hold the aggregate; equal ones are computed once."""
        made = lowered_aggregate(call, self.rows)
        number = self.measures.setdefault(made, len(self.measures))
        return ir.Column(made.type, len(self.keys) + number)

    def window(self, call: WindowCall) -> ir.Expr:
        """Refuse: a group has one value."""
        raise ExpressionError(
            f"{call.shown}() gives a value for each row, and a group has one: aggregate it, or use "
            "with_columns() and over()"
        )

    def over(self, partition: Sequence[Expr], order: Sequence[Order]) -> Scope:
        """Refuse: a group has one value."""
        raise ExpressionError(
            "over() gives a value for each row, and a group has one: aggregate it, or use "
            "with_columns()"
        )
