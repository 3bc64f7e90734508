"""What the methods of a frame have in common: a plan, and who computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.types as pt

from operators import build
from operators import expr as ir
from operators.rel import Rel
from remote_frame.building import built
from remote_frame.errors import ExpressionError
from remote_frame.executor import Executor
from remote_frame.expressions import Expr
from remote_frame.grouping import expanded
from remote_frame.scopes import RowScope

__all__ = ["Planned"]


class Planned:
    """A plan, what is known of its columns, and frames of other plans by the same executor."""

    __slots__ = ("_executor", "_plan")

    def __init__(self, plan: Rel, executor: Executor) -> None:
        self._plan = plan
        self._executor = executor

    @property
    def plan(self) -> Rel:
        """The plan."""
        return self._plan

    @property
    def executor(self) -> Executor:
        """Who computes it."""
        return self._executor

    @property
    def columns(self) -> list[str]:
        """Column names in order."""
        return list(self._plan.schema.names)

    @property
    def dtypes(self) -> list[pa.DataType]:
        """Column types in order."""
        return list(self._plan.schema.types)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self._plan.schema)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._plan.schema.to_arrow()

    def collect_schema(self) -> pa.Schema:
        """Names and types of the columns; they are known without computing."""
        return self.schema

    def lazy(self) -> Self:
        """The frame itself."""
        return self

    def _with(self, plan: Rel) -> Self:
        return type(self)(plan, self._executor)

    def _expressions(self, exprs: Sequence[Any], named: dict[str, Any]) -> list[Expr]:
        return expanded(exprs, named, self._plan.schema)

    def _names(self, given: Sequence[Any], what: str) -> list[str]:
        """Names of columns that exist, from names and selectors."""
        found: dict[str, None] = {}
        scope = RowScope(self._plan.schema)
        for one in self._expressions(given, {}):
            if one.text != one.root_name:
                raise ExpressionError(f"{what}: {one!r} is not a column")
            scope.column(one.text)
            found[one.text] = None
        return list(found)

    def _floats(self) -> list[str]:
        return [f.name for f in self._plan.schema if pt.is_floating(f.type)]

    def _project(self, exprs: Sequence[Expr], what: str) -> Self:
        schema = self._plan.schema
        scope = RowScope(schema)
        lowered = [e.lower(scope) for e in exprs]
        names = [e.output_name for e in exprs]
        positions = [e.index for e in lowered if isinstance(e, ir.Column)]
        plain = len(positions) == len(lowered) and not scope.extended
        if plain and names == [schema.names[i] for i in positions]:
            return self._with(build.select_columns(self._plan, positions))
        return self._with(built(what, scope.project, self._plan, lowered, names))
