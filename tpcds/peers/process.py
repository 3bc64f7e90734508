"""`EngineProcess` here, ``python -m tpcds.peers.process`` there: one engine, one process.

An engine shares no interpreter lock, allocator or thread with another, what it holds is its own
and can be read off, and one that hangs can be ended. Requests are JSON lines on the process'
stdin; an answer is a JSON line on its stdout and, if it says so, that many bytes of Arrow IPC
stream. The process keeps the time, so that neither direction counts.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, Protocol, Self

import pyarrow as pa

from tpcds.children import die_with_parent, ignore_terminal_signals, spawn
from tpcds.errors import PeerError

__all__ = ["Engine", "EngineProcess", "Outcome", "main"]


class Engine(Protocol):
    """What runs in the process. It is made with the arguments that the parent gives."""

    def load(self) -> None:
        """Make the tables known, and read them if the engine works on tables in memory."""

    def prepare(self, number: int, sql: str) -> Callable[[], Any]:
        """Get a query ready, uncounted: no more than putting its text into the engine's dialect.

        What is returned runs it to its last row, and is what is timed.
        """

    def table(self, answer: Any) -> pa.Table:
        """An answer as Arrow data, uncounted."""

    def figures(self) -> Mapping[str, Any]:
        """Whatever else is known of the query that ran last, as JSON-able data."""

    def close(self) -> None:
        """Give everything back."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one query.

    Attributes
    ----------
    seconds
        Wall clock from the SQL text to the last row in this engine's memory.
    cpu_seconds
        Of the engine's process, all threads.
    peak_bytes
        The most resident memory of that process meanwhile, what it held before included.
    rows
        Of the answer.
    table
        The answer; None unless it was asked for.
    error
        One line that says why there is no answer; the figures are then None.
    timed_out
        Whether the reason is the time limit.
    figures
        Whatever else the engine tells.
    """

    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    rows: int | None = None
    table: pa.Table | None = None
    error: str | None = None
    timed_out: bool = False
    figures: Mapping[str, Any] = field(default_factory=dict)


class EngineProcess:
    """An engine in a process of its own; started again after it was ended.

    Parameters
    ----------
    engine
        ``module:Class`` of an `Engine`.
    arguments
        What the class is made with, as JSON-able data.
    environment
        Set in the process before the module is imported.

    Raises
    ------
    PeerError
        From any method but `run`, if the engine cannot be started.
    """

    def __init__(
        self,
        engine: str,
        arguments: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._engine = engine
        self._arguments = dict(arguments)
        self._environment = dict(environment or {})
        self.load_seconds = 0.0
        self.loaded_bytes = 0
        self.starts = 0
        self._start()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    def run(
        self, number: int, sql: str, *, limit: float | None = None, fetch: bool = False
    ) -> Outcome:
        """Run a query.

        Parameters
        ----------
        number, sql
            The query.
        limit
            Seconds after which the process is killed, and started anew for the next query.
        fetch
            Whether the answer itself is wanted.
        """
        if self._process.poll() is not None:
            self._end()
            self._start()
        try:
            header, table = self._ask({"number": number, "sql": sql, "fetch": fetch}, limit)
        except TimeoutError:
            self._end()
            return Outcome(error=f"not done in {limit:g} s", timed_out=True)
        except PeerError as error:
            return Outcome(error=str(error))
        return Outcome(
            header["seconds"],
            header["cpu_seconds"],
            header["peak_bytes"],
            header["rows"],
            table,
            figures=header["figures"],
        )

    def close(self) -> None:
        """End the process in good order if it goes soon enough."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        with contextlib.suppress(Exception):
            self._process.wait(10)
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._process = spawn("tpcds.peers.process", [str(os.getpid())])
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        self.starts += 1
        try:
            header, _ = self._ask(
                {
                    "engine": self._engine,
                    "arguments": self._arguments,
                    "environment": self._environment,
                },
                None,
            )
        except BaseException:
            self._end()
            raise
        self.load_seconds = float(header["seconds"])
        self.loaded_bytes = int(header["bytes_held"])

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._requests, self._answers):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _ask(
        self, request: Mapping[str, Any], limit: float | None
    ) -> tuple[dict[str, Any], pa.Table | None]:
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            # The pipe is empty between requests: whatever is readable is this one's answer.
            if not select.select([self._answers], [], [], limit)[0]:
                raise TimeoutError
            line = self._answers.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            status = self._process.wait()
            how = f"killed by signal {-status}" if status < 0 else f"status {status}"
            raise PeerError(f"the process of {self._engine} ended ({how})")
        header: dict[str, Any] = json.loads(line)
        if "error" in header:
            raise PeerError(header["error"])
        size = int(header.get("bytes", 0))
        if not size:
            return header, None
        with pa.ipc.open_stream(pa.py_buffer(self._answers.read(size))) as reader:
            return header, reader.read_all()


def main() -> None:
    """Entry point of an engine's process."""
    ignore_terminal_signals()
    die_with_parent(int(sys.argv[1]))
    # Nothing that an engine prints, native code included, may get between the answers.
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    engine: Engine | None = None
    try:
        for line in requests:
            payload: pa.Buffer | None = None
            try:
                request = json.loads(line)
                if engine is None:
                    engine, header = _load(request)
                else:
                    header, payload = _run(engine, request)
            except Exception as error:
                words = " ".join(str(error).split())
                header = {"error": f"{type(error).__name__}: {words[:500]}"}
            answers.write(json.dumps(header).encode() + b"\n")
            if payload is not None:
                answers.write(payload)
            answers.flush()
    finally:
        if engine is not None:
            engine.close()


def _load(request: Mapping[str, Any]) -> tuple[Engine, dict[str, Any]]:
    os.environ.update(request["environment"])
    module, _, name = request["engine"].partition(":")
    engine: Engine = getattr(importlib.import_module(module), name)(**request["arguments"])
    start = time.perf_counter()
    engine.load()
    seconds = time.perf_counter() - start
    return engine, {"seconds": seconds, "bytes_held": _status("VmRSS")}


def _run(engine: Engine, request: Mapping[str, Any]) -> tuple[dict[str, Any], pa.Buffer | None]:
    run = engine.prepare(request["number"], request["sql"])
    _forget_peak()
    cpu, start = _cpu_seconds(), time.perf_counter()
    answer = run()
    seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
    peak = _status("VmHWM")
    table = engine.table(answer)
    header: dict[str, Any] = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_bytes": peak,
        "rows": table.num_rows,
        "figures": dict(engine.figures()),
    }
    payload = _serialize(table) if request["fetch"] else None
    if payload is not None:
        header["bytes"] = payload.size
    return header, payload


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _forget_peak() -> None:
    """Let the kernel's record of this process' most resident memory begin anew."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _status(name: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    with open("/proc/self/status") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    return 0


def _serialize(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


if __name__ == "__main__":
    main()
