"""`RemoteFrame`: a lazy data frame over the plan IR.

Every method returns a new frame and computes nothing; `collect`, `write` and the Arrow stream do.
Names follow Polars, meaning and types are SQL's. Column names are checked when an operation is
written down, not when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from operators import build
from operators import expr as ir
from operators.errors import OperatorError
from operators.rel import Rel
from remote_frame import joins
from remote_frame.errors import AmbiguousColumnError, ExpressionError, FrameError
from remote_frame.executor import Executor, LocalExecutor
from remote_frame.expressions import Expr, RowScope, as_expr, col, position
from remote_frame.grouping import GroupBy, aggregate

if TYPE_CHECKING:
    from libd import Transport

__all__ = ["RemoteFrame"]

JoinHow = Literal["inner", "left", "right", "full", "semi", "anti", "cross"]


class RemoteFrame:
    """A table that is a plan.

    Parameters
    ----------
    plan
        What to compute.
    executor
        Who computes it.
    """

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
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._plan.schema.to_arrow()

    def __repr__(self) -> str:
        fields = ", ".join(f"{f.name}: {f.type}" for f in self._plan.schema)
        return f"RemoteFrame({fields})"

    # Columns and rows.

    def select(self, *exprs: str | Expr, **named: Any) -> RemoteFrame:
        """These columns only: names, expressions, or ``name=expression``.

        If one of them aggregates, all must, and the result has one row.
        """
        wanted = _expressions(exprs, named)
        if not wanted:
            raise ExpressionError("select() needs at least one column")
        _check_unique([e.name for e in wanted], "select")
        if any(e.aggregates for e in wanted):
            return self._with(aggregate(self._plan, [], wanted))
        return self._project(wanted, "select")

    def with_columns(self, *exprs: str | Expr, **named: Any) -> RemoteFrame:
        """All columns, and these: one of the same name is replaced where it stands."""
        wanted = _expressions(exprs, named)
        _check_unique([e.name for e in wanted], "with_columns")
        new = {e.name: e for e in wanted}
        kept = [new.pop(name) if name in new else col(name) for name in self.columns]
        return self._project([*kept, *new.values()], "with_columns")

    def rename(self, names: Mapping[str, str]) -> RemoteFrame:
        """The same columns, some under other names."""
        for name in names:
            position(self._plan.schema, name)
        renamed = [names.get(name, name) for name in self.columns]
        _check_unique(renamed, "rename")
        return self._project(
            [col(old).alias(new) for old, new in zip(self.columns, renamed, strict=True)], "rename"
        )

    def drop(self, *names: str) -> RemoteFrame:
        """All columns but these."""
        gone = {position(self._plan.schema, name) for name in names}
        kept = [i for i in range(len(self._plan.schema)) if i not in gone]
        if not kept:
            raise ExpressionError("drop() would leave no column")
        return self._with(build.select_columns(self._plan, kept))

    def filter(self, *conditions: Expr) -> RemoteFrame:
        """Rows for which every condition is true (not null)."""
        plan = self._plan
        for condition in conditions:
            predicate = as_expr(condition).lower(RowScope(plan.schema, "filter()"))
            plan = _built(f"filter({condition!r})", build.filter, plan, predicate)
        return self._with(plan)

    def sort(
        self,
        *by: str | Expr,
        descending: bool | Sequence[bool] = False,
        nulls_last: bool = True,
    ) -> RemoteFrame:
        """Rows in order, nulls last unless `nulls_last` is False."""
        exprs = _expressions(by, {})
        if not exprs:
            raise ExpressionError("sort() needs at least one column")
        flags = [descending] * len(exprs) if isinstance(descending, bool) else list(descending)
        if len(flags) != len(exprs):
            raise ExpressionError(f"sort: {len(exprs)} columns but {len(flags)} `descending`")
        scope = RowScope(self._plan.schema, "sort()")
        keys = [
            build.sort_key(e.lower(scope), descending=down, nulls_first=not nulls_last)
            for e, down in zip(exprs, flags, strict=True)
        ]
        return self._with(_built("sort", build.sort, self._plan, keys))

    def limit(self, n: int, offset: int = 0) -> RemoteFrame:
        """The first `n` rows, after skipping `offset`; which they are only `sort` decides."""
        return self._with(_built("limit", build.limit, self._plan, n, offset))

    def head(self, n: int = 5) -> RemoteFrame:
        """The first `n` rows."""
        return self.limit(n)

    def unique(self) -> RemoteFrame:
        """Every different row once, in no particular order."""
        keys = [build.col(self._plan.schema, i) for i in range(len(self._plan.schema))]
        return self._with(build.aggregation(self._plan, keys, [], names=self.columns))

    def group_by(self, *by: str | Expr, **named: Any) -> GroupBy:
        """Groups of rows with equal keys (nulls are equal); continue with ``.agg(…)``."""
        keys = _expressions(by, named)
        if not keys:
            raise ExpressionError("group_by() needs at least one key; for one row use select()")
        _check_unique([k.name for k in keys], "group_by")
        return GroupBy(self._plan, keys, self._with)

    def join(
        self,
        other: RemoteFrame,
        on: str | Sequence[str] | None = None,
        how: JoinHow = "inner",
        *,
        left_on: str | Sequence[str] | None = None,
        right_on: str | Sequence[str] | None = None,
        suffix: str = "_right",
    ) -> RemoteFrame:
        """Join with another frame on equal keys; nulls match nothing.

        Parameters
        ----------
        other
            The right side.
        on
            Names of key columns that both sides have; they appear once in the result.
        how
            ``inner``, ``left``, ``right``, ``full``, ``semi`` (rows with a match, left columns
            only), ``anti`` (rows without), ``cross`` (no keys).
        left_on, right_on
            Keys whose names differ. An inner or left join keeps the left ones, a right join
            the right ones, a full join both.
        suffix
            Added to the name of a right column that the left side has too.

        Raises
        ------
        ColumnNotFoundError, AmbiguousColumnError
            If a key is not exactly one column, or `suffix` does not make names different.
        ExpressionError
            If keys cannot be compared or the arguments contradict one another.
        """
        if not isinstance(other, RemoteFrame):
            raise ExpressionError(f"join() wants a RemoteFrame, not {type(other).__name__}")
        keys = joins.keys(on, left_on, right_on, how)
        plan = _built("join", joins.join, self._plan, other._plan, keys, how, suffix)
        return RemoteFrame(plan, _common_executor(self._executor, other._executor))

    # Results.

    def collect(self) -> pa.Table:
        """Compute the rows. Those of a frame that was merely opened may be views of its memory."""
        return self._executor.collect(self._plan)

    to_arrow = collect

    def explain(self, *, analyze: bool = False) -> str:
        """How the frame would be computed, for people; with `analyze` it is, and the text says what
        that took.
        """
        return self._executor.explain(self._plan, analyze=analyze)

    def write(self, transport: Transport) -> dict[str, Any]:
        """Compute the rows into a memory element and return their handle (plain JSON)."""
        from remote_frame.storage import write

        return write(self, transport)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Compute the rows as an Arrow stream (PyCapsule protocol); each call computes anew."""
        return self.collect().__arrow_c_stream__(requested_schema)

    # Inside.

    def _with(self, plan: Rel) -> RemoteFrame:
        return RemoteFrame(plan, self._executor)

    def _project(self, exprs: Sequence[Expr], what: str) -> RemoteFrame:
        schema = self._plan.schema
        scope = RowScope(schema, f"{what}()")
        lowered = [e.lower(scope) for e in exprs]
        names = [e.name for e in exprs]
        positions = [e.index for e in lowered if isinstance(e, ir.Column)]
        if len(positions) == len(lowered) and names == [schema.names[i] for i in positions]:
            return self._with(build.select_columns(self._plan, positions))
        return self._with(_built(what, build.project, self._plan, lowered, names))


def _expressions(exprs: Sequence[str | Expr], named: Mapping[str, Any]) -> list[Expr]:
    found: list[Expr] = []
    for e in exprs:
        if not isinstance(e, (str, Expr)):
            raise ExpressionError(f"expected a column name or an expression, not {e!r}")
        found.append(col(e) if isinstance(e, str) else e)
    return found + [as_expr(e).alias(name) for name, e in named.items()]


def _check_unique(names: Sequence[str], what: str) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        shown = ", ".join(map(repr, twice))
        raise AmbiguousColumnError(f"{what}: two columns would be called {shown}; use alias()")


def _built(what: str, make: Any, *args: Any) -> Rel:
    """Call a constructor of the IR, its errors in this room's terms."""
    try:
        plan: Rel = make(*args)
    except OperatorError as error:
        raise ExpressionError(f"{what}: {error}") from error
    return plan


def _common_executor(left: Executor, right: Executor) -> Executor:
    if left is right:
        return left
    if isinstance(left, LocalExecutor) and isinstance(right, LocalExecutor):
        if left.action is right.action or right.action is None:
            return left
        if left.action is None:
            return right
    raise FrameError(
        "the two frames belong to different executors; collect one of them and open it with the "
        "other's"
    )
