"""A worker of the function-centric pipeline: ``python -m bench.tpcds.functions PARENT PORT``.

It runs the very source of Scad's compute elements. Only what they import is another thing here:
reading and writing exchanges goes through Redis as Arrow IPC, copied on both ways, as between
functions that share nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import pyarrow as pa
import redis

import engine
import engine.element
from openwhisk._sampler import Sampler
from openwhisk.app.model import Limits
from openwhisk.runtime import Action, Resources
from operators.errors import KernelMemoryError
from operators.part_columns import layout
from operators.partition import Partitioner
from operators.partitioning import Hash, Ranges
from tpcds.children import die_with_parent, ignore_terminal_signals

__all__ = ["RedisExchanges", "fetch", "main"]

CHUNK_BYTES = 32 << 20
"""A value of Redis holds about so much: far below its limit of 512 MB, and a function need not
hold all that it writes."""
_LOCAL = {"run", "run_polars", "table", "part", "reduced"}

Handles = Sequence[Mapping[str, Any]]


class RedisTransport:
    """Stands for a memory element: where an element's ``get_transport`` says to write."""

    def __init__(self, name: str) -> None:
        self.name = name


class RedisTransports:
    """What the runtime's `Action` asks for transports."""

    def __init__(self) -> None:
        self._known: dict[str, RedisTransport] = {}

    def add_transport(self, durl: Any) -> Any:
        """There is nothing to configure."""
        raise NotImplementedError

    def config_transport(self, name: str, durl: Any) -> Any:
        """There is nothing to configure."""
        raise NotImplementedError

    def get_transport(self, name: str, interface: str = "", timeout: float | None = None) -> Any:
        """The transport of that name."""
        return self._known.setdefault(name, RedisTransport(name))

    def close(self) -> None:
        """Nothing is open."""


class Exported:
    """An array of the partition kernel as pyarrow takes it."""

    def __init__(self, schema: pa.Schema, array: object) -> None:
        self._schema, self._array = schema, array

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        return self._schema.__arrow_c_schema__(), self._array


class RedisExchanges:
    """`engine.element`'s reading and writing, through Redis.

    A frame is the list of its keys; each value is an Arrow IPC stream. There is always one, so
    that whoever reads it knows the columns.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.run = ""
        self._written = 0

    def write(
        self,
        rows: Any,
        transport: RedisTransport,
        action: object = None,
        *,
        budget: int | None = None,
    ) -> dict[str, Any]:
        """Write all rows as one frame."""
        keys = [
            self._put(transport, group, rows.schema) for group in _groups(rows, CHUNK_BYTES)
        ] or [self._put(transport, [], rows.schema)]
        return {"kind": "frame", "keys": keys}

    def exchange(
        self,
        rows: Any,
        transport: RedisTransport,
        keys: Sequence[int],
        partitions: int,
        action: object = None,
        *,
        budget: int | None = None,
    ) -> dict[str, Any]:
        """Scatter rows with the kernel that Scad's exchanges use."""
        return self._scattered(rows, transport, Hash(tuple(keys), partitions))

    def exchange_ranges(
        self,
        rows: Any,
        transport: RedisTransport,
        keys: Sequence[int],
        boundaries: pa.RecordBatch,
        action: object = None,
        *,
        descending: Sequence[bool] = (),
        nulls_first: Sequence[bool] = (),
        budget: int | None = None,
    ) -> dict[str, Any]:
        """Scatter rows by ranges."""
        how = Ranges(tuple(keys), boundaries, tuple(descending), tuple(nulls_first))
        return self._scattered(rows, transport, how)

    def read_all(
        self,
        handles: Sequence[Mapping[str, Any]],
        action: Action,
        columns: Any = None,
        where: Any = (),
    ) -> pa.Table:
        """Everything that all copies of a parent wrote."""
        frames: list[Mapping[str, Any]] = []
        for handle in handles:
            frames += handle["partitions"] if handle["kind"] == "exchange" else [handle]
        return fetch(self._client, frames, columns)

    def read_part(
        self,
        handles: Sequence[Mapping[str, Any]],
        action: Action,
        columns: Any = None,
        where: Any = (),
    ) -> pa.Table:
        """The partition with this copy's number of what all copies of a parent wrote."""
        return fetch(self._client, [h["partitions"][action.index] for h in handles], columns)

    def read_own(
        self,
        handles: Sequence[Mapping[str, Any]],
        action: Action,
        columns: Any = None,
        where: Any = (),
    ) -> pa.Table:
        """What the copy with this copy's number wrote; no rows if there was none."""
        if action.index < len(handles):
            return fetch(self._client, [handles[action.index]], columns)
        return fetch(self._client, [handles[0]], columns).slice(0, 0)

    def install(self) -> None:
        """Become this process' `engine.element`."""
        real = engine.element
        module = types.ModuleType("engine.element", real.__doc__)
        module.__dict__.update(real.__dict__)
        for name in real.__all__:
            if name not in _LOCAL:
                module.__dict__[name] = getattr(self, name, None) or _unsupported(name)
        sys.modules["engine.element"] = module
        engine.element = module

    def _scattered(
        self, rows: Any, transport: RedisTransport, how: Hash | Ranges
    ) -> dict[str, Any]:
        work = Partitioner(rows.schema, how)
        found: list[list[str]] = [[] for _ in range(how.partitions)]
        for group in _groups(rows, CHUNK_BYTES * how.partitions):
            for batch in group:
                work.add(batch)
            for chunks, batch in zip(found, _parts(work), strict=True):
                if batch.num_rows:
                    chunks.append(self._put(transport, [batch], work.schema))
        for chunks in found:
            if not chunks:
                chunks.append(self._put(transport, [], work.schema))
        return {
            "kind": "exchange",
            "partitions": [{"kind": "frame", "keys": chunks} for chunks in found],
        }

    def _put(
        self, transport: RedisTransport, batches: Iterable[pa.RecordBatch], schema: pa.Schema
    ) -> str:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        self._written += 1
        key = f"{transport.name}:{self.run}:{self._written}"
        self._client.set(key, memoryview(sink.getvalue()))
        return key


def fetch(
    client: redis.Redis, frames: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of frames, read from Redis."""
    tables = []
    for frame in frames:
        for key in frame["keys"]:
            with pa.ipc.open_stream(pa.py_buffer(client.get(key))) as reader:
                tables.append(reader.read_all())
    table = pa.concat_tables(tables)
    return table if columns is None else table.select(list(columns))


def _unsupported(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"the pipeline has no element.{name}")

    return refuse


def _groups(rows: Iterable[pa.RecordBatch], least: int) -> Iterator[list[pa.RecordBatch]]:
    """Batches in a row that hold `least` bytes together."""
    group: list[pa.RecordBatch] = []
    size = 0
    for batch in rows:
        if batch.num_rows == 0:
            continue
        group.append(batch)
        size += batch.nbytes
        if size >= least:
            yield group
            group, size = [], 0
    if group:
        yield group


def _parts(work: Partitioner) -> list[pa.RecordBatch]:
    """What is staged, as one batch for each partition."""
    block = memoryview(b"")

    def allocate(size: int) -> memoryview:
        nonlocal block
        block = memoryview(bytearray(size))
        return block

    written = work.write(allocate)
    places = layout(work.schema.types, range(len(work.schema)))
    batches = []
    for part in written:
        spans = places.spans(part.rows, part.null_counts, part.string_bytes)
        views = [block[part.offset + at : part.offset + at + size] for at, size in spans]
        array = places.columns(part.rows, part.null_counts, part.string_bytes, spans, views)
        batches.append(pa.record_batch(Exported(work.schema, array)))
    return batches


class Worker:
    """Runs functions one after the other, as a warm container does."""

    def __init__(self, port: int) -> None:
        self.exchanges = RedisExchanges(redis.Redis(host="127.0.0.1", port=port))
        self.exchanges.install()
        self._resources = Resources()
        self._sampler = Sampler()
        self._fresh = self._sampler.read()
        self._sources: dict[str, Callable[..., Any]] = {}

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one function; its time is from its parameters to its result, transfers included.

        What allocators keep of earlier functions does not count against its limit.
        """
        kept = max(0, self._sampler.read() - self._fresh)
        start, cpu = time.perf_counter(), time.process_time()
        limit = int(request["mem"])
        self.exchanges.run = request["run"]
        action = Action(
            request["name"],
            RedisTransports(),
            index=request["index"],
            count=request["count"],
            limits=Limits(cpu=request["cpu"], mem=limit),
            resources=self._resources,
        )
        self._sampler.start()
        try:
            result = self._main(request["code"])(request["params"], action)
            failed = None
        except (MemoryError, KernelMemoryError, pa.ArrowMemoryError) as error:
            result, failed = None, f"memory: {error}"
        except Exception:
            result, failed = None, traceback.format_exc()
        peak = self._sampler.stop()
        seconds = time.perf_counter() - start
        if failed is None and peak - kept > limit:
            failed = f"memory: it held {peak} bytes, {kept} of them before"
        return {
            "result": result,
            "failed": failed,
            "seconds": seconds,
            "cpu_seconds": time.process_time() - cpu,
            "peak_bytes": peak,
        }

    def rest(self) -> None:
        """Give back what can be, between two functions."""
        self._resources.when_idle()

    def _main(self, code: str) -> Callable[..., Any]:
        if code not in self._sources:
            namespace: dict[str, Any] = {"__name__": "element"}
            exec(compile(code, "<element>", "exec"), namespace)
            self._sources[code] = namespace["main"]
        return self._sources[code]


def main() -> None:
    """Entry point: a JSON line for each request and each answer."""
    ignore_terminal_signals()
    die_with_parent(int(sys.argv[1]))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an element prints is no answer
    worker = Worker(int(sys.argv[2]))
    answers.write(b"{}\n")
    answers.flush()
    for line in requests:
        answers.write(json.dumps(worker.run(json.loads(line))).encode() + b"\n")
        answers.flush()
        worker.rest()


if __name__ == "__main__":
    main()
