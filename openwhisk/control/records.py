"""`ActivationBook`: the record of one activation, as it grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from openwhisk.api import Activation, ElementRecord, ElementStatus, MemoryRecord
from openwhisk.control.accounting import GB, Meter
from openwhisk.invoker import Program
from openwhisk.scheduler.messages import Failure, MemoryId, RunId
from openwhisk.worker.messages import Metrics

_unpack = msgspec.msgpack.Decoder().decode
# Characters of logs that an activation keeps; OpenWhisk keeps 10 MB.
MAX_LOGS = 10_000_000
# Changes of what an element has reserved that its record keeps; beyond that every other one goes.
MAX_CHANGES = 256


class ActivationBook:
    """Keeps a record up to date; the owner's lock guards it.

    Attributes
    ----------
    over
        Set when the activation has ended and the record is final.
    final
        The final record, from then on.
    """

    def __init__(
        self, activation_id: str, program: Program, transport: str, session: str | None
    ) -> None:
        self.program = program
        self.transport = transport
        self.session = session
        self.meter = Meter()
        self.over = threading.Event()
        self.warm_before = 0.0
        self.final: Activation | None = None
        self._logged = 0
        self._clock = time.time() - time.monotonic()
        self._record = Activation(activation_id=activation_id, name=program.name, start=time.time())
        self._elements = {
            (name, index): ElementRecord(
                name=name,
                index=index,
                limit_bytes=program.plan.elements[name].mem,
                cores=program.plan.elements[name].cores,
            )
            for name, element in program.elements.items()
            for index in range(element.count)
        }
        self._memory: dict[MemoryId, MemoryRecord] = {}
        self._paused: dict[RunId, float] = {}

    @property
    def id(self) -> str:
        """The activation id."""
        return self._record.activation_id

    def started(self, run: RunId, now: float, reserved: int) -> None:
        """A worker begins with a run, for which so many bytes are reserved."""
        element = self._elements[run.element, run.index]
        element.status = "running"
        element.attempts = run.attempt
        element.start = self._clock + now
        element.end = None
        element.reserved = [(0.0, reserved)]
        element.paused_seconds = 0.0
        self.meter.run_started(run, reserved, element.cores, now)

    def reserved(self, run: RunId, size: int, now: float) -> None:
        """A run has so many bytes reserved from now on, and goes on if it was stopped."""
        if not self.meter.run_reserved(run, size, now):
            return  # it has ended
        element = self._elements[run.element, run.index]
        if run.attempt == element.attempts and element.start is not None:
            if len(element.reserved) == MAX_CHANGES:
                del element.reserved[1::2]
            element.reserved.append((self._clock + now - element.start, size))
            self._resumed(run, element, now)

    def paused(self, run: RunId, now: float) -> None:
        """A run is stopped until it can have more."""
        self._paused[run] = now

    def _resumed(self, run: RunId, element: ElementRecord, now: float) -> None:
        if (since := self._paused.pop(run, None)) is not None:
            element.paused_seconds += now - since

    def measured(self, run: RunId, metrics: Metrics, logs: list[str]) -> None:
        """A worker says what a run took."""
        element = self._elements[run.element, run.index]
        element.peak_anon_bytes = max(element.peak_anon_bytes, metrics.peak_anon)
        element.peak_data_bytes = max(element.peak_data_bytes, metrics.peak_data)
        element.spilled_bytes = max(element.spilled_bytes, metrics.spilled)
        element.cpu_seconds += metrics.cpu_seconds
        element.bytes_read += metrics.bytes_read
        element.bytes_written += metrics.bytes_written
        if run.attempt == element.attempts:
            element.metrics = metrics.recorded
        self.meter.held_byte_seconds += metrics.byte_seconds
        self.meter.cpu_seconds += metrics.cpu_seconds
        self.meter.bytes_read += metrics.bytes_read
        self.meter.bytes_written += metrics.bytes_written
        if logs:
            label = f"[{run.element}]" if self._copies(run.element) == 1 else f"[{label_of(run)}]"
            self._log([_labelled(line, label) for line in logs])

    def _log(self, lines: list[str]) -> None:
        size = sum(map(len, lines))
        if self._logged <= MAX_LOGS < self._logged + size:
            self._record.logs.append(
                f"… more than {MAX_LOGS} characters of logs: the rest is left out"
            )
        self._logged += size
        if self._logged <= MAX_LOGS:
            self._record.logs += lines

    def ended(
        self, run: RunId, now: float, status: ElementStatus, failure: Failure | None = None
    ) -> None:
        """A run is over."""
        self.meter.run_ended(run, now)
        element = self._elements[run.element, run.index]
        self._resumed(run, element, now)
        if run.attempt < element.attempts or (
            status == "cancelled" and element.status == "waiting"
        ):
            return  # it was void before it ended; what comes after it is what counts
        element.end = self._clock + now
        element.status = status
        element.error = None if failure is None else failure.message

    def restarted(self, run: RunId, reason: str) -> None:
        """A run is void and will be repeated."""
        self.meter.recomputed.append(label_of(run))
        element = self._elements[run.element, run.index]
        element.status = "waiting"
        element.error = reason

    def memory_created(self, memory: MemoryId, size: int, now: float) -> None:
        """Bytes are reserved for a memory element (0 for an elastic one)."""
        self.meter.memory_created(memory, size, now)
        self._memory[memory] = MemoryRecord(
            name=memory.name,
            generation=memory.generation,
            start=self._clock + now,
            peak_bytes=size,
        )

    def memory_gone(
        self,
        memory: MemoryId,
        now: float,
        peak: int | None = None,
        byte_seconds: float | None = None,
    ) -> None:
        """A memory element was freed, or passed to a session; see `Meter.memory_gone`."""
        self.meter.memory_gone(memory, now, peak, byte_seconds)
        record = self._memory.get(memory)
        if record is None or record.end is not None:
            return
        record.end = self._clock + now
        if record.peak_bytes:
            record.gb_s = record.peak_bytes * (record.end - record.start) / GB
        elif peak is not None and byte_seconds is not None:
            record.peak_bytes, record.gb_s = peak, byte_seconds / GB

    def finish(
        self,
        results: Mapping[str, list[Any]] | None,
        failure: Failure | None,
        now: float,
        warm_gb_s: float,
    ) -> Activation:
        """Close the record."""
        record = self._record
        record.end = self._clock + now
        if failure is None and results is not None:
            record.status = "success"
            record.result = self._result(results)
        elif failure is not None:
            record.status = "cancelled" if failure.kind == "cancelled" else "failed"
            record.error = describe(failure)
            record.error_kind = failure.kind
        for element in self._elements.values():
            if element.status in ("waiting", "running"):
                element.status = "cancelled"
            elif element.status == "done":
                element.error = None  # of an attempt that was repeated
        self.final = self.snapshot(now, warm_gb_s)
        return self.final

    def _result(self, results: Mapping[str, list[Any]]) -> Any:
        unpacked = {name: [_unpack(r) for r in copies] for name, copies in results.items()}
        named = {
            name: copies[0] if self._copies(name) == 1 else copies
            for name, copies in unpacked.items()
        }
        return next(iter(named.values())) if self.program.plain else named

    def snapshot(self, now: float, warm_gb_s: float) -> Activation:
        """Copy the record as it is now."""
        record = self._record
        record.usage = self.meter.usage(now, warm_gb_s - self.warm_before)
        return msgspec.structs.replace(
            record,
            logs=list(record.logs),
            elements=[msgspec.structs.replace(e) for e in self._elements.values()],
            memory=[msgspec.structs.replace(m) for m in self._memory.values()],
        )

    def _copies(self, element: str) -> int:
        return self.program.elements[element].count


def label_of(run: RunId) -> str:
    """``element[index]``."""
    return f"{run.element}[{run.index}]"


def describe(failure: Failure) -> str:
    """A failure as text: one line, then the traceback."""
    who = f"element {failure.element}" if failure.element is not None else ""
    if who and failure.index:
        who += f"[{failure.index}]"
    # The scheduler's own messages say already whom they are about.
    named = not who or f"element {failure.element}" in failure.message
    line = failure.message if named else f"{who}: {failure.message}"
    return f"{line}\n{failure.traceback.rstrip()}" if failure.traceback else line


def _labelled(line: str, label: str) -> str:
    head, separator, text = line.partition(": ")
    return f"{head}{separator}{label} {text}" if separator else f"{label} {line}"
