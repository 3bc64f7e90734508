"""The process that generates one data set; `tpcds.data` starts it and reads its progress.

It is a process of its own because neither generator can be interrupted or gives its memory back.
Arguments: generator, scale factor, an existing empty directory. It writes one JSON object per
line to stdout (`Progress` as a dict, at last ``{"done": …}`` or ``{"error": …}``). When its
parent disappears it removes the directory and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tpcds.children import die_with_parent, ignore_terminal_signals, watch_lifeline
from tpcds.errors import DataError
from tpcds.extension import load_extension
from tpcds.tables import TABLES

__all__ = ["expected_bytes", "expected_memory", "main", "tpcgen_program"]

_POLL_SECONDS = 0.25
_ROW_GROUP_ROWS = 122_880  # DuckDB's own unit of parallel scanning
_MEGABYTE = 10**6

Emit = Callable[[dict[str, Any]], None]
Started = Callable[["subprocess.Popen[bytes]"], None]


def expected_bytes(sf: float) -> int:
    """Bytes that a data set takes on disk, roughly (measured at SF 1 and 10; small ones have
    fixed dimension tables).
    """
    return int((4 + 290 * sf) * _MEGABYTE)


def expected_memory(generator: str, sf: float) -> int:
    """Bytes of memory that generating takes at its peak, roughly (measured likewise)."""
    if generator == "tpcgen":
        return 500 * _MEGABYTE
    return int((300 + 900 * min(sf, 1) + 400 * max(sf - 1, 0)) * _MEGABYTE)


def tpcgen_program() -> str:
    """Path of the ``tpcgen-cli`` program.

    Raises
    ------
    DataError
        If it is not installed.
    """
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("tpcgen-cli", path=scripts) or shutil.which("tpcgen-cli")
    if found is None:
        raise DataError("tpcgen-cli is not installed; try: pip install 'scad[tpcds]'")
    return found


def dsdgen(sf: float, directory: Path, emit: Emit, started: Started) -> None:
    """Generate with DuckDB's tpcds extension, then write one Parquet file per table."""
    import duckdb

    # In a file, because it holds a tenth of what the tables take in memory.
    database = directory / ".generated.db"
    limit = f"{max(1000, int(400 * sf))}MB"
    connection = duckdb.connect(database, config={"memory_limit": limit})
    load_extension(connection)
    expected = expected_memory("dsdgen", sf)

    # The generator itself says nothing of its progress; the memory that it fills does.
    def report() -> None:
        emit({"phase": "generate", "bytes": _resident(), "expected": expected})

    with _polling(report):
        connection.execute("call dsdgen(sf = ?)", [sf])
    for done, table in enumerate(TABLES):
        emit({"phase": "write", "table": table, "tables_done": done, "tables": len(TABLES)})
        target = directory / f"{table}.parquet"
        connection.execute(
            f"copy {table} to '{_quoted(target)}' (format parquet, compression zstd, "
            f"row_group_size {_ROW_GROUP_ROWS})"
        )
    connection.close()
    for leftover in directory.glob(f"{database.name}*"):
        leftover.unlink()
    emit({"phase": "write", "tables_done": len(TABLES), "tables": len(TABLES)})


def tpcgen(sf: float, directory: Path, emit: Emit, started: Started) -> None:
    """Generate with ``tpcgen-cli``: a folder of Parquet files per table."""
    cores = len(os.sched_getaffinity(0))
    command = [
        *(tpcgen_program(), "tpcds", "parquet", "--scale-factor", f"{sf:g}"),
        *("--output-dir", str(directory), "--compression", "ZSTD(1)"),
        *("--row-group-bytes", "64MB", "--parts", "4", "--num-threads", str(cores), "--quiet"),
    ]
    me = os.getpid()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: die_with_parent(me),
    )
    started(process)

    def report() -> None:
        folders = [p for p in directory.iterdir() if p.is_dir()]
        size = sum(f.stat().st_size for folder in folders for f in folder.iterdir())
        begun = len({p.name for p in folders} & set(TABLES))
        emit(
            {
                "phase": "generate",
                "bytes": size,
                "expected": expected_bytes(sf),
                "tables_done": begun,
                "tables": len(TABLES),
            }
        )

    with _polling(report):
        _, errors = process.communicate()
    if process.returncode:
        said = errors.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else "no message"
        raise DataError(f"tpcgen-cli ended with status {process.returncode}: {reason}")
    # A table of the generator's own, which no query reads and the other generator does not have.
    shutil.rmtree(directory / "dbgen_version", ignore_errors=True)


class _polling:
    """Call a function now and then while the block runs; what it raises is not our business."""

    def __init__(self, report: Callable[[], None]) -> None:
        self._report = report
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            with contextlib.suppress(OSError):  # a file that vanished between listing and stat
                self._report()


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _abandon(directory: Path, children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.kill()
        child.wait()
    # Renamed first, so that writers still at work find no place for another file.
    doomed = directory.with_name(directory.name + ".dead")
    with contextlib.suppress(OSError):
        directory.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def main() -> None:
    """Entry point of the generating process."""
    generator, sf, directory = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    ignore_terminal_signals()
    children: list[subprocess.Popen[bytes]] = []
    watch_lifeline(sys.stdin.fileno(), lambda: _abandon(directory, children))
    out = sys.stdout.buffer

    def emit(event: dict[str, Any]) -> None:
        out.write(json.dumps(event).encode() + b"\n")
        out.flush()

    try:
        {"dsdgen": dsdgen, "tpcgen": tpcgen}[generator](sf, directory, emit, children.append)
    except BaseException as error:
        emit({"error": str(error) or type(error).__name__, "traceback": traceback.format_exc()})
        raise SystemExit(1) from None
    emit({"done": True})


if __name__ == "__main__":
    main()
