"""The second baseline of reserved GB·s: the function-centric pipeline.

The same stages as Scad's, each copy of each a function of its own that reserves its memory limit
for as long as it runs, waiting for its transfers included; what goes between them lies in Redis.
Functions run as soon as their parents are done and a core is free, on workers that are warm
already. Neither planning nor warm workers are charged here; both are in Scad's figures.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import redis

from bench.peers.redis_server import Server
from bench.tpcds.functions import fetch
from engine import Session
from engine.execution import export
from engine.policy import KEPT_BY_WORKERS
from engine.session import PREIMPORT
from openwhisk.app import complete
from openwhisk.app.model import Application, ComputeElement
from openwhisk.control import EmbeddedControlPlane
from openwhisk.invoker.settings import WORKER_ENVIRONMENT, scaled_environment
from operators.schema import Schema
from tpcds.children import spawn

__all__ = ["Pipeline", "PipelineError", "RedisMeter"]

SAMPLE_SECONDS = 0.01
LEAST_MEMORY, MOST_MEMORY = 128 << 20, 16 << 30


class PipelineError(Exception):
    """A function failed."""


class OutOfMemory(PipelineError):
    """A function needs more memory than it may use."""


class Recorder:
    """A control plane that remembers the application that it was given last."""

    def __init__(self, control: EmbeddedControlPlane) -> None:
        self._control = control
        self.last: Application

    def put_application(self, app: Application, *, overwrite: bool = False) -> None:
        """Remember, and pass on."""
        self.last = app
        self._control.put_application(app, overwrite=overwrite)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)


class FunctionWorker:
    """One warm process that runs functions."""

    def __init__(self, port: int, cores: int) -> None:
        # Allocators and thread pools as Scad's own workers have them.
        environment = {
            **WORKER_ENVIRONMENT,
            **scaled_environment(cores),
            "POLARS_MAX_THREADS": str(cores),
        }
        arguments = [str(os.getpid()), str(port)]
        self._process = spawn("bench.tpcds.functions", arguments, environment)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        if not self._answers.readline():
            self.close()
            raise PipelineError("a worker of the pipeline ended before it began")

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one function."""
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise PipelineError(f"the worker that ran {request['name']} ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._requests, self._answers):
            with suppress(BrokenPipeError):
                stream.close()


class RedisMeter:
    """Redis' memory over time: what it says that it uses, sampled."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.byte_seconds = 0.0
        self.peak = 0

    def __enter__(self) -> RedisMeter:
        self._last, self._since = self._used(), time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._add()

    def _used(self) -> int:
        return int(self._client.info("memory")["used_memory"])

    def _add(self) -> None:
        used, now = self._used(), time.perf_counter()
        self.byte_seconds += (used + self._last) / 2 * (now - self._since)
        self._last, self._since = used, now
        self.peak = max(self.peak, used)

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._add()


@dataclass(slots=True)
class Cost:
    """What one run of a query reserved."""

    function_gb_s: float = 0.0
    core_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    reserved_bytes: int = 0


@dataclass(slots=True)
class Run:
    """The state of one run of an application."""

    app: Application
    results: dict[str, list[Any]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)

    @property
    def compute(self) -> list[ComputeElement]:
        """The functions."""
        return [e for e in self.app.elements if isinstance(e, ComputeElement)]


class Pipeline:
    """An engine: Scad's planner, functions, Redis.

    Parameters
    ----------
    tables
        Files of each table.
    threads
        Cores, and workers.
    settings
        Of `engine.Session`, which plans.
    """

    def __init__(
        self, tables: Mapping[str, Sequence[str]], threads: int, settings: Mapping[str, Any]
    ) -> None:
        self._tables = tables
        self._cores = threads
        self._control = Recorder(EmbeddedControlPlane(preimport=PREIMPORT))
        self._session = Session(**settings, control=self._control)
        self._applications: dict[int, tuple[Application, Schema]] = {}
        self._limits: dict[tuple[int, str], int] = {}
        self._figures: dict[str, Any] = {}
        self._runs = 0

    def load(self) -> None:
        """Start Redis and the workers."""
        for table, files in self._tables.items():
            self._session.register(table, list(files))
        self._server = Server()
        port = self._server.address["port"]
        self._client = redis.Redis(host="127.0.0.1", port=port)
        self._workers = [FunctionWorker(port, self._cores) for _ in range(self._cores)]
        self._threads = ThreadPoolExecutor(self._cores)

    def prepare(self, number: int, sql: str) -> Callable[[], pa.Table]:
        """Have Scad run the query, take over the application that it ran, and find the memory
        with which every function finishes.
        """
        if number not in self._applications:
            frame = self._session.sql(sql)
            for _ in range(2):  # the first run of a query teaches the session what its stages need
                frame.collect()
            self._applications[number] = (complete(self._control.last), frame.plan.schema)
            self._finish(number)
        return lambda: self._finish(number)

    def table(self, answer: pa.Table) -> pa.Table:
        """It is one."""
        return answer

    def figures(self) -> Mapping[str, Any]:
        """What the functions and Redis reserved."""
        return self._figures

    def close(self) -> None:
        """End everything."""
        self._threads.shutdown()
        for worker in self._workers:
            worker.close()
        self._client.close()
        self._server.close()
        self._session.close()
        self._control.close()

    def _finish(self, number: int) -> pa.Table:
        """Run until no function needs more than its limit; what counts is the last run."""
        while True:
            try:
                return self._run(number)
            except OutOfMemory:
                continue  # with twice as much

    def _run(self, number: int) -> pa.Table:
        app, schema = self._applications[number]
        run = Run(app)
        run.left = {e.name: e.parallelism for e in run.compute}
        self._runs += 1
        try:
            with RedisMeter(self._client) as meter:
                self._dispatch(number, run)
                sink = next(e for e in run.compute if not e.dependents)
                answer = export(fetch(self._client, run.results[sink.name]), schema)
        finally:
            self._client.flushall()
        cost = run.cost
        self._figures = {
            "gb_s": {"functions": cost.function_gb_s, "redis": meter.byte_seconds / 1e9},
            "core_s": cost.core_s,
            "cpu_s": cost.cpu_s,
            "peak_bytes": cost.peak_bytes,
            "reserved_bytes": cost.reserved_bytes,
        }
        return answer

    def _dispatch(self, number: int, run: Run) -> None:
        """Start what is ready while cores are free, until all is done."""
        waiting = {e.name: e for e in run.compute}
        ready: list[tuple[ComputeElement, int]] = []
        under_way: dict[Future[dict[str, Any]], tuple[ComputeElement, int, FunctionWorker]] = {}
        idle, free = list(self._workers), float(self._cores)
        try:
            while waiting or ready or under_way:
                for element in list(waiting.values()):
                    if all(run.left[parent] == 0 for parent in element.parents):
                        del waiting[element.name]
                        run.results[element.name] = [None] * element.parallelism
                        ready += [(element, index) for index in range(element.parallelism)]
                while ready and idle and (not under_way or ready[0][0].limits.cpu <= free):
                    element, index = ready.pop(0)
                    worker = idle.pop()
                    free -= element.limits.cpu
                    request = self._request(number, run, element, index)
                    under_way[self._threads.submit(worker.run, request)] = (element, index, worker)
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    element, index, worker = under_way.pop(future)
                    idle.append(worker)
                    free += element.limits.cpu
                    self._take(number, run, element, index, future.result())
        finally:
            wait(under_way)

    def _request(
        self, number: int, run: Run, element: ComputeElement, index: int
    ) -> dict[str, Any]:
        return {
            "name": element.name,
            "code": element.code,
            "index": index,
            "count": element.parallelism,
            "cpu": element.limits.cpu,
            "mem": self._limit(number, element),
            "params": {parent: run.results[parent] for parent in element.parents},
            "run": f"{self._runs}:{index}",
        }

    def _limit(self, number: int, element: ComputeElement) -> int:
        """What a function reserves: the limit of its element, without the room for what a worker
        kept, which elements do not reserve. Doubled where it was too little.
        """
        least = max(element.limits.mem - KEPT_BY_WORKERS, LEAST_MEMORY)
        return self._limits.get((number, element.name), least)

    def _take(
        self, number: int, run: Run, element: ComputeElement, index: int, answer: dict[str, Any]
    ) -> None:
        """Book what a function did, and drop the exchanges that nobody reads any more."""
        limit = self._limit(number, element)
        if (failed := answer["failed"]) is not None:
            if failed.startswith("memory:") and limit < MOST_MEMORY:
                self._limits[number, element.name] = limit * 2
                raise OutOfMemory(f"{element.name}: {failed}")
            raise PipelineError(f"{element.name}: {failed}")
        run.results[element.name][index] = answer["result"]
        run.left[element.name] -= 1
        cost = run.cost
        cost.function_gb_s += limit * answer["seconds"] / 1e9
        cost.core_s += element.limits.cpu * answer["seconds"]
        cost.cpu_s += answer["cpu_seconds"]
        cost.peak_bytes = max(cost.peak_bytes, answer["peak_bytes"])
        cost.reserved_bytes = max(cost.reserved_bytes, limit)
        if run.left[element.name] == 0:
            for parent in element.parents:
                readers = [e for e in run.compute if parent in e.parents]
                if all(run.left[reader.name] == 0 for reader in readers):
                    self._drop(run.results[parent])

    def _drop(self, handles: Sequence[Mapping[str, Any]]) -> None:
        frames: list[Mapping[str, Any]] = []
        for handle in handles:
            frames += handle["partitions"] if handle["kind"] == "exchange" else [handle]
        keys = [key for frame in frames for key in frame["keys"]]
        if keys:
            self._client.delete(*keys)
