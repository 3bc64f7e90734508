"""remote_frame: Arrow columns in memory elements, their handles, and lazy frames over them.

`write` and `exchange` put columns into a memory element and return a handle, plain JSON; `open` and
`partition` turn handles into frames in another element; `RemoteFrame` is a lazy data frame whose
expressions begin with `col` and `lit`; `from_arrow`, `read_parquet` and their like make one. Some
functions (`sum`, `len`, `open`, …) are called like Python's own: use them as ``remote_frame.sum``.

Covers what one element does. It does not know DAGs (`engine`), nor what moves the bytes (`libd`).
Names are imported when they are first used: importing the package costs a worker next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remote_frame import selectors
    from remote_frame.api import (
        concat,
        from_arrow,
        from_dict,
        from_dicts,
        from_pandas,
        from_polars,
        join,
        join_asof,
        open,
        sql,
    )
    from remote_frame.conditions import Condition
    from remote_frame.errors import (
        AmbiguousColumnError,
        ColumnNotFoundError,
        ExpressionError,
        FrameError,
        HandleError,
        StorageError,
    )
    from remote_frame.executor import Executor, LocalExecutor, warm_kernel
    from remote_frame.expressions import Expr, col, lit, when
    from remote_frame.files import read_csv, read_parquet, scan_csv, scan_parquet
    from remote_frame.frame import RemoteFrame
    from remote_frame.functions import (
        all,
        all_horizontal,
        any_horizontal,
        coalesce,
        concat_str,
        corr,
        count,
        cov,
        date,
        exclude,
        len,
        max,
        max_horizontal,
        mean,
        mean_horizontal,
        median,
        min,
        min_horizontal,
        n_unique,
        row_number,
        sum,
        sum_horizontal,
    )
    from remote_frame.handle import ExchangeHandle, FrameHandle, HandleStream
    from remote_frame.opening import open_reader, partition
    from remote_frame.reader import FrameReader
    from remote_frame.storage import FrameWriter, exchange, exchange_ranges, write

__all__ = [
    "AmbiguousColumnError",
    "ColumnNotFoundError",
    "Condition",
    "ExchangeHandle",
    "Executor",
    "Expr",
    "ExpressionError",
    "FrameError",
    "FrameHandle",
    "FrameReader",
    "FrameWriter",
    "HandleError",
    "HandleStream",
    "LocalExecutor",
    "RemoteFrame",
    "StorageError",
    "all",
    "all_horizontal",
    "any_horizontal",
    "coalesce",
    "col",
    "concat",
    "concat_str",
    "corr",
    "count",
    "cov",
    "date",
    "exchange",
    "exchange_ranges",
    "exclude",
    "from_arrow",
    "from_dict",
    "from_dicts",
    "from_pandas",
    "from_polars",
    "join",
    "join_asof",
    "len",
    "lit",
    "max",
    "max_horizontal",
    "mean",
    "mean_horizontal",
    "median",
    "min",
    "min_horizontal",
    "n_unique",
    "open",
    "open_reader",
    "partition",
    "read_csv",
    "read_parquet",
    "row_number",
    "scan_csv",
    "scan_parquet",
    "selectors",
    "sql",
    "sum",
    "sum_horizontal",
    "warm_kernel",
    "when",
    "write",
]

_HOME = {
    "api": (
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
    ),
    "conditions": ("Condition",),
    "errors": (
        "AmbiguousColumnError",
        "ColumnNotFoundError",
        "ExpressionError",
        "FrameError",
        "HandleError",
        "StorageError",
    ),
    "executor": (
        "Executor",
        "LocalExecutor",
        "warm_kernel",
    ),
    "expressions": (
        "Expr",
        "col",
        "lit",
        "when",
    ),
    "files": (
        "read_csv",
        "read_parquet",
        "scan_csv",
        "scan_parquet",
    ),
    "frame": ("RemoteFrame",),
    "functions": (
        "all",
        "all_horizontal",
        "any_horizontal",
        "coalesce",
        "concat_str",
        "corr",
        "count",
        "cov",
        "date",
        "exclude",
        "len",
        "max",
        "max_horizontal",
        "mean",
        "mean_horizontal",
        "median",
        "min",
        "min_horizontal",
        "n_unique",
        "row_number",
        "sum",
        "sum_horizontal",
    ),
    "handle": (
        "ExchangeHandle",
        "FrameHandle",
        "HandleStream",
    ),
    "opening": (
        "open_reader",
        "partition",
    ),
    "reader": ("FrameReader",),
    "storage": (
        "FrameWriter",
        "exchange",
        "exchange_ranges",
        "write",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "selectors":
        return import_module("remote_frame.selectors")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'remote_frame' has no attribute {name!r}")
    value = getattr(import_module(f"remote_frame.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
