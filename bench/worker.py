"""Processes for the two sides of a measurement: `Worker` here, ``python -m bench.worker`` there.

Clients and servers of every peer run in processes of their own, ours too: no side shares an
interpreter lock, an allocator or a background thread with another. A worker ends when its parent
does, because it then reads the end of its socket.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import placement
from bench.harness import Timer
from bench.work import Job, Work, WrongBytesError

__all__ = ["JobTimer", "Together", "Worker", "WorkerError"]

HEAD_START = 0.003


class WorkerError(Exception):
    """A worker failed; the message holds what it printed last."""


class Worker:
    """A process that is one side's client or a peer's server.

    Parameters
    ----------
    module
        Module with a class ``Server`` or ``PeerClient``.
    role
        Name of that class.
    arguments
        What the class is made with, as JSON-able data.
    environment
        Set in the process beside what this one has.
    """

    def __init__(
        self,
        module: str,
        role: str,
        arguments: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        here, there = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        self.job: Job | None = None
        root = str(Path(__file__).parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with there:
            self._process = subprocess.Popen(
                [
                    *placement.prefix(placement.get().of(role)),
                    *[sys.executable, "-m", "bench.worker", str(there.fileno())],
                ],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, **(environment or {}), "PYTHONPATH": path},
            )
        self.pid = self._process.pid
        self._connection = Connection(here.detach())
        try:
            self.address: dict[str, Any] = self.ask("open", module, role, arguments or {})
        except BaseException:
            self.close()
            raise

    def tell(self, *request: Any) -> None:
        """Send a request; `answer` gets what it returns, or says that the process ended."""
        with suppress(ConnectionError):
            self._connection.send_bytes(json.dumps(request).encode())

    def answer(self) -> Any:
        """Wait for the answer to the oldest request that has none.

        Raises
        ------
        WrongBytesError
            if it is that bytes are wrong.
        WorkerError
            if it is any other failure, or the process ended.
        """
        try:
            kind, value = json.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError):
            self._process.wait()
            raise WorkerError(
                f"a worker ended ({self._process.returncode}): {self._printed()}"
            ) from None
        if kind == "wrong":
            raise WrongBytesError(value)
        if kind == "error":
            raise WorkerError(f"{value}\n{self._printed()}".rstrip())
        return value

    def ask(self, *request: Any) -> Any:
        """Send a request and wait for its answer."""
        self.tell(*request)
        return self.answer()

    def prepare(self, job: Job) -> None:
        """Get ready for a job, unless it is the current one."""
        if job != self.job:
            self.job = None
            self.ask("prepare", job.to_json())
            self.job = job

    def _printed(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace")

    def close(self) -> None:
        """End the process and wait for it. May be called twice."""
        self._connection.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class JobTimer(Timer):
    """A job done by one worker, on that worker's clock."""

    def __init__(self, worker: Worker, job: Job) -> None:
        self.worker = worker
        self.job = job

    def seconds(self, repeat: int) -> float:
        """Seconds from the first call's begin to the last one's end."""
        self.worker.prepare(self.job)
        begin, end = self.worker.ask("run", repeat, 0.0)
        return float(end - begin)

    def check(self) -> None:
        """Have the worker compare what one call moves."""
        self.worker.prepare(self.job)
        self.worker.ask("check")


class Together(Timer):
    """A job done by several workers at once: from a common start to the end of the last."""

    def __init__(self, workers: list[Worker], job: Job) -> None:
        self.workers = workers
        self.job = job

    def seconds(self, repeat: int) -> float:
        """Seconds from the common start to the last end; every worker makes `repeat` calls."""
        for worker in self.workers:
            worker.prepare(self.job)
        # CLOCK_MONOTONIC is one clock for all processes.
        start = time.perf_counter() + HEAD_START
        for worker in self.workers:
            worker.tell("run", repeat, start)
        ends = [worker.answer() for worker in self.workers]
        return float(max(end for _, end in ends) - min(begin for begin, _ in ends))

    def check(self) -> None:
        """Have each worker compare what one call of its moves."""
        for worker in self.workers:
            worker.prepare(self.job)
            worker.ask("check")


def run(work: Work, repeat: int, start: float) -> tuple[float, float]:
    """Make `repeat` calls from `start` on; return when they began and ended."""
    call = work.call
    if start:
        time.sleep(max(0.0, start - time.perf_counter() - HEAD_START / 4))
        while time.perf_counter() < start:
            pass
    begin = time.perf_counter()
    for _ in range(repeat):
        call()
    return begin, time.perf_counter()


def serve(connection: Connection) -> None:
    """Do what the parent asks until it closes the connection."""
    opened: Any = None
    work: Work | None = None
    try:
        while True:
            try:
                verb, *arguments = json.loads(connection.recv_bytes())
            except (EOFError, ConnectionError):
                return
            answer: tuple[str, Any]
            try:
                if verb == "open":
                    module, role, values = arguments
                    opened = getattr(importlib.import_module(module), role)(**values)
                    answer = ("done", opened.address)
                elif verb == "prepare":
                    work = None
                    work = opened.prepare(Job.from_json(arguments[0]))
                    answer = ("done", None)
                elif verb == "check":
                    assert work is not None
                    work.check()
                    answer = ("done", None)
                elif verb == "run":
                    assert work is not None
                    answer = ("done", run(work, *arguments))
                else:
                    answer = ("done", getattr(opened, verb)(*arguments))
            except WrongBytesError as error:
                answer = ("wrong", str(error))
            except Exception:  # whatever a peer raises is the other process's to tell
                answer = ("error", traceback.format_exc())
            connection.send_bytes(json.dumps(answer).encode())
    finally:
        work = None
        if opened is not None:
            opened.close()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
    # Some peers' background threads do not let an interpreter end in good order.
    os._exit(0)
