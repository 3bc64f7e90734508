"""The oracle: DuckDB on the same Parquet files, in a process of its own.

Apart, so that its memory is given back, its threads and limits are its own, Ctrl-C interrupts it
at once, and it dies with this process. Requests are JSON lines on its stdin; an answer is a JSON
line on its stdout and, if it says so, that many bytes of Arrow IPC stream.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import pyarrow as pa

from tpcds.children import die_with_parent, ignore_terminal_signals, spawn
from tpcds.errors import OracleError
from tpcds.ties import read_through_ties, widen
from tpcds.verify import Widened

if TYPE_CHECKING:
    import duckdb

__all__ = ["Answer", "Oracle", "connect", "main"]


@dataclass(frozen=True, slots=True)
class Answer:
    """DuckDB's answer to a query and the wall-clock seconds that it took, fetching included."""

    table: pa.Table
    seconds: float


class Oracle:
    """DuckDB over the Parquet files of a data set.

    Parameters
    ----------
    tables
        Files of each table.
    threads
        Threads that DuckDB may use.

    Raises
    ------
    OracleError
        From any method, if DuckDB refuses or its process ends.

    Notes
    -----
    DuckDB does not spill to disk here: a killed process would leave the files.
    """

    def __init__(self, tables: Mapping[str, Sequence[Path]], threads: int) -> None:
        self.threads = threads
        self._process = spawn("tpcds.oracle", [str(os.getpid())])
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        files = {table: [str(path) for path in paths] for table, paths in tables.items()}
        try:
            self._ask({"tables": files, "threads": threads})
        except BaseException:
            self.close()
            raise

    def answer(self, sql: str) -> Answer:
        """Run a query."""
        header, table = self._ask({"sql": sql})
        assert table is not None
        return Answer(table, float(header["seconds"]))

    def widened(self, sql: str, rows: int) -> Widened:
        """The query's rows without its LIMIT, through the tie that a LIMIT of `rows` cuts."""
        header, table = self._ask({"sql": sql, "through": rows})
        assert table is not None
        return Widened(table, int(header["keys"]))

    def close(self) -> None:
        """End the process. It has nothing to clean up."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], pa.Table | None]:
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            status = self._process.wait()
            how = f"killed by signal {-status}" if status < 0 else f"status {status}"
            raise OracleError(f"the DuckDB process that checks answers ended ({how})")
        header: dict[str, Any] = json.loads(line)
        if "error" in header:
            raise OracleError(f"DuckDB: {header['error']}")
        size = int(header.get("bytes", 0))
        if not size:
            return header, None
        with pa.ipc.open_stream(pa.py_buffer(self._answers.read(size))) as reader:
            return header, reader.read_all()


def connect(tables: Mapping[str, Sequence[str]], threads: int) -> duckdb.DuckDBPyConnection:
    """A connection with a view of each table's Parquet files, which never spills to disk."""
    import duckdb

    connection = duckdb.connect(config={"threads": threads, "temp_directory": ""})
    for table, files in tables.items():
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
        connection.execute(f"create view {table} as select * from read_parquet([{listed}])")
    return connection


def main() -> None:
    """Entry point of the oracle's process."""
    ignore_terminal_signals()
    die_with_parent(int(sys.argv[1]))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    connection: duckdb.DuckDBPyConnection | None = None
    for line in requests:
        request = json.loads(line)
        payload: pa.Buffer | None = None
        try:
            if connection is None:
                connection = connect(request["tables"], request["threads"])
                header: dict[str, Any] = {}
            else:
                header, table = _respond(connection, request)
                payload = _serialize(table)
                header["bytes"] = payload.size
        except Exception as error:
            header = {"error": " ".join(str(error).split())}
        answers.write(json.dumps(header).encode() + b"\n")
        if payload is not None:
            answers.write(payload)
        answers.flush()


def _respond(
    connection: duckdb.DuckDBPyConnection, request: Mapping[str, Any]
) -> tuple[dict[str, Any], pa.Table]:
    if "through" not in request:
        start = time.perf_counter()
        table = connection.execute(request["sql"]).to_arrow_table()
        return {"seconds": time.perf_counter() - start}, table
    sql, keys = widen(connection, request["sql"])
    reader = connection.execute(sql).to_arrow_reader(8192)
    with reader:
        return {"keys": keys}, read_through_ties(reader, reader.schema, request["through"], keys)


def _serialize(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


if __name__ == "__main__":
    main()
