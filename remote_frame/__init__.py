"""remote_frame: Arrow columns in memory elements, their handles, and lazy frames over them.

`write` and `exchange` put columns into a memory element and return a handle, plain JSON; `open` and
`partition` turn handles into frames in another element; `RemoteFrame` is a lazy data frame whose
expressions begin with `col` and `lit`.

Covers what one element does. It does not know DAGs (`engine`), nor what moves the bytes (`libd`).
Names are imported when they are first used: importing the package costs a worker next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remote_frame.api import from_arrow, join, open, open_reader, partition
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
    from remote_frame.expressions import Expr, col, count, lit, when
    from remote_frame.frame import RemoteFrame
    from remote_frame.handle import ExchangeHandle, FrameHandle, HandleStream
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
    "col",
    "count",
    "exchange",
    "exchange_ranges",
    "from_arrow",
    "join",
    "lit",
    "open",
    "open_reader",
    "partition",
    "warm_kernel",
    "when",
    "write",
]

_HOME = {
    "api": ("from_arrow", "join", "open", "open_reader", "partition"),
    "errors": (
        "AmbiguousColumnError",
        "ColumnNotFoundError",
        "ExpressionError",
        "FrameError",
        "HandleError",
        "StorageError",
    ),
    "executor": ("Executor", "LocalExecutor", "warm_kernel"),
    "expressions": ("Expr", "col", "count", "lit", "when"),
    "frame": ("RemoteFrame",),
    "conditions": ("Condition",),
    "handle": ("ExchangeHandle", "FrameHandle", "HandleStream"),
    "reader": ("FrameReader",),
    "storage": ("FrameWriter", "exchange", "exchange_ranges", "write"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'remote_frame' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"remote_frame.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
