"""What expressions are made of: a recipe, its name, and how one is derived from others.

`Node` is `Expr` (`remote_frame.expressions`) without its vocabulary. The modules of the vocabulary
(`rowwise`, `numbers`, `aggregates`, `strings`, `dates`) are written with the functions here.
"""

from __future__ import annotations

import datetime
import decimal as pydecimal
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from operators import build
from operators import expr as ir
from operators.errors import OperatorError
from operators.schema import Schema
from operators.types import decimal
from remote_frame.errors import ExpressionError
from remote_frame.scopes import AggregateCall, Frame, Order, Scope, WindowCall
from remote_frame.types import type_from_text

if TYPE_CHECKING:
    from remote_frame.expressions import Expr

__all__ = [
    "Node",
    "aggregate",
    "as_expr",
    "as_order",
    "as_type",
    "call",
    "counted",
    "derived",
    "flat",
    "infix",
    "literal",
    "rule",
    "spread",
    "typed",
    "window",
]

Lower = Callable[[Scope], ir.Expr]

_PYTHON_TYPES: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
    datetime.date: pa.date32(),
    datetime.datetime: pa.timestamp("us"),
    pydecimal.Decimal: pa.decimal128(38, 10),
}


class Node:
    """A recipe for a column: it becomes an expression of the plan IR when a `Scope` says what
    names mean.

    Parameters
    ----------
    lower
        Makes the expression of the IR.
    text
        How the expression is shown.
    root
        The name of the column that it comes from, which is also its own unless `name` is given.
    aggregates
        Whether an aggregate stands in it outside of `over`.
    rows
        Whether its value depends on the row.
    """

    __slots__ = ("_lower", "_name", "_root", "_text", "aggregates", "chain", "rows")
    __hash__ = None  # type: ignore[assignment]

    # Set by the subclass that has the vocabulary: the modules of the vocabulary stand below it.
    expression: ClassVar[type[Expr]]

    def __init__(
        self,
        lower: Lower,
        text: str,
        root: str | None = None,
        *,
        name: str | None = None,
        aggregates: bool = False,
        rows: bool = True,
    ) -> None:
        self._lower = lower
        self._text = text
        self._root = root
        self._name = name
        self.aggregates = aggregates
        self.rows = rows
        # Operator and operands of a chain, so that a thousand conditions do not nest.
        self.chain: tuple[str, tuple[Expr, ...]] | None = None

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

    def expand(self, schema: Schema) -> list[Expr]:
        """The expressions that this one stands for over columns of `schema`; mostly itself."""
        return [self]  # type: ignore[list-item]

    @property
    def several(self) -> bool:
        """Whether it may stand for more or fewer columns than one."""
        return False

    @property
    def output_name(self) -> str:
        """The name of the column that the expression makes: an alias, or that of the first column
        that it comes from.
        """
        if self._name is not None:
            return self._name
        return self._text if self._root is None else self._root

    @property
    def root_name(self) -> str:
        """The name of the first column that it comes from, whatever alias it has."""
        return self._text if self._root is None else self._root

    @property
    def text(self) -> str:
        """How the expression is shown, its alias left out."""
        return self._text

    def __repr__(self) -> str:
        return self._text if self._name is None else f"{self._text} as {self._name}"

    def __bool__(self) -> bool:
        raise ExpressionError(
            f"{self._text} has no truth value here: combine conditions with &, | and ~"
        )

    def __iter__(self) -> Iterator[Any]:
        raise ExpressionError(f"{self._text} is an expression: it cannot be iterated over")


def derived(parts: Sequence[Any], make: Callable[..., Expr]) -> Expr:
    """`make(*parts)`; column by column where a part stands for several.

    Parts that stand for several columns go side by side, the others beside each of them.
    """
    if not any(p.several for p in parts):
        return make(*parts)

    def expand(schema: Schema) -> list[Expr]:
        found = [p.expand(schema) if p.several else None for p in parts]
        counts = {len(f) for f in found if f is not None}
        if len(counts) > 1:
            raise ExpressionError(
                f"{text}: its parts stand for different numbers of columns, "
                + ", ".join(map(str, sorted(counts)))
            )
        return [
            make(*(p if f is None else f[i] for p, f in zip(parts, found, strict=True)))
            for i in range(counts.pop())
        ]

    text = make(*map(_stand_in, parts)).text
    return _several(expand, text)


def spread(parts: Sequence[Expr], make: Callable[..., Expr]) -> Expr:
    """`make(*parts)`, a part that stands for several columns being so many arguments."""
    if not any(p.several for p in parts):
        return make(*parts)

    def expand(schema: Schema) -> list[Expr]:
        return [make(*chain.from_iterable(p.expand(schema) for p in parts))]

    return _several(expand, make(*map(_stand_in, parts)).text)


def _several(expand: Callable[[Schema], list[Expr]], text: str) -> Expr:
    from remote_frame.expressions import Several

    return Several(expand, text)


def _stand_in(part: Expr) -> Expr:
    """Something that looks like `part` in a text."""
    return Node.expression(part.lower, part.text, part.text) if part.several else part


def literal(value: Any, dtype: Any = None) -> Expr:
    """A constant."""
    wanted = None if dtype is None else as_type(dtype)

    def lower(scope: Scope) -> ir.Expr:
        made = build.lit(value)
        return made if wanted is None else build.cast(made, wanted)

    return Node.expression(lower, repr(value), "literal", rows=False)


def as_expr(value: Any) -> Expr:
    """`value` if it is an expression, else a constant."""
    from remote_frame.expressions import When

    if isinstance(value, When):
        return value.finished()
    return value if isinstance(value, Node.expression) else literal(value)


def flat(values: Iterable[Any]) -> list[Any]:
    """`values`, lists and tuples among them opened."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, list | tuple | set | frozenset):
            found += flat(value)
        elif isinstance(value, Iterator):
            found += flat(list(value))
        else:
            found.append(value)
    return found


def call(function: str, *args: Any, text: str | None = None) -> Expr:
    """A scalar function of the IR's vocabulary over expressions and constants."""

    def make(*exprs: Expr) -> Expr:
        return typed(
            exprs,
            lambda *lowered: build.call(function, *lowered),
            text or _method(exprs[0], function, exprs[1:]),
        )

    return derived([as_expr(a) for a in args], make)


def typed(exprs: Sequence[Expr], make: Callable[..., ir.Expr], text: str) -> Expr:
    """An expression made of the lowered `exprs`, which must each stand for one column."""
    return Node.expression(
        lambda scope: make(*(e.lower(scope) for e in exprs)),
        text,
        exprs[0].root_name,
        # A column's alias is its name until an operation says otherwise, as in Polars.
        name=exprs[0]._name,
        aggregates=any(e.aggregates for e in exprs),
        rows=any(e.rows for e in exprs),
    )


def rule(parts: list[Any], make: Callable[..., ir.Expr], text: Callable[..., str]) -> Expr:
    """`make` over what the lowered `parts` stand for, shown as `text` says of theirs."""
    return derived(parts, lambda *e: typed(e, make, text(*(one.text for one in e))))


def _method(first: Expr, name: str, rest: Sequence[Any]) -> str:
    return f"{first.text}.{name}({', '.join(e.text for e in rest)})"


def infix(function: str, sign: str, left: Any, right: Any) -> Expr:
    """A function that is written between its arguments."""

    def make(a: Expr, b: Expr) -> Expr:
        made = lambda x, y: build.call(function, x, y)  # noqa: E731
        return typed([a, b], made, f"({a.text} {sign} {b.text})")

    return derived([as_expr(left), as_expr(right)], make)


def aggregate(
    function: str,
    arg: Node,
    *rest: Any,
    shown: str,
    distinct: bool = False,
    order: Sequence[Order] = (),
) -> Expr:
    """An aggregate of a column, of the rows and in the order that `filter` and `sort_by` left."""
    from remote_frame.expressions import Restricted

    others = [as_expr(r) for r in rest]

    def make(one: Expr) -> Expr:
        if one.aggregates and not one.rows:
            raise ExpressionError(f"{one!r} is an aggregate already")
        inner, where, given = one, None, tuple(order)
        if isinstance(one, Restricted):
            inner, where, given = one.inner, one.where, given or one.order
        made = AggregateCall(function, shown, (inner, *others), distinct, where, given)
        return Node.expression(
            lambda scope: scope.aggregate(made),
            _method(one, shown, others),
            one.root_name,
            name=one._name,
            aggregates=True,
            rows=False,
        )

    return derived([arg], make)


def counted(arg: Node, shown: str = "len") -> Expr:
    """How many rows there are, of those that `filter` left."""
    from remote_frame.expressions import Restricted

    def make(one: Expr) -> Expr:
        where = one.where if isinstance(one, Restricted) else None
        made = AggregateCall("count", shown, (), where=where)
        return Node.expression(
            lambda scope: scope.aggregate(made),
            _method(one, shown, ()),
            one.root_name,
            name=one._name,
            aggregates=True,
            rows=False,
        )

    return derived([arg], make)


def window(
    function: str,
    *args: Any,
    shown: str,
    partition: Sequence[Expr] = (),
    order: Sequence[Order] | None = None,
    frame: Frame | None = None,
    ordered: bool = True,
    text: str | None = None,
) -> Expr:
    """A window function; without arguments it is called like itself."""
    own = None if order is None else tuple(order)

    def make(*exprs: Expr) -> Expr:
        made = WindowCall(function, shown, exprs, tuple(partition), own, frame, ordered)
        shown_as = text or (_method(exprs[0], shown, exprs[1:]) if exprs else f"{shown}()")
        return Node.expression(
            lambda scope: scope.window(made),
            shown_as,
            exprs[0].root_name if exprs else shown,
            name=exprs[0]._name if exprs else None,
        )

    return derived([as_expr(a) for a in args], make)


def as_order(
    by: Any, descending: bool | Sequence[bool] = False, nulls_last: bool | Sequence[bool] = True
) -> tuple[Order, ...]:
    """An order by names and expressions, one direction for all or one for each.

    Raises
    ------
    ExpressionError
        If there are not as many directions as columns.
    """
    given = flat([by])
    terms = [Node.expression.column(e) if isinstance(e, str) else as_expr(e) for e in given]

    def flags(what: str, value: bool | Sequence[bool]) -> list[bool]:
        if isinstance(value, bool):
            return [value] * len(terms)
        if len(value) != len(terms):
            raise ExpressionError(f"{len(terms)} columns to order by but {len(value)} `{what}`")
        return list(value)

    return tuple(
        Order(e, down, last)
        for e, down, last in zip(
            terms, flags("descending", descending), flags("nulls_last", nulls_last), strict=True
        )
    )


def as_type(dtype: Any) -> pa.DataType:
    """An Arrow type from itself, its name (``int64``, ``decimal(12,2)``) or a Python type.

    Raises
    ------
    ExpressionError
        If it is none of these.
    """
    if isinstance(dtype, pa.DataType):
        return dtype
    if isinstance(dtype, type) and dtype in _PYTHON_TYPES:
        return _PYTHON_TYPES[dtype]
    if not isinstance(dtype, str):
        raise ExpressionError(
            f"{dtype!r} is not a type: give an Arrow type, its name, or a Python type"
        )
    try:
        if dtype.startswith("decimal(") and dtype.endswith(")"):
            precision, scale = dtype[8:-1].split(",")
            return decimal(int(precision), int(scale))
        return pa.timestamp("us") if dtype == "timestamp" else type_from_text(dtype)
    except (ValueError, OperatorError) as error:
        raise ExpressionError(f"cast: {error}") from None
