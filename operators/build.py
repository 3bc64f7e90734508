"""Typed constructors of the plan IR: they infer types, insert DuckDB's implicit casts and check
positions.

Both front ends make plans only through these functions, so a plan that exists is well typed.
Everything raises `PlanError` that names the function or the column.
"""

from operators.build_expressions import (
    aggregate,
    call,
    case,
    cast,
    col,
    conjunction,
    exists,
    in_list,
    in_subquery,
    lit,
    scalar_subquery,
    sort_key,
    window,
)
from operators.build_relations import (
    aggregation,
    filter,
    join,
    leading,
    limit,
    project,
    scan,
    select_columns,
    set_operation,
    sort,
    values,
)

__all__ = [
    "aggregate",
    "aggregation",
    "call",
    "case",
    "cast",
    "col",
    "conjunction",
    "exists",
    "filter",
    "in_list",
    "in_subquery",
    "join",
    "leading",
    "limit",
    "lit",
    "project",
    "scalar_subquery",
    "scan",
    "select_columns",
    "set_operation",
    "sort",
    "sort_key",
    "values",
    "window",
]
