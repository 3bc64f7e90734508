"""Expressions of Substrait as the IR's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import pyarrow as pa

from engine.dialect.signatures import Signature, Signatures
from engine.dialect.types import ir_type
from engine.errors import PlanningError, UnsupportedSqlError
from engine.substrait.types import literal, type_of
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
from operators.rel import Rel
from operators.schema import Schema
from operators.types import BOOL, INT64, same_type

__all__ = ["ExpressionReader", "cast"]

_NATIVE: Mapping[str, str] = MappingProxyType(
    {
        "equal": "equal",
        "not_equal": "not_equal",
        "lt": "less",
        "lte": "less_equal",
        "gt": "greater",
        "gte": "greater_equal",
        "is_distinct_from": "is_distinct_from",
        "is_not_distinct_from": "is_not_distinct_from",
        "and": "and",
        "or": "or",
        "not": "not",
        "is_null": "is_null",
        "is_not_null": "is_not_null",
    }
)
"""Functions that the dialect leaves to DataFusion; all are boolean."""

_BITS: Mapping[str, str] = MappingProxyType(
    {"bitwise_and": "bitwise_and", "bitwise_shift_right": "shift_right"}
)
"""Functions that DataFusion makes itself, to take GROUPING apart."""

_WINDOWS: Mapping[str, pa.DataType] = MappingProxyType(
    {
        "row_number": INT64,
        "rank": INT64,
        "dense_rank": INT64,
        "ntile": INT64,
        "percent_rank": pa.float64(),
        "cume_dist": pa.float64(),
    }
)
_VALUE_WINDOWS = frozenset({"lag", "lead", "first_value", "last_value", "nth_value"})
_DISTINCT = 2
_RANGE_BOUNDS = 2


def cast(expr: Expr, type: pa.DataType) -> Expr:
    """`expr` as `type`, untouched if it is that already."""
    return expr if same_type(expr.type, type) else Cast(type, expr)


class ExpressionReader:
    """Reads the expressions of one plan.

    Parameters
    ----------
    functions
        Names of the plan's extension functions by anchor.
    signatures
        The dialect's stand-ins.
    relation
        Reads the relation of a subquery.
    """

    def __init__(
        self,
        functions: Mapping[int, str],
        signatures: Signatures,
        relation: Callable[[Any], Rel],
    ) -> None:
        self._functions = functions
        self._signatures = signatures
        self._relation = relation

    def read(self, message: Any, schema: Schema) -> Expr:
        """An expression over the columns of `schema`.

        Raises
        ------
        PlanningError
            If it is of a kind, or calls a function, that no rule of the dialect lets through.
        """
        kind = message.WhichOneof("rex_type")
        value: Any = getattr(message, kind) if kind else None
        match kind:
            case "selection":
                index = value.direct_reference.struct_field.field
                return Column(schema[index].type, index)
            case "literal":
                return literal(value)
            case "cast":
                return cast(self.read(value.input, schema), type_of(value.type))
            case "scalar_function":
                return self._call(value, schema)
            case "if_then":
                return self._case(value, schema)
            case "singular_or_list":
                arg = self.read(value.value, schema)
                options = tuple(self.read(o, schema) for o in value.options)
                return InList(BOOL, arg, options)
            case "subquery":
                return self._subquery(value, schema)
            case "window_function":
                return self._window(value, schema)
        raise PlanningError(f"Substrait expressions of kind {kind} are not understood")

    def aggregate(self, message: Any, schema: Schema) -> Aggregate:
        """A measure of an aggregation."""
        call = message.measure
        name = self._name(call.function_reference)
        args = self._arguments(call.arguments, schema)
        signature = self._signatures.get(name)
        if name == "count":
            function, type = "count", INT64
            # count(1) and count(*) arrive alike: a constant that is not NULL counts rows.
            if len(args) == 1 and isinstance(args[0], Lit) and args[0].value is not None:
                args = ()
        elif signature is not None and signature.kind == "aggregate":
            function, type = signature.function, ir_type(signature.result)
        else:
            raise PlanningError(f"the aggregate {name} has no rule")
        return Aggregate(
            type,
            function,
            args,
            distinct=call.invocation == _DISTINCT,
            filter=self.read(message.filter, schema) if message.HasField("filter") else None,
            order=tuple(self.sort_key(s, schema) for s in call.sorts),
        )

    def sort_key(self, message: Any, schema: Schema) -> SortKey:
        """An ORDER BY term."""
        # 1 and 2: ascending with NULLs first and last; 3 and 4: descending, likewise.
        if message.direction not in (1, 2, 3, 4):
            raise PlanningError(f"the sort direction {message.direction} is not understood")
        return SortKey(
            self.read(message.expr, schema),
            descending=message.direction in (3, 4),
            nulls_first=message.direction in (1, 3),
        )

    def _name(self, anchor: int) -> str:
        return self._functions[anchor].split(":")[0]

    def _arguments(self, messages: Sequence[Any], schema: Schema) -> tuple[Expr, ...]:
        return tuple(self.read(m.value, schema) for m in messages if m.HasField("value"))

    def _call(self, message: Any, schema: Schema) -> Expr:
        name = self._name(message.function_reference)
        args = self._arguments(message.arguments, schema)
        signature = self._signatures.get(name)
        if signature is not None:
            return _stand_in(signature, args)
        if name in _NATIVE:
            return Call(BOOL, _NATIVE[name], args)
        if name in _BITS:
            return Call(INT64, _BITS[name], tuple(cast(a, INT64) for a in args))
        raise PlanningError(f"the function {name} has no rule")

    def _case(self, message: Any, schema: Schema) -> Expr:
        clauses = list(message.ifs)
        base: Expr | None = None
        # CASE x WHEN arrives as a first clause without a result.
        if clauses and not clauses[0].then.WhichOneof("rex_type"):
            base = self.read(getattr(clauses.pop(0), "if"), schema)
        branches = []
        for clause in clauses:
            condition = self.read(getattr(clause, "if"), schema)
            if base is not None:
                condition = Call(BOOL, "equal", (base, condition))
            branches.append((condition, self.read(clause.then, schema)))
        otherwise = (
            self.read(getattr(message, "else"), schema) if message.HasField("else") else None
        )
        type = next(
            (v.type for _, v in branches if not (isinstance(v, Lit) and v.value is None)),
            branches[0][1].type,
        )
        return Case(type, tuple(branches), otherwise)

    def _subquery(self, message: Any, schema: Schema) -> Expr:
        match message.WhichOneof("subquery_type"):
            case "scalar":
                rel = self._relation(message.scalar.input)
                return ScalarSubquery(rel.schema[0].type, rel)
            case "set_predicate":
                return Exists(BOOL, self._relation(message.set_predicate.tuples))
            case "in_predicate":
                needle = self.read(message.in_predicate.needles[0], schema)
                return InSubquery(BOOL, needle, self._relation(message.in_predicate.haystack))
        raise UnsupportedSqlError("this kind of subquery is not supported")

    def _window(self, message: Any, schema: Schema) -> Expr:
        name = self._name(message.function_reference)
        args = self._arguments(message.arguments, schema)
        signature = self._signatures.get(name)
        distinct = False
        if name == "count":
            function, type = "count", INT64
            if len(args) == 1 and isinstance(args[0], Lit) and args[0].value is not None:
                args = ()
        elif name in _WINDOWS:
            function, type = name, _WINDOWS[name]
        elif name in _VALUE_WINDOWS:
            function, type = name, args[0].type
        elif signature is not None and signature.kind in ("aggregate", "distinct"):
            function, type = signature.function, ir_type(signature.result)
            distinct = signature.kind == "distinct"
        else:
            raise PlanningError(f"the window function {name} has no rule")
        order = tuple(self.sort_key(s, schema) for s in message.sorts)
        frame = None
        if name not in _WINDOWS and name not in ("lag", "lead"):
            unit: Literal["rows", "range"] = (
                "range" if message.bounds_type == _RANGE_BOUNDS else "rows"
            )
            frame = (unit, _bound(message.lower_bound), _bound(message.upper_bound))
            if not order and unit == "range":
                # Without ORDER BY all rows are peers: the frame is the partition.
                frame = None
        partitions = tuple(self.read(p, schema) for p in message.partitions)
        return Window(type, function, args, partitions, order, frame, distinct)


def _stand_in(signature: Signature, args: tuple[Expr, ...]) -> Expr:
    type = ir_type(signature.result)
    if signature.kind == "scalar":
        return Call(type, signature.function, args)
    return Cast(type, args[0], try_cast=signature.kind == "try_cast")


def _bound(message: Any) -> FrameBound:
    match message.WhichOneof("kind"):
        case "preceding":
            return FrameBound("preceding", message.preceding.offset)
        case "following":
            return FrameBound("following", message.following.offset)
        case "current_row":
            return FrameBound("current")
    return FrameBound("unbounded")
