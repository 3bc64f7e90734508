"""Who takes part in a pass, and how each is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from bench.tpcds.results import Role
from tpcds.data import DataSet
from tpcds.peers import PEERS, EngineProcess, start_peer

__all__ = ["BASELINES", "Contestant", "baseline", "peer", "scad"]

BASELINES = {
    "function": "one function: DuckDB with the smallest power-of-two memory limit that suffices",
    "pipeline": "the stages as functions, data through Redis",
}


@dataclass(frozen=True, slots=True)
class Contestant:
    """One engine.

    Attributes
    ----------
    start
        Starts its process.
    fills
        Whether it answers all queries once, uncounted, before it is measured.
    patience
        Times the time limit that it is given: for what it does before its clock starts.
    """

    key: str
    title: str
    role: Role
    version: str
    start: Callable[[], EngineProcess] = field(repr=False)
    fills: bool = False
    patience: float = 1.0


def _files(data: DataSet) -> dict[str, list[str]]:
    return {table: [str(path) for path in paths] for table, paths in data.tables.items()}


def scad(data: DataSet, settings: Mapping[str, Any], *, resident: str | None = None) -> Contestant:
    """Ours.

    Parameters
    ----------
    settings
        Of `engine.Session`.
    resident
        Budget of resident columns; with one, a first pass over the queries fills it.
    """
    given = dict(settings) if resident is None else {**settings, "resident": resident}
    arguments = {"tables": _files(data), "settings": given}
    return Contestant(
        "scad",
        "Scad" if resident is None else "Scad, resident",
        "ours",
        version("scad"),
        lambda: EngineProcess("bench.tpcds.scad_engine:ScadEngine", arguments),
        fills=resident is not None,
    )


def peer(name: str, data: DataSet, threads: int) -> Contestant:
    """One of `tpcds.peers.PEERS`."""
    about = PEERS[name]
    return Contestant(
        name, about.title, "peer", about.version, lambda: start_peer(name, data.tables, threads)
    )


def baseline(name: str, data: DataSet, threads: int, settings: Mapping[str, Any]) -> Contestant:
    """One of `BASELINES`: what its reserved GB·s are is the point, not how fast it is."""
    arguments: dict[str, Any] = {"tables": _files(data), "threads": threads}
    if name == "function":
        arguments["data_set"] = data.directory.name
        engine, title, package = "bench.tpcds.function:DuckdbFunction", "one function", "duckdb"
    else:
        arguments["settings"] = dict(settings)
        engine, title, package = "bench.tpcds.pipeline:Pipeline", "functions, Redis", "redis"
    return Contestant(
        name,
        title,
        "baseline",
        version(package),
        lambda: EngineProcess(engine, arguments),
        # It looks for the limits that suffice before it runs with them.
        patience=10.0,
    )


def rotated(contestants: Sequence[Contestant], by: int) -> list[Contestant]:
    """The same, beginning with another one."""
    first = by % len(contestants)
    return [*contestants[first:], *contestants[:first]]
