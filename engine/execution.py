"""Running one application for its answer: submit, wait, fetch, clean up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as pt

import remote_frame
from engine.errors import EngineError
from libd import LibdAction
from libd.errors import ScadError
from operators.schema import Schema

if TYPE_CHECKING:
    from openwhisk.api import Activation, ControlPlane
    from openwhisk.app import Application

__all__ = ["Execution", "QueryCancelledError", "QueryFailedError", "execute", "export"]

# Well below a session's lease, which a wait renews.
_WAIT_SECONDS = 15.0


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
) -> Execution:
    """Run `app` and copy the answer out of its `result` element.

    Nothing of the application is left afterwards, whether it succeeds, fails or is interrupted.

    Parameters
    ----------
    schema
        Names and types of the answer's columns; decimals come as decimal128.
    sink
        The element whose results are handles of the answer.

    Raises
    ------
    QueryFailedError
        If an element fails.
    QueryCancelledError
        If the activation is cancelled.
    """
    control.put_application(app)
    try:
        activation_id = control.invoke(app.name, session=session, transport=transport)
        try:
            activation = _wait(control, activation_id, session)
            handles = _handles(activation, sink)
            try:
                table = _fetch(control, session, activation_id, handles, schema, transport)
            finally:
                control.release(session, activation_id, "result")
        except BaseException:
            # An activation that is over already takes no notice.
            with suppress(ScadError):
                control.cancel(activation_id)
            raise
    finally:
        with suppress(ScadError):
            control.delete_application(app.name)
    return Execution(table, activation)


def _wait(control: ControlPlane, activation_id: str, session: str) -> Activation:
    from openwhisk.errors import WaitTimeoutError

    while True:
        try:
            activation = control.wait(activation_id, _WAIT_SECONDS)
        except WaitTimeoutError:
            control.renew_session(session)
            continue
        return activation


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
) -> pa.Table:
    """Copy the answer out of the memory element."""
    durl = control.grant(session, activation_id, "result", transport)
    action = LibdAction(session, transports=[durl])
    try:
        table = remote_frame.open(list(handles), action).to_arrow()
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
