"""Running one application for its answer: submit, wait, fetch, clean up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as pt

from engine.errors import EngineError
from libd import ArenaCache, LibdAction
from libd.errors import ScadError, StaleRefError, TransportError
from operators.schema import Schema
from remote_frame.opening import open_reader

if TYPE_CHECKING:
    from openwhisk.api import Activation, ControlPlane
    from openwhisk.app import Application

__all__ = ["Execution", "QueryCancelledError", "QueryFailedError", "execute", "export"]

# Well below a session's lease, which a wait renews.
_WAIT_SECONDS = 15.0
_PROGRESS_SECONDS = 0.2

# How often a query is run when its answer is lost before it was read, as often as an element.
_ATTEMPTS = 3

_SUMMED = (
    "compute_gb_s",
    "memory_gb_s",
    "held_gb_s",
    "core_s",
    "cpu_s",
    "warm_gb_s",
    "bytes_read",
    "bytes_written",
)
_PEAKS = ("peak_compute_bytes", "peak_memory_bytes")


class QueryFailedError(EngineError):
    """An element of the query failed, or could not be started.

    Attributes
    ----------
    element
        Name of the compute element, None if the application failed as a whole.
    activation_id
        Of the application; its record has the whole traceback.
    traceback
        What the element left behind, possibly empty.
    kind
        Of the failure, as the control plane's record has it (`openwhisk.api.Activation`): ``limit``
        where an element was stopped by its memory limit.
    """

    def __init__(
        self,
        message: str,
        element: str | None,
        activation_id: str,
        traceback: str = "",
        kind: str | None = None,
    ) -> None:
        super().__init__(message)
        self.element = element
        self.activation_id = activation_id
        self.traceback = traceback
        self.kind = kind


class QueryCancelledError(EngineError):
    """Somebody cancelled the query."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What came of an application."""

    table: pa.Table
    activation: Activation


def execute(
    control: ControlPlane,
    app: Application,
    schema: Schema,
    *,
    sink: str,
    session: str,
    transport: str,
    on_progress: Callable[[Activation], None] | None = None,
    cache: ArenaCache | None = None,
) -> Execution:
    """Run `app` and copy the answer out of its `result` element.

    An answer that dies with its memory server before it was read is computed again, a few times.
    Nothing of the application is left afterwards, whether it succeeds, fails or is interrupted.

    Parameters
    ----------
    schema
        Names and types of the answer's columns; decimals come as decimal128.
    sink
        The element whose results are handles of the answer.
    on_progress
        Called a few times per second with the record so far.
    cache
        Arenas that are attached already: attaching one takes a quarter of the time that it takes to
        read a short answer.

    Raises
    ------
    QueryFailedError
        If an element fails, or the answer was lost again and again.
    QueryCancelledError
        If the activation is cancelled.
    """
    control.put_application(app)
    lost: list[Activation] = []
    try:
        while True:
            activation, table = _attempt(
                control, app.name, schema, sink, session, transport, on_progress, cache
            )
            if isinstance(table, pa.Table):
                return Execution(table, _with_losses(activation, lost))
            lost.append(activation)
            if len(lost) == _ATTEMPTS:
                raise QueryFailedError(
                    f"the query failed: its answer was lost {_ATTEMPTS} times before it could be "
                    f"read: {table}",
                    None,
                    activation.activation_id,
                )
    finally:
        with suppress(ScadError):
            control.delete_application(app.name)


def _attempt(
    control: ControlPlane,
    name: str,
    schema: Schema,
    sink: str,
    session: str,
    transport: str,
    on_progress: Callable[[Activation], None] | None,
    cache: ArenaCache | None,
) -> tuple[Activation, pa.Table | ScadError]:
    """Run the application once; in place of the answer, what says that its memory is gone.

    Until the sink is done, lineage repeats what a loss takes away. From then on the answer is in a
    memory element of the session, and whoever reads it must notice.
    """
    activation_id = control.invoke(name, session=session, transport=transport)
    try:
        activation = _wait(control, activation_id, session, on_progress)
        handles = _handles(activation, sink)
        try:
            table = _fetch(control, session, activation_id, handles, schema, transport, cache)
            return activation, table
        except _memory_is_gone() as error:
            return activation, error
        finally:
            control.release(session, activation_id, "result")
    except BaseException:
        # An activation that is over already takes no notice.
        with suppress(ScadError):
            control.cancel(activation_id)
        raise


def _memory_is_gone() -> tuple[type[ScadError], ...]:
    from openwhisk.errors import MemoryLostError

    return MemoryLostError, StaleRefError, TransportError


def _with_losses(activation: Activation, lost: Sequence[Activation]) -> Activation:
    """The record of the run that succeeded, with what the lost ones before it took."""
    if not lost:
        return activation
    usage = copy(activation.usage)
    for usage_lost in (a.usage for a in lost):
        for name in _SUMMED:
            setattr(usage, name, getattr(usage, name) + getattr(usage_lost, name))
        for name in _PEAKS:
            setattr(usage, name, max(getattr(usage, name), getattr(usage_lost, name)))
    usage.recomputed = [
        *(
            r
            for a in lost
            for r in (*a.usage.recomputed, *(f"{e.name}[{e.index}]" for e in a.elements))
        ),
        *usage.recomputed,
    ]
    repeated = copy(activation)
    repeated.usage = usage
    return repeated


def _wait(
    control: ControlPlane,
    activation_id: str,
    session: str,
    on_progress: Callable[[Activation], None] | None,
) -> Activation:
    from openwhisk.errors import WaitTimeoutError

    renewed = time.monotonic()
    while True:
        try:
            return control.wait(
                activation_id, _WAIT_SECONDS if on_progress is None else _PROGRESS_SECONDS
            )
        except WaitTimeoutError:
            pass
        if time.monotonic() - renewed >= _WAIT_SECONDS or on_progress is None:
            control.renew_session(session)
            renewed = time.monotonic()
        if on_progress is not None:
            on_progress(control.activation(activation_id))


def _handles(activation: Activation, sink: str) -> list[Mapping[str, Any]]:
    if activation.status == "cancelled":
        raise QueryCancelledError(f"the query was cancelled ({activation.activation_id})")
    if activation.status != "success":
        raise _failure(activation)
    result = activation.result[sink]
    return list(result) if isinstance(result, list) else [result]


def _failure(activation: Activation) -> QueryFailedError:
    """One line that says which element failed, and why."""
    failed = next((e for e in activation.elements if e.status == "failed"), None)
    text = (failed.error if failed is not None else None) or activation.error or "no reason given"
    # A line says what happened; a statement or a traceback may follow.
    reason = next(iter(text.strip().splitlines()), "no reason given").strip()
    where = "the query" if failed is None else f"element {failed.name}[{failed.index}]"
    return QueryFailedError(
        f"{where} failed: {reason}",
        None if failed is None else failed.name,
        activation.activation_id,
        activation.error or text,
        activation.error_kind,
    )


def _fetch(
    control: ControlPlane,
    session: str,
    activation_id: str,
    handles: Sequence[Mapping[str, Any]],
    schema: Schema,
    transport: str,
    cache: ArenaCache | None,
) -> pa.Table:
    """Copy the answer out of the memory element."""
    durl = control.grant(session, activation_id, "result", transport)
    action = LibdAction(session, transports=[durl], cache=cache)
    try:
        # No plan above it: that would be looked through, and its rows streamed, for nothing.
        table = open_reader(list(handles), action).table()
        # The columns may be views of memory that is about to be freed: a round through IPC copies.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        del table
        copied = pa.ipc.open_stream(sink.getvalue()).read_all()
    finally:
        action.close()
    return export(copied, schema)


def export(table: pa.Table, schema: Schema) -> pa.Table:
    """`table` with the names of `schema`, and decimals as the decimal128 that everybody reads."""
    columns = [_widened(column) for column in table.columns]
    return pa.Table.from_arrays(columns, names=list(schema.names))


def _widened(column: pa.ChunkedArray) -> pa.ChunkedArray:
    type = column.type
    if pt.is_decimal32(type) or pt.is_decimal64(type):
        return column.cast(pa.decimal128(type.precision, type.scale))
    return column
