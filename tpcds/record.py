"""What a run leaves for machines: one record per query, totals, and the circumstances.

The JSON of ``--json`` is an object with

``sf``, ``generator``
    Of the data (``sf`` is null for data of unknown scale).
``queries``
    By query number: `QueryRecord`. Figures that are not known (the query failed, or was not
    compared) are null.
``totals``
    Counts of queries (``asked``, ``ran``, ``verified``, ``failed``), and sums of the figures over
    the queries that ran; of the peaks the largest.
``versions``, ``machine``, ``settings``
    Circumstances.
``passes``
    Totals of every pass; everything else is of the last.
``resident``
    Resident columns of the session over all passes; null if none were kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "Peer",
    "QueryRecord",
    "machine",
    "report",
    "totals",
    "versions",
    "write_json",
]

_SUMMED = (
    "bytes_written",
    "bytes_read",
    "compute_gb_s",
    "memory_gb_s",
    "held_gb_s",
    "core_s",
    "elements",
)
_PEAKS = ("peak_compute_bytes", "peak_memory_bytes", "peak_anon_bytes")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another engine on the same query.

    Attributes
    ----------
    seconds
        Wall clock, one run, the answer fetched; None if there is no answer.
    threads
        That it was allowed.
    answers
        ``same`` or ``different``: of ``duckdb``, which checks answers, whether ours is its; of
        another peer, whether its is DuckDB's. None if that was not looked at.
    error
        Why it has no answer, or none that is right.
    """

    seconds: float | None
    threads: int
    answers: Literal["same", "different"] | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """What is known of one query after its turn.

    Attributes
    ----------
    seconds
        Wall clock from SQL text to the collected answer.
    verified
        Whether the answer is right; None if it was not compared.
    stages, elements
        Of the DAG: stages that it was cut into, compute elements that ran.
    bytes_written, bytes_read
        Copied between compute and memory elements; what is mapped (shared memory) is not copied.
    peak_compute_bytes, peak_memory_bytes
        The most that was reserved at one moment: by compute elements, in memory elements.
    peak_anon_bytes
        The most that one compute element really held, measured.
    compute_gb_s, memory_gb_s, core_s
        Reserved over time; GB is 10**9 bytes.
    held_gb_s
        What compute elements really held over time, measured.
    resident
        What the query had of resident columns (`engine.resident.use.ResidentUse`); None where
        none are kept.
    rows
        Of the answer.
    recomputed
        Elements (``name[copy]``) that were lost and repeated, once for each time.
    error
        One line that says why it failed or what is wrong with the answer.
    notes
        Tolerated differences.
    """

    number: int
    seconds: float | None = None
    verified: bool | None = None
    stages: int | None = None
    elements: int | None = None
    bytes_written: int | None = None
    bytes_read: int | None = None
    peak_compute_bytes: int | None = None
    peak_memory_bytes: int | None = None
    peak_anon_bytes: int | None = None
    compute_gb_s: float | None = None
    memory_gb_s: float | None = None
    held_gb_s: float | None = None
    core_s: float | None = None
    resident: Mapping[str, int | float] | None = None
    rows: int | None = None
    recomputed: tuple[str, ...] = ()
    peers: Mapping[str, Peer] = field(default_factory=dict)
    error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether it ran, and matched if it was compared."""
        return self.error is None and self.verified is not False

    def to_json(self) -> dict[str, Any]:
        """The record as plain data, without its number."""
        plain = asdict(self)
        del plain["number"]
        return plain


def totals(records: Iterable[QueryRecord], asked: int) -> dict[str, Any]:
    """Sums over the queries that ran, and counts of queries.

    Parameters
    ----------
    records
        Of the queries that had their turn.
    asked
        How many were asked for.
    """
    records = list(records)
    ran = [r for r in records if r.seconds is not None]
    found: dict[str, Any] = {
        "asked": asked,
        "ran": len(ran),
        "verified": sum(r.verified is True for r in records),
        "failed": sum(not r.succeeded for r in records),
        "seconds": sum(r.seconds or 0.0 for r in ran),
    }
    for name in _SUMMED:
        found[name] = sum(getattr(r, name) or 0 for r in ran)
    for name in _PEAKS:
        found[name] = max((getattr(r, name) or 0 for r in ran), default=0)
    found["peers"] = {}
    for name in dict.fromkeys(name for r in ran for name in r.peers):
        # Like with like: our seconds on just the queries that the peer answered too.
        both = [(r.seconds or 0.0, r.peers[name]) for r in ran if name in r.peers]
        pairs = [(ours, p.seconds) for ours, p in both if p.seconds is not None and p.error is None]
        if pairs:
            found["peers"][name] = {
                "seconds": sum(theirs for _, theirs in pairs),
                "ours": sum(ours for ours, _ in pairs),
                "queries": len(pairs),
            }
    return found


def report(
    records: Iterable[QueryRecord],
    asked: int,
    *,
    sf: float | None,
    generator: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole of ``--json``."""
    records = list(records)
    return {
        "sf": sf,
        "generator": generator,
        "settings": dict(settings),
        "versions": versions(),
        "machine": machine(),
        "totals": totals(records, asked),
        "queries": {str(r.number): r.to_json() for r in records},
    }


def versions() -> dict[str, str]:
    """Versions of Scad, Python, and what decides plans, kernels and data."""
    found = {"python": platform.python_version()}
    for package in (
        "scad",
        "duckdb",
        "duckdb-extension-tpcds",
        "tpcgen-cli",
        "datafusion",
        "pyarrow",
        "numpy",
    ):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def machine() -> dict[str, Any]:
    """The machine, without its name."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": f"{platform.system()} {platform.release()}",
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that is complete or not there.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Processor"):
                return value.strip()
    return platform.processor() or "unknown"
