"""Typed constructors of expressions, with DuckDB's implicit casts."""

from __future__ import annotations

import datetime
import decimal as pydecimal
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.types as pt

from operators import functions
from operators.errors import PlanError
from operators.expr import (
    Aggregate,
    Call,
    Case,
    Cast,
    Column,
    Exists,
    Expr,
    FrameBound,
    InList,
    InSubquery,
    Lit,
    ScalarSubquery,
    SortKey,
    Window,
)
from operators.rel import (
    Rel,
)
from operators.schema import Schema
from operators.types import (
    BOOL,
    DATE,
    FLOAT64,
    HUGEINT,
    INT32,
    INT64,
    STRING,
    TIMESTAMP,
    canonical,
    common_type,
    decimal,
    same_type,
)

__all__ = [
    "aggregate",
    "call",
    "case",
    "cast",
    "col",
    "common_of",
    "conjunction",
    "exists",
    "in_list",
    "in_subquery",
    "lit",
    "require_boolean",
    "scalar_subquery",
    "sort_key",
    "window",
]


def col(schema: Schema, which: int | str) -> Column:
    """A column of a relation with this schema, by position or by (unique) name."""
    if isinstance(which, str):
        found = [i for i, name in enumerate(schema.names) if name == which]
        if len(found) != 1:
            what = "is ambiguous" if found else "does not exist"
            known = ", ".join(schema.names) or "none"
            raise PlanError(f"column {which!r} {what}; there are {known}")
        which = found[0]
    if not 0 <= which < len(schema):
        raise PlanError(f"column {which} does not exist; there are {len(schema)}")
    return Column(canonical(schema[which].type), which)


def lit(value: Any, type: pa.DataType | None = None) -> Lit:
    """A literal. Without `type`, DuckDB's choice: int32 if it fits, then int64, then HUGEINT;
    `Decimal` keeps its digits.
    """
    if type is not None:
        return Lit(canonical(type), value)
    match value:
        case None:
            return Lit(pa.null(), None)
        case bool():
            return Lit(BOOL, value)
        case int():
            if -(2**31) <= value < 2**31:
                return Lit(INT32, value)
            if -(2**63) <= value < 2**63:
                return Lit(INT64, value)
            return Lit(HUGEINT, pydecimal.Decimal(value))
        case float():
            return Lit(FLOAT64, value)
        case str():
            return Lit(STRING, value)
        case bytes():
            return Lit(pa.binary(), value)
        case pydecimal.Decimal():
            _, digits, exponent = value.as_tuple()
            if not isinstance(exponent, int):
                raise PlanError(f"{value} is not a decimal number")
            scale = max(-exponent, 0)
            width = max(len(digits) + max(exponent, 0), scale, 1)
            return Lit(decimal(width, scale), value)
        case datetime.datetime():
            return Lit(TIMESTAMP, value)
        case datetime.date():
            return Lit(DATE, value)
    raise PlanError(f"{value!r} cannot be a literal")


def cast(expr: Expr, type: pa.DataType, *, try_cast: bool = False) -> Expr:
    """`expr` as `type`; `expr` itself where that changes nothing, and a typed NULL for a bare
    NULL.
    """
    type = canonical(type)
    if same_type(expr.type, type):
        return expr
    if isinstance(expr, Lit) and expr.value is None:
        return Lit(type, None)
    return Cast(type, expr, try_cast)


def _comparable(left: Expr, right: Expr) -> tuple[Expr, Expr]:
    """Both sides of a comparison in types that DuckDB compares; a string follows the other side."""
    for one, other in ((left, right), (right, left)):
        if pt.is_string(canonical(one.type)) and not pt.is_string(canonical(other.type)):
            if pt.is_null(other.type):
                break
            changed = cast(one, other.type)
            return (changed, right) if one is left else (left, changed)
    wanted = common_type(left.type, right.type)
    return _loosely(left, wanted), _loosely(right, wanted)


def _loosely(expr: Expr, wanted: pa.DataType) -> Expr:
    """`expr` as `wanted`, but numbers of one kind stay as they are: DuckDB widens them itself, and
    more cheaply.
    """
    given = canonical(expr.type)
    if pt.is_integer(given) and pt.is_integer(wanted):
        return expr
    if (pt.is_decimal(given) or pt.is_integer(given)) and pt.is_decimal(wanted):
        return expr
    return cast(expr, wanted)


def call(function: str, *args: Expr) -> Expr:
    """A scalar call with its result type and DuckDB's implicit casts.

    Raises
    ------
    PlanError
        If there is no such function, or it does not take such arguments.
    """
    if function in functions.COMPARISONS and len(args) == 2:
        try:
            args = _comparable(*args)
        except PlanError as error:
            raise PlanError(f"{function}: {error}") from None
    elif function in ("coalesce", "greatest", "least") and args:
        type = functions.scalar_type(function, args)
        args = tuple(cast(a, type) for a in args)
    elif function in ("and", "or"):
        args = tuple(_flatten(function, args))
        if len(args) == 1 and pt.is_boolean(args[0].type):
            return args[0]
    elif function in ("add", "subtract", "multiply", "modulo", "integer_divide") and len(args) == 2:
        args = _signs_agree(*args)
    return Call(functions.scalar_type(function, args), function, tuple(args))


def _flatten(function: str, args: Iterable[Expr]) -> Iterable[Expr]:
    for arg in args:
        if isinstance(arg, Call) and arg.function == function:
            yield from arg.args
        else:
            yield arg


def _signs_agree(left: Expr, right: Expr) -> tuple[Expr, Expr]:
    """Signed beside unsigned: DuckDB's overloads are erratic there, so both are cast to the common
    type.
    """
    if pt.is_integer(left.type) and pt.is_integer(right.type):  # noqa: SIM102
        if pt.is_signed_integer(left.type) != pt.is_signed_integer(right.type):
            wanted = common_type(left.type, right.type)
            return cast(left, wanted), cast(right, wanted)
    return left, right


def conjunction(terms: Sequence[Expr]) -> Expr | None:
    """The terms joined by AND; None if there are none."""
    return call("and", *terms) if terms else None


def case(branches: Sequence[tuple[Expr, Expr]], otherwise: Expr | None = None) -> Case:
    """Searched CASE; all values are cast to their common type."""
    if not branches:
        raise PlanError("CASE needs a branch")
    type = branches[0][1].type
    for value in [v for _, v in branches[1:]] + ([otherwise] if otherwise is not None else []):
        type = common_type(type, value.type)
    for condition, _ in branches:
        require_boolean(condition, "CASE condition")
    return Case(
        canonical(type),
        tuple((c, cast(v, type)) for c, v in branches),
        None if otherwise is None else cast(otherwise, type),
    )


def in_list(arg: Expr, options: Sequence[Expr]) -> InList:
    """`arg IN (options…)`; options are cast to what `arg` can be compared with."""
    if not options:
        raise PlanError("IN needs at least one option")
    type = common_of([o for o in options if not pt.is_string(canonical(o.type))])
    if pt.is_null(type):  # Strings only (or NULLs): they follow the argument.
        type = canonical(arg.type)
    elif not pt.is_string(canonical(arg.type)):
        type = common_type(arg.type, type)
    return InList(BOOL, _loosely(arg, type), tuple(_loosely(o, type) for o in options))


def scalar_subquery(rel: Rel) -> ScalarSubquery:
    """The single value of a one-column relation."""
    if len(rel.schema) != 1:
        raise PlanError(f"a scalar subquery has one column, not {len(rel.schema)}")
    return ScalarSubquery(rel.schema[0].type, rel)


def exists(rel: Rel) -> Exists:
    """Whether `rel` has a row."""
    return Exists(BOOL, rel)


def in_subquery(arg: Expr, rel: Rel) -> InSubquery:
    """`arg IN (SELECT …)`."""
    if len(rel.schema) != 1:
        raise PlanError(f"IN wants a subquery of one column, not {len(rel.schema)}")
    common_type(arg.type, rel.schema[0].type)
    return InSubquery(BOOL, arg, rel)


def sort_key(expr: Expr, *, descending: bool = False, nulls_first: bool = False) -> SortKey:
    """One ORDER BY term. NULLs go last by default, in both directions, as in DuckDB."""
    return SortKey(expr, descending, nulls_first)


def aggregate(
    function: str,
    *args: Expr,
    distinct: bool = False,
    filter: Expr | None = None,
    order: Sequence[SortKey] = (),
) -> Aggregate:
    """An aggregate with its result type."""
    if filter is not None:
        require_boolean(filter, f"filter of {function}")
    type = functions.aggregate_type(function, args)
    return Aggregate(type, function, tuple(args), distinct, filter, tuple(order))


def window(
    function: str,
    *args: Expr,
    partition_by: Sequence[Expr] = (),
    order_by: Sequence[SortKey] = (),
    frame: tuple[Literal["rows", "range"], FrameBound, FrameBound] | None = None,
    distinct: bool = False,
) -> Window:
    """A window function, or an aggregate over a window, with its result type."""
    type = functions.window_type(function, args)
    keys, order = tuple(partition_by), tuple(order_by)
    return Window(type, function, tuple(args), keys, order, frame, distinct)


def common_of(column: Iterable[Expr]) -> pa.DataType:
    """The common type of several expressions."""
    type: pa.DataType = pa.null()
    for expr in column:
        type = common_type(type, expr.type)
    return type


def require_boolean(expr: Expr, what: str) -> None:
    if not (pt.is_boolean(expr.type) or pt.is_null(expr.type)):
        raise PlanError(f"{what} must be a boolean, not {expr.type}")
