"""Handles opened for reading: what every element does, so it loads no more than that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from remote_frame.handle import ExchangeHandle, FrameHandle, partition_of
from remote_frame.reader import FrameReader, open_transports

__all__ = ["ActionLike", "Handles", "open_reader", "partition"]

Handle = Mapping[str, Any] | FrameHandle | ExchangeHandle
"""A handle as JSON, or parsed already."""

Handles = Handle | Iterable[Handle]
"""One handle, or the handles of all parallel copies of an element, in order."""


class ActionLike(Protocol):
    """What opening needs of an element's `action`; a `LibdAction` has it too."""

    def get_transport(self, name: str, type: str = ..., timeout: float | None = ...) -> Any:
        """Return the transport to the memory element `name`."""


def open_reader(
    handles: Handles, action: ActionLike, columns: Sequence[str] | None = None
) -> FrameReader:
    """Like `remote_frame.open`, without a plan above it: a re-readable Arrow stream for a kernel's
    input.
    """
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


def _listed(handles: Handles) -> list[Handle]:
    if isinstance(handles, (Mapping, FrameHandle, ExchangeHandle)):
        return [handles]
    return list(handles)


def _frame(data: Handle) -> FrameHandle:
    return data if isinstance(data, FrameHandle) else FrameHandle.from_json(data)
