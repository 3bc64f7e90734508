"""Writing what comes out of an element's statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import remote_frame
from remote_frame import storage
from remote_frame.handle import ExchangeHandle, load_handle

if TYPE_CHECKING:
    from libd import Transport
    from openwhisk.runtime import Action

__all__ = ["BYTES_WRITTEN", "ROWS_WRITTEN", "exchange", "exchange_ranges", "write"]

ROWS_WRITTEN, BYTES_WRITTEN = "rows_written", "frame_bytes_written"
"""Metrics of a run (`Action.record_metric`): rows and bytes of the frames that it wrote."""


def write(
    rows: pa.RecordBatchReader,
    transport: Transport,
    action: Action | None = None,
    *,
    budget: int | None = None,
) -> dict[str, Any]:
    """Write rows as one frame; the handle commits them when the element returns it.

    Batches are written as the kernel makes them. At most `budget` bytes of them are held, by
    default 64 MiB or a sixteenth of the element's memory. With `action`, how many rows and bytes
    they were is recorded there.
    """
    return _recorded(remote_frame.write(rows, transport, budget=budget), action)


def exchange(
    rows: pa.RecordBatchReader,
    transport: Transport,
    keys: Sequence[int],
    partitions: int,
    action: Action | None = None,
    *,
    budget: int | None = None,
) -> dict[str, Any]:
    """Scatter rows by the hash of the columns at `keys`, one frame for each reader; see `write`."""
    handle = remote_frame.exchange(
        rows, transport, keys=list(keys), partitions=partitions, budget=budget
    )
    return _recorded(handle, action)


def exchange_ranges(
    rows: pa.RecordBatchReader,
    transport: Transport,
    keys: Sequence[int],
    boundaries: pa.RecordBatch,
    action: Action | None = None,
    *,
    descending: Sequence[bool] = (),
    nulls_first: Sequence[bool] = (),
    budget: int | None = None,
) -> dict[str, Any]:
    """Scatter rows by ranges of the columns at `keys`, so that readers sort a range each.

    `boundaries` has the key columns alone, one sorted row between two readers each.
    """
    handle = storage.exchange_ranges(
        rows,
        transport,
        list(keys),
        boundaries,
        descending=descending,
        nulls_first=nulls_first,
        budget=budget,
    )
    return _recorded(handle, action)


def _recorded(handle: dict[str, Any], action: Action | None) -> dict[str, Any]:
    """The handle, once its rows and bytes are recorded."""
    if action is not None:
        one = load_handle(handle)
        frame = one.whole() if isinstance(one, ExchangeHandle) else one
        action.record_metric(ROWS_WRITTEN, frame.rows)
        action.record_metric(BYTES_WRITTEN, frame.nbytes)
    return handle
