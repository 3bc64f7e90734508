"""From DataFusion's optimized plan, as Substrait, to the IR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from google.protobuf.message import DecodeError
from substrait import algebra_pb2, plan_pb2

from engine.dialect.signatures import Signatures
from engine.dialect.syntax import ALL_ROWS
from engine.errors import NestingError, PlanningError
from engine.substrait.expressions import ExpressionReader
from engine.substrait.joins import Side, make_join
from engine.substrait.rewrite import remap
from engine.substrait.types import type_of
from operators.expr import Call, Column, Expr, Lit
from operators.rel import (
    Aggregation,
    Filter,
    JoinKind,
    Limit,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
    Source,
    Values,
)
from operators.schema import Field, Schema
from operators.types import BOOL, INT64

__all__ = ["PlanReader", "TableSource"]


@dataclass(frozen=True, slots=True)
class TableSource:
    """A registered table as the planner saw it.

    Attributes
    ----------
    source, schema
        What a scan reads, and all of its columns.
    columns
        Positions of the columns that the planner saw.
    """

    source: Source
    schema: Schema
    columns: tuple[int, ...]

    def narrowed(self) -> Schema:
        """The columns that the planner saw."""
        return self.schema.select(self.columns)


_JOINS: Mapping[str, tuple[JoinKind, bool]] = {
    # Substrait's join type: the IR's, and whether the sides change places.
    "INNER": ("inner", False),
    "OUTER": ("full", False),
    "LEFT": ("left", False),
    "RIGHT": ("right", False),
    "LEFT_SEMI": ("semi", False),
    "LEFT_ANTI": ("anti", False),
    "LEFT_MARK": ("mark", False),
    "RIGHT_SEMI": ("semi", True),
    "RIGHT_ANTI": ("anti", True),
    "RIGHT_MARK": ("mark", True),
}
_UNION_ALL = 6


class PlanReader:
    """Reads one serialized plan.

    Parameters
    ----------
    data
        A ``substrait.Plan``.
    signatures
        The dialect's stand-ins.
    table
        Where tables come from.
    """

    def __init__(
        self, data: bytes, signatures: Signatures, table: Callable[[str], TableSource]
    ) -> None:
        self._plan = plan_pb2.Plan()
        _allow_depth()
        try:
            self._plan.ParseFromString(data)
        except DecodeError:
            raise NestingError("the query nests too deeply") from None
        functions = {
            e.extension_function.function_anchor: e.extension_function.name
            for e in self._plan.extensions
        }
        self._table = table
        self._expressions = ExpressionReader(functions, signatures, self.relation)
        self._readers: Mapping[str, Callable[[Any], Rel]] = {
            "read": self._read,
            "filter": self._filter,
            "project": self._project,
            "join": self._join,
            "cross": self._cross,
            "aggregate": self._aggregate,
            "sort": self._sort,
            "fetch": self._fetch,
            "set": self._set,
        }

    def plan(self) -> Rel:
        """The whole plan.

        Raises
        ------
        PlanningError
            If it holds what the IR does not know.
        """
        return self.relation(self._plan.relations[0].root.input)

    def relation(self, message: Any) -> Rel:
        """One relation."""
        kind = message.WhichOneof("rel_type")
        if kind not in self._readers:
            raise PlanningError(f"Substrait relations of kind {kind} are not understood")
        return self._readers[kind](getattr(message, kind))

    def _read(self, message: Any) -> Rel:
        if message.HasField("virtual_table"):
            return self._virtual_table(message)
        table = self._table(message.named_table.names[-1])
        columns = table.columns
        if message.HasField("projection"):
            columns = tuple(columns[i.field] for i in message.projection.select.struct_items)
        positions = dict(enumerate(table.columns))
        conditions = [
            remap(self._expressions.read(getattr(message, name), table.narrowed()), positions)
            for name in ("filter", "best_effort_filter")
            if message.HasField(name)
        ]
        schema = table.schema
        rel: Rel = Scan(schema.select(columns), table.source, schema, columns, _all_of(conditions))
        return _emitted(message, rel)

    def _virtual_table(self, message: Any) -> Rel:
        types = [type_of(t) for t in message.base_schema.struct.types]
        names = list(message.base_schema.names)
        schema = Schema(tuple(Field(n, t) for n, t in zip(names, types, strict=True)))
        table = message.virtual_table
        rows = tuple(
            tuple(self._expressions.read(f, Schema(())) for f in row.fields)
            for row in table.expressions
        )
        return _emitted(message, Values(schema, rows))

    def _filter(self, message: Any) -> Rel:
        child = self.relation(message.input)
        predicate = self._expressions.read(message.condition, child.schema)
        return _emitted(message, Filter(child.schema, child, predicate))

    def _project(self, message: Any) -> Rel:
        child = self.relation(message.input)
        exprs: list[Expr] = [Column(f.type, i) for i, f in enumerate(child.schema)]
        exprs += [self._expressions.read(e, child.schema) for e in message.expressions]
        if message.common.HasField("emit"):
            exprs = [exprs[i] for i in message.common.emit.output_mapping]
        return _projected(child, exprs)

    def _join(self, message: Any) -> Rel:
        name = algebra_pb2.JoinRel.JoinType.Name(message.type).removeprefix("JOIN_TYPE_")
        if name not in _JOINS:
            raise PlanningError(f"{name} joins are not understood")
        kind, swapped = _JOINS[name]
        left, right = self.relation(message.left), self.relation(message.right)
        both = Schema((*left.schema, *right.schema))
        conditions = [
            self._expressions.read(getattr(message, part), both)
            for part in ("expression", "post_join_filter")
            if message.HasField(part)
        ]
        rel = make_join(Side(left), Side(right), kind, conditions, swapped)
        return _emitted(message, rel)

    def _cross(self, message: Any) -> Rel:
        left, right = self.relation(message.left), self.relation(message.right)
        return _emitted(message, make_join(Side(left), Side(right), "cross", [], swapped=False))

    def _aggregate(self, message: Any) -> Rel:
        child = self.relation(message.input)
        listed = [self._expressions.read(e, child.schema) for e in message.grouping_expressions]
        # ROLLUP and CUBE repeat their expressions: each becomes one key.
        keys = tuple(dict.fromkeys(listed))
        sets = [
            tuple(dict.fromkeys(keys.index(listed[r]) for r in g.expression_references))
            for g in message.groupings
        ]
        measures = tuple(self._expressions.aggregate(m, child.schema) for m in message.measures)
        grouped = len(sets) > 1
        fields = [Field(_label(k, child), k.type) for k in keys]
        if grouped:
            fields.append(Field("grouping_id", INT64, nullable=False))
        fields += [Field(m.function, m.type) for m in measures]
        if not grouped and sets and len(sets[0]) != len(keys):
            raise PlanningError("a single grouping set that leaves out keys is not understood")
        rel = Aggregation(
            Schema(tuple(fields)), child, keys, measures, tuple(sets) if grouped else None
        )
        return _emitted(message, rel)

    def _sort(self, message: Any) -> Rel:
        child = self.relation(message.input)
        keys = tuple(self._expressions.sort_key(s, child.schema) for s in message.sorts)
        return _emitted(message, Sort(child.schema, child, keys))

    def _fetch(self, message: Any) -> Rel:
        child = self.relation(message.input)
        count, offset = self._amount(message, "count"), self._amount(message, "offset")
        if count == ALL_ROWS and not offset:
            return _emitted(message, child)
        limit = Limit(child.schema, child, count, offset or 0)
        return _emitted(message, _one_limit(limit))

    def _amount(self, message: Any, what: str) -> int | None:
        """LIMIT or OFFSET, a literal expression; None if it is not there."""
        name = f"{what}_expr"
        if message.HasField(name):
            expr = self._expressions.read(getattr(message, name), Schema(()))
            if not isinstance(expr, Lit):
                raise PlanningError(f"the {what} of a fetch is not a literal")
            return None if expr.value is None else int(expr.value)
        return None

    def _set(self, message: Any) -> Rel:
        if message.op != _UNION_ALL:
            raise PlanningError(f"the set operation {message.op} is not understood")
        operands = tuple(self.relation(i) for i in message.inputs)
        return _emitted(message, SetOperation(operands[0].schema, "union", True, operands))


@cache
def _allow_depth() -> None:
    """Let messages nest more than 100 deep: of each term of a sum they take three."""
    try:
        implementation = import_module("google._upb._message")
    except ImportError:  # the one in Python has no such limit
        return
    implementation.SetAllowOversizeProtos(True)


def _one_limit(limit: Limit) -> Limit:
    """Without the limit below it that only says how far a sort has to go."""
    below = limit.input
    if not isinstance(below, Limit) or limit.count is None or below.count is None:
        return limit
    if below.offset or below.count < limit.count + limit.offset:
        return limit
    return Limit(limit.schema, below.input, limit.count, limit.offset)


def _all_of(conditions: Sequence[Expr]) -> Expr | None:
    if len(conditions) > 1:
        return Call(BOOL, "and", tuple(conditions))
    return conditions[0] if conditions else None


def _label(expr: Expr, child: Rel) -> str:
    """A name for a column, for people who read plans."""
    match expr:
        case Column(index=index):
            return child.schema[index].name
        case Call(function=function):
            return function
    return type(expr).__name__.lower()


def _projected(child: Rel, exprs: Sequence[Expr]) -> Rel:
    if [e.index if isinstance(e, Column) else None for e in exprs] == list(
        range(len(child.schema))
    ):
        return child
    fields = tuple(
        Field(
            _label(e, child),
            e.type,
            child.schema[e.index].nullable if isinstance(e, Column) else True,
        )
        for e in exprs
    )
    return Project(Schema(fields), child, tuple(exprs))


def _emitted(message: Any, rel: Rel) -> Rel:
    """The relation with the output columns that Substrait's emit mapping picks."""
    if not message.common.HasField("emit"):
        return rel
    picked = message.common.emit.output_mapping
    return _projected(rel, [Column(rel.schema[i].type, i) for i in picked])
