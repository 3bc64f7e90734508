"""The functions of the module: opening, combining, writing.

They are what hand-written and generated elements call::

    def main(params, action):
        left = remote_frame.open(params["load_left"], action)
        right = remote_frame.open(params["load_right"], action)
        joined = remote_frame.join(left, right, on="key")
        return joined.write(action.get_transport("result", "rdma"))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from operators import build
from remote_frame.executor import FrameSource, LocalExecutor
from remote_frame.frame import JoinHow, RemoteFrame
from remote_frame.handle import ExchangeHandle, FrameHandle, partition_of
from remote_frame.local import LocalTable
from remote_frame.reader import FrameReader, open_transports

__all__ = ["ActionLike", "from_arrow", "join", "open", "open_reader", "partition"]

Handle = Mapping[str, Any] | FrameHandle | ExchangeHandle
"""A handle as JSON, or parsed already."""

Handles = Handle | Iterable[Handle]
"""One handle, or the handles of all parallel copies of an element, in order."""


class ActionLike(Protocol):
    """What opening needs of an element's `action`; a `LibdAction` has it too."""

    def get_transport(self, name: str, type: str = ..., timeout: float | None = ...) -> Any:
        """Return the transport to the memory element `name`."""


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
    reader = open_reader(handles, action, columns)
    plan = build.scan(FrameSource.over(reader), reader.schema)
    return RemoteFrame(plan, LocalExecutor(action))


def open_reader(
    handles: Handles, action: ActionLike, columns: Sequence[str] | None = None
) -> FrameReader:
    """Like `open`, without a plan above it: a re-readable Arrow stream for a kernel's input."""
    parsed = [_frame(h) for h in _listed(handles)]
    reader = FrameReader(parsed, open_transports(action))
    return reader if columns is None else reader.select_names(columns)


def partition(handles: Handles, index: int) -> list[dict[str, Any]]:
    """The frame handles that reader `index` opens of the exchanges of all writers.

    Raises
    ------
    HandleError
        If a handle is not that of an exchange, or has no such partition.
    """
    return [one.to_json() for one in partition_of(_listed(handles), index)]


def from_arrow(data: Any) -> RemoteFrame:
    """A frame over Arrow data in local memory (anything with ``__arrow_c_stream__``)."""
    table = data if isinstance(data, pa.Table) else pa.table(data)
    local = LocalTable(table)
    return RemoteFrame(build.scan(FrameSource.over(local), local.schema), LocalExecutor())


def join(
    left: RemoteFrame,
    right: RemoteFrame,
    on: str | Sequence[str] | None = None,
    how: JoinHow = "inner",
    *,
    left_on: str | Sequence[str] | None = None,
    right_on: str | Sequence[str] | None = None,
    suffix: str = "_right",
) -> RemoteFrame:
    """``left.join(right, …)``; see `RemoteFrame.join`."""
    return left.join(right, on, how, left_on=left_on, right_on=right_on, suffix=suffix)


def _listed(handles: Handles) -> list[Handle]:
    if isinstance(handles, (Mapping, FrameHandle, ExchangeHandle)):
        return [handles]
    return list(handles)


def _frame(data: Handle) -> FrameHandle:
    return data if isinstance(data, FrameHandle) else FrameHandle.from_json(data)
