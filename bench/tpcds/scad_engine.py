"""Scad as one of the engines that are measured."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from engine import Session

__all__ = ["ScadEngine", "reserved_parts", "unknown_settings"]


def unknown_settings(settings: Mapping[str, Any]) -> list[str]:
    """Settings that this build's `Session` does not have."""
    return sorted(set(settings) - set(inspect.signature(Session.__init__).parameters))


def reserved_parts(usage: Any) -> dict[str, float]:
    """Reserved GB·s by what reserved them: all of a run's ``…_gb_s`` but what was held of them."""
    figures = msgspec.to_builtins(usage)
    return {
        name.removesuffix("_gb_s"): float(value)
        for name, value in figures.items()
        if name.endswith("_gb_s") and name != "held_gb_s"
    }


class ScadEngine:
    """A session with the tables registered and its workers started.

    Parameters
    ----------
    tables
        Files of each table.
    settings
        Of `engine.Session`.
    """

    def __init__(self, tables: Mapping[str, Sequence[str]], settings: Mapping[str, Any]) -> None:
        self._tables = tables
        self._session = Session(**settings)
        self._seconds = 0.0

    def load(self) -> None:
        """Register the tables and start the control plane."""
        from tpcds.runner import warm_up

        for table, files in self._tables.items():
            self._session.register(table, list(files))
        warm_up(self._session)

    def prepare(self, number: int, sql: str) -> Callable[[], pa.Table]:
        """The text is taken as it is: planning counts."""

        def run() -> pa.Table:
            start = time.perf_counter()
            answer = self._session.sql(sql).collect()
            self._seconds = time.perf_counter() - start
            return answer

        return run

    def table(self, answer: pa.Table) -> pa.Table:
        """It is one."""
        return answer

    def figures(self) -> Mapping[str, Any]:
        """What the run reserved and used."""
        run = self._session.last_run
        assert run is not None
        elements = run.activation.elements
        parts = reserved_parts(run.usage)
        if run.resident is not None:
            # They belong to the session, and are reserved for as long as the query takes.
            parts["resident"] = run.resident.bytes * self._seconds / 1e9
        return {
            "gb_s": parts,
            "held_gb_s": run.usage.held_gb_s + run.usage.memory_gb_s,
            "core_s": run.usage.core_s,
            "cpu_s": run.usage.cpu_s,
            "peak_bytes": max((e.peak_anon_bytes for e in elements), default=0),
            "reserved_bytes": max((e.limit_bytes for e in elements), default=0),
        }

    def close(self) -> None:
        """Close the session."""
        self._session.close()
