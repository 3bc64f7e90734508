"""The first baseline of reserved GB·s: the whole query in one function.

DuckDB with the smallest power-of-two memory limit with which the query finishes without spilling,
its own time with that limit: what somebody who knew the limit would reserve.

DuckDB's limit is about its buffers alone. A function that is held to a limit as Scad's elements
are, as a process, has to reserve the smallest power of two that holds all its anonymous memory;
that is kept beside, as ``process_gb_s``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from openwhisk._sampler import Sampler
from tpcds.data import cache_root
from tpcds.peers.on_duckdb import DuckdbOnParquet
from tpcds.record import write_json

__all__ = ["LIMITS", "DuckdbFunction", "LimitCache"]

MIB = 1 << 20
LIMITS = tuple(64 * MIB << n for n in range(9))
"""64 MiB … 16 GiB."""


class LimitCache:
    """Limits that were found, by data set, version of DuckDB and number of threads.

    Finding one takes several runs of the query. What is read here is only where to begin: half of
    it is tried first, as a limit that was doubled once because the threads met badly would stay.
    """

    def __init__(self, data_set: str, threads: int, path: Path | None = None) -> None:
        self._path = path or cache_root().parent / "bench" / "duckdb-limits.json"
        self._key = f"{data_set}, duckdb {duckdb.__version__}, {threads} threads"

    def get(self, number: int) -> int | None:
        """The limit of a query, in bytes; None if it was never looked for."""
        found = self._read().get(self._key, {}).get(str(number))
        return found if found in LIMITS else None

    def put(self, number: int, limit: int) -> None:
        """Keep a limit. A folder that cannot be written costs the next run a search, no more."""
        known = self._read()
        known.setdefault(self._key, {})[str(number)] = limit
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, known)

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


class DuckdbFunction(DuckdbOnParquet):
    """DuckDB on Parquet files, with a memory limit of its own for each query.

    Parameters
    ----------
    tables, threads
        As for `DuckdbOnParquet`.
    data_set
        Name of the data, for the cache of limits.
    cache
        File of that cache; by default in the user's cache folder.
    """

    def __init__(
        self,
        tables: Mapping[str, Sequence[str]],
        threads: int,
        data_set: str,
        cache: str | None = None,
    ) -> None:
        super().__init__(tables, threads)
        self._limits = LimitCache(data_set, threads, None if cache is None else Path(cache))
        self._sampler = Sampler()
        self._figures: dict[str, Any] = {}

    def prepare(self, number: int, sql: str) -> Callable[[], pa.Table]:
        """Find the query's limit, unless it is known; forget what other queries left in memory."""
        if self._connection is not None:
            self._connection.close()
        self.load()
        limit = self._search(number, sql, (self._limits.get(number) or 0) // 2)

        def run() -> pa.Table:
            nonlocal limit
            while True:
                try:
                    self._set(limit)
                    self._sampler.start()
                    start = time.perf_counter()
                    answer = self._run(sql)
                except duckdb.OutOfMemoryException:
                    self._sampler.stop()
                    # How much is held at once depends a little on how the threads meet.
                    if limit == LIMITS[-1]:
                        raise
                    limit *= 2
                    self._limits.put(number, limit)
                    continue
                seconds = time.perf_counter() - start
                peak = self._sampler.stop()
                process = max(limit, 1 << (peak - 1).bit_length())
                self._figures = {
                    "gb_s": {"function": limit * seconds / 1e9},
                    "process_gb_s": process * seconds / 1e9,
                    "peak_bytes": peak,
                    "core_s": self._threads * seconds,
                    "seconds": seconds,
                    "reserved_bytes": limit,
                }
                return answer

        return run

    def figures(self) -> Mapping[str, Any]:
        """What the function reserved, and its time without runs that failed."""
        return self._figures

    def close(self) -> None:
        """Close the connection."""
        self._sampler.close()
        super().close()

    def _search(self, number: int, sql: str, least: int) -> int:
        for limit in (one for one in LIMITS if one >= least):
            with contextlib.suppress(duckdb.OutOfMemoryException):
                self._set(limit)
                self._run(sql)
                self._limits.put(number, limit)
                return limit
        raise MemoryError(f"DuckDB does not finish q{number} with {LIMITS[-1] // MIB} MiB")

    def _run(self, sql: str) -> pa.Table:
        assert self._connection is not None
        return self._connection.execute(sql).to_arrow_table()

    def _set(self, limit: int) -> None:
        assert self._connection is not None
        self._connection.execute(f"set memory_limit = '{limit}B'")
