"""What a run found, as it is kept in ``--json`` and read again by ``--from``.

Seconds are wall clock, one figure per round; GB is 10**9 bytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from tpcds.errors import TpcdsError
from tpcds.record import write_json

__all__ = ["Cell", "EngineInfo", "Pass", "Results", "ResultsError", "merged", "read", "write"]

Role = Literal["ours", "peer", "baseline"]


class ResultsError(TpcdsError):
    """A file that is not a run's, or runs that cannot be shown as one."""


class Cell(msgspec.Struct, kw_only=True):
    """One engine on one query.

    Attributes
    ----------
    seconds, cpu_seconds, gb_s, core_s
        Of each round; the reserved ones only where something is reserved.
    gb_s_parts
        What the last round's GB·s are made of.
    process_gb_s
        Of each round, of one function alone: if its limit held its whole process.
    held_gb_s
        Of each round, of ours alone: what its elements held, and what memory elements reserved.
    peak_bytes
        The most that one part of the engine held: the process of a peer (resident), the largest
        compute element or function (anonymous).
    reserved_bytes
        Limit of one function or element.
    rows
        Of the answer.
    error
        Why there is no answer.
    wrong
        What is wrong with it.
    timed_out
        Whether `error` is the time limit.
    """

    seconds: list[float] = []
    cpu_seconds: list[float] = []
    gb_s: list[float] = []
    core_s: list[float] = []
    gb_s_parts: dict[str, float] = {}
    process_gb_s: list[float] = []
    held_gb_s: list[float] = []
    peak_bytes: int | None = None
    reserved_bytes: int | None = None
    rows: int | None = None
    error: str | None = None
    wrong: str | None = None
    timed_out: bool = False

    @property
    def answered(self) -> bool:
        """Whether there is a right answer."""
        return bool(self.seconds) and self.error is None and self.wrong is None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def reserved_gb_s(self) -> float | None:
        """Reserved GB·s, the median over rounds."""
        return statistics.median(self.gb_s) if self.gb_s else None


class EngineInfo(msgspec.Struct, kw_only=True):
    """One engine of a pass.

    Attributes
    ----------
    load_seconds, loaded_bytes
        What it did before the first query, uncounted, and the memory of its process after it.
    fill_seconds
        Of the pass that filled its resident columns, uncounted; None where there was none.
    """

    title: str
    role: Role
    version: str
    load_seconds: float = 0.0
    loaded_bytes: int = 0
    fill_seconds: float | None = None


class Pass(msgspec.Struct, kw_only=True):
    """Engines by key, and what each made of each query."""

    name: Literal["cold", "resident"]
    engines: dict[str, EngineInfo]
    queries: dict[int, dict[str, Cell]] = {}

    def keys(self, *roles: Role) -> list[str]:
        """Engines with one of these roles, in order."""
        return [key for key, engine in self.engines.items() if engine.role in roles]


class Results(msgspec.Struct, kw_only=True):
    """One run, or several that measured different queries in the same way."""

    sf: float | None
    generator: str
    settings: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    passes: dict[str, Pass] = {}
    further: dict[str, Any] = {}


def write(path: Path, results: Results, summary: dict[str, Any]) -> None:
    """Write a file that is complete or not there; `summary` is for readers other than `read`."""
    write_json(path, {**msgspec.to_builtins(results, str_keys=True), "summary": summary})


def read(path: Path) -> Results:
    """Read what `write` wrote.

    Raises
    ------
    ResultsError
        If it is something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except (OSError, msgspec.DecodeError) as error:
        raise ResultsError(f"{path} does not hold the results of a run: {error}") from error


def merged(runs: Sequence[Results]) -> Results:
    """Runs over different queries as one.

    Each query has all its engines in one run; nothing is compared across runs.

    Raises
    ------
    ResultsError
        If data, machine, versions, settings or engines differ.
    """
    first, *others = runs
    for run in others:
        for name in ("sf", "generator", "settings", "versions", "machine"):
            if getattr(run, name) != getattr(first, name):
                raise ResultsError(
                    f"the runs differ in {name}: {getattr(first, name)!r} and "
                    f"{getattr(run, name)!r}; only like runs can be shown as one"
                )
    passes: dict[str, Pass] = {}
    for run in runs:
        for name, one in run.passes.items():
            known = passes.setdefault(name, Pass(name=one.name, engines=one.engines))
            if list(known.engines) != list(one.engines):
                raise ResultsError(f"the {name} passes are not of the same engines")
            known.queries = dict(sorted({**known.queries, **one.queries}.items()))
    further = {key: value for run in runs for key, value in run.further.items()}
    return msgspec.structs.replace(first, passes=passes, further=further)
