"""The functions of the module: making frames, combining them, opening handles.

They are what hand-written and generated elements call::

    def main(params, action):
        left = remote_frame.open(params["load_left"], action)
        right = remote_frame.open(params["load_right"], action)
        joined = remote_frame.join(left, right, on="key")
        return joined.write(action.get_transport("result", "rdma"))

Those that make a frame take, last, who is to compute it: an ``engine.Session`` (a DAG), an
element's ``action`` (the element itself), or None (this process).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa

from operators import build
from operators.errors import OperatorError
from operators.microseconds import counts_nanoseconds, in_microseconds
from operators.rel import Rel
from remote_frame.errors import ExpressionError, FrameError
from remote_frame.executor import FrameSource, LocalExecutor, common_executor, executor_of
from remote_frame.frame import JoinHow, RemoteFrame
from remote_frame.joins import AsofStrategy
from remote_frame.local import LocalTable, MicrosecondData, RenamedData
from remote_frame.opening import ActionLike, Handles, open_reader

__all__ = [
    "concat",
    "from_arrow",
    "from_dict",
    "from_dicts",
    "from_pandas",
    "from_polars",
    "join",
    "join_asof",
    "open",
    "sql",
]

ConcatHow = Literal["vertical", "vertical_relaxed", "diagonal", "diagonal_relaxed"]


def open(handles: Handles, action: ActionLike, columns: Sequence[str] | None = None) -> RemoteFrame:
    """A frame over one handle, or over those of all copies of an element; no byte is read yet.

    Parameters
    ----------
    handles
        What `write` returned, or a list of it; what `partition` gives.
    action
        The element's `action`: it reaches the memory elements and keeps the kernel.
    columns
        Names of the columns to have; all by default. What is not used later is not read anyway.

    Raises
    ------
    HandleError
        If a handle is not one, or the handles differ in their columns.
    ColumnNotFoundError
        If a named column does not exist.
    """
    return over_data(open_reader(handles, action, columns), LocalExecutor(action))


def from_arrow(data: Any, executor: Any = None) -> RemoteFrame:
    """A frame over Arrow data in local memory: anything with ``__arrow_c_stream__`` (tables of
    pyarrow, Polars, pandas, DuckDB, …) or ``__arrow_c_array__``.

    Parameters
    ----------
    data
        The data; a stream is read to its end.
    executor
        Who computes the frame: a session, an element's `action`, or None for this process.

    Raises
    ------
    FrameError
        If it is no Arrow data.
    UnsupportedTypeError
        If a column's type is one that plans do not have, or it has timestamps that are finer than
        microseconds; the message names the column.

    Examples
    --------
    >>> remote_frame.from_arrow(pa.table({"a": [1, 2]})).filter(col("a") > 1).to_dict()
    {'a': [2]}
    """
    table = in_microseconds(_arrow_table(data))
    named = table.rename_columns(_told_apart(table.column_names))
    return over_data(LocalTable(named), executor, table.column_names)


def over_data(data: Any, executor: Any = None, names: Sequence[str] | None = None) -> RemoteFrame:
    """A frame over columns that can be read again and again (see `FrameSource`), perhaps under
    other `names`.
    """
    # Kernels tell columns apart by name and without regard to case; frames do not have to.
    shown = list(data.schema.names if names is None else names)
    if any(counts_nanoseconds(f.type) for f in data.schema):
        data = MicrosecondData(data)
    apart = _told_apart(data.schema.names)
    if apart != data.schema.names:
        data = RenamedData(data, apart)
    scan = build.scan(FrameSource.over(data), data.schema)
    scan = replace(scan, schema=scan.schema.rename(shown))
    return RemoteFrame(scan, executor_of(executor))


def _told_apart(names: Sequence[str]) -> list[str]:
    """`names`, those that are empty or another has (but for case) changed."""
    taken = {n.lower() for n in names}
    seen: set[str] = set()
    found = []
    for name in names:
        base = unique = name or "unnamed"
        number = 1
        while unique.lower() in seen or (unique != name and unique.lower() in taken):
            number += 1
            unique = f"{base}_{number}"
        seen.add(unique.lower())
        found.append(unique)
    return found


def from_dict(data: Mapping[str, Any], executor: Any = None, *, schema: Any = None) -> RemoteFrame:
    """A frame of columns of Python values; `schema` is a `pyarrow.Schema`, if types matter.

    Examples
    --------
    >>> remote_frame.from_dict({"a": [1, 2], "b": ["x", None]}).columns
    ['a', 'b']
    """
    try:
        table = pa.table(dict(data), schema=schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise FrameError(f"from_dict: {error}") from error
    return from_arrow(table, executor)


def from_dicts(
    data: Sequence[Mapping[str, Any]], executor: Any = None, *, schema: Any = None
) -> RemoteFrame:
    """A frame of rows, each a mapping from names to values; where one lacks a name it is null.

    Examples
    --------
    >>> remote_frame.from_dicts([{"a": 1}, {"a": 2}]).select(col("a").max()).to_dict()
    {'a': [2]}
    """
    try:
        rows = [dict(row) for row in data]
        if schema is None:
            # Arrow would take the names of the first row for all there are.
            names = dict.fromkeys(name for row in rows for name in row)
            table = pa.table({name: [row.get(name) for row in rows] for name in names})
        else:
            table = pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise FrameError(f"from_dicts: {error}") from error
    return from_arrow(table, executor)


def from_pandas(data: Any, executor: Any = None, *, include_index: bool = False) -> RemoteFrame:
    """A frame over a pandas frame; its index is left out unless it is asked for.

    Examples
    --------
    >>> import pandas as pd
    >>> remote_frame.from_pandas(pd.DataFrame({"a": [1, 2]})).to_dict()
    {'a': [1, 2]}
    """
    try:
        table = pa.Table.from_pandas(data, preserve_index=include_index)
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        raise FrameError(f"from_pandas: {error}") from error
    return from_arrow(table.replace_schema_metadata(), executor)


def from_polars(data: Any, executor: Any = None) -> RemoteFrame:
    """A frame over a Polars frame; a lazy one is collected.

    Examples
    --------
    >>> import polars as pl
    >>> remote_frame.from_polars(pl.DataFrame({"a": ["x"]})).to_dict()
    {'a': ['x']}
    """
    if hasattr(data, "collect"):
        data = data.collect()
    return from_arrow(data, executor)


def join(
    left: RemoteFrame,
    right: RemoteFrame,
    on: Any = None,
    how: JoinHow = "inner",
    *,
    left_on: Any = None,
    right_on: Any = None,
    suffix: str = "_right",
    nulls_equal: bool = False,
    coalesce: bool | None = None,
) -> RemoteFrame:
    """``left.join(right, …)``; see `RemoteFrame.join`."""
    return left.join(
        right,
        on,
        how,
        left_on=left_on,
        right_on=right_on,
        suffix=suffix,
        nulls_equal=nulls_equal,
        coalesce=coalesce,
    )


def join_asof(
    left: RemoteFrame,
    right: RemoteFrame,
    *,
    strategy: AsofStrategy = "backward",
    **options: Any,
) -> RemoteFrame:
    """``left.join_asof(right, …)``; see `RemoteFrame.join_asof`."""
    return left.join_asof(right, strategy=strategy, **options)


def concat(frames: Iterable[RemoteFrame], how: ConcatHow = "vertical") -> RemoteFrame:
    """The rows of several frames, in no particular order.

    Parameters
    ----------
    frames
        One at least.
    how
        ``vertical``: all have the same columns, names and types; ``vertical_relaxed``: types may
        differ where they have a common one; ``diagonal``: columns that a frame does not have are
        null; ``diagonal_relaxed``: both.

    Raises
    ------
    ExpressionError
        If columns differ; the message names the first.

    Examples
    --------
    >>> a, b = (remote_frame.from_dict({"x": [i], "only" + str(i): [i]}) for i in (1, 2))
    >>> remote_frame.concat([a, b], how="diagonal").sort("x").to_dict()
    {'x': [1, 2], 'only1': [1, None], 'only2': [None, 2]}
    """
    given = list(frames)
    if not given:
        raise ExpressionError("concat() needs a frame")
    if how not in ("vertical", "vertical_relaxed", "diagonal", "diagonal_relaxed"):
        raise ExpressionError(
            f"concat: how={how!r}; it is vertical or diagonal, or one of these with _relaxed"
        )
    for one in given:
        if not isinstance(one, RemoteFrame):
            raise ExpressionError(f"concat() wants RemoteFrames, not {type(one).__name__}")
    executor = common_executor([(f.plan, f.executor) for f in given])
    plans = [f.plan for f in given]
    if how.startswith("diagonal"):
        plans = _completed(plans)
    first = plans[0].schema
    for number, plan in enumerate(plans[1:], 1):
        if plan.schema.names != first.names:
            missing = set(first.names) ^ set(plan.schema.names)
            which = f"column {min(missing)!r}" if missing else "the order of columns"
            raise ExpressionError(f"concat: frame {number} and frame 0 differ in {which}")
        for a, b in zip(first, plan.schema, strict=True):
            if (
                not how.endswith("relaxed")
                and a.type != b.type
                and pa.null() not in (a.type, b.type)
            ):
                raise ExpressionError(
                    f"concat: column {a.name!r} is {a.type} in frame 0 and {b.type} in frame "
                    f"{number}: cast one, or use how='{how}_relaxed'"
                )
    if len(plans) == 1:
        return RemoteFrame(plans[0], executor)
    try:
        return RemoteFrame(build.set_operation("union", plans, all=True), executor)
    except OperatorError as error:
        raise ExpressionError(f"concat: {error}") from error


def _completed(plans: Sequence[Rel]) -> list[Rel]:
    """Plans with all columns of one another, in the order in which they first come up."""
    names = list(dict.fromkeys(n for p in plans for n in p.schema.names))
    found: list[Rel] = []
    for plan in plans:
        have = list(plan.schema.names)
        columns = [
            build.col(plan.schema, have.index(n)) if n in have else build.lit(None) for n in names
        ]
        found.append(build.project(plan, columns, names))
    return found


def sql(text: str, executor: Any = None, /, **frames: RemoteFrame) -> RemoteFrame:
    """A frame that is what a SELECT statement says of others, which it calls by their keywords.

    Parameters
    ----------
    text
        One SELECT statement, in DuckDB's SQL.
    executor
        Who computes it; by default who computes the frames.
    frames
        The tables.

    Raises
    ------
    ExpressionError, EngineError
        If the statement is wrong, or names something that is not there.

    Examples
    --------
    >>> towns = remote_frame.from_dict({"store": ["a", "b"], "town": ["Ulm", "Bonn"]})
    >>> text = "select town, max(qty) as most from s join t using (store) group by town order by 1"
    >>> remote_frame.sql(text, s=sales, t=towns).to_dict()
    {'town': ['Bonn', 'Ulm'], 'most': [None, 7]}
    """
    for name, frame in frames.items():
        if not isinstance(frame, RemoteFrame):
            raise ExpressionError(f"sql: {name}={frame!r} is not a RemoteFrame")
    makers = [(f.plan, f.executor) for f in frames.values()]
    if executor is not None or not makers:
        chosen = executor_of(executor)
        makers = [*makers, (build.values([], [[]]), chosen)]
    chosen = common_executor(makers)
    query = getattr(chosen, "query", None)
    if query is None:
        raise FrameError(f"{type(chosen).__name__} has no SQL")
    try:
        return RemoteFrame(query(text, {n: f.plan for n, f in frames.items()}), chosen)
    except OperatorError as error:
        raise ExpressionError(f"sql: {error}") from error


def _arrow_table(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, pa.RecordBatchReader):
        return data.read_all()
    if not (hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")):
        raise FrameError(
            f"{type(data).__name__} is no Arrow data: it has no __arrow_c_stream__; "
            "from_dict() and from_dicts() take Python values"
        )
    try:
        return pa.table(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise FrameError(f"from_arrow: {error}") from error
