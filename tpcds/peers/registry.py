"""Which peers there are, and how one is started."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tpcds.errors import PeerError
from tpcds.peers.process import EngineProcess

__all__ = ["PEERS", "PeerInfo", "parse_peer_list", "start_peer"]


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A peer.

    Attributes
    ----------
    title
        For the heads of tables.
    package
        Its distribution, as ``pip install`` wants it.
    engine
        ``module:Class`` of its `tpcds.peers.process.Engine`.
    resident
        Whether it works on tables that it loaded into memory before, rather than on Parquet files.
    """

    title: str
    package: str
    engine: str
    resident: bool

    @property
    def version(self) -> str:
        """Of the installed distribution."""
        return version(self.package)


PEERS: Mapping[str, PeerInfo] = {
    "duckdb": PeerInfo("DuckDB", "duckdb", "tpcds.peers.on_duckdb:DuckdbOnParquet", False),
    "polars": PeerInfo("Polars", "polars", "tpcds.peers.on_polars:PolarsOnParquet", False),
    "duckdb-native": PeerInfo(
        "DuckDB, native", "duckdb", "tpcds.peers.on_duckdb:DuckdbOnTables", True
    ),
    "polars-native": PeerInfo(
        "Polars, frames", "polars", "tpcds.peers.on_polars:PolarsOnFrames", True
    ),
}


def parse_peer_list(text: str) -> list[str]:
    """Names in a list such as ``duckdb,polars``, in its order, each once.

    Raises
    ------
    PeerError
        If there is no such peer, or it is not installed.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in PEERS:
            raise PeerError(f"there is no peer {name!r}; there are {', '.join(PEERS)}")
        package = PEERS[name].package
        if importlib.util.find_spec(package) is None:
            raise PeerError(f"{name} is not installed: pip install {package}")
    return names


def start_peer(name: str, tables: Mapping[str, Sequence[Path]], threads: int) -> EngineProcess:
    """Start a peer's process and let it load the tables.

    Parameters
    ----------
    name
        A key of `PEERS`.
    tables
        Parquet files of each table.
    threads
        That it may use.
    """
    files = {table: [str(path) for path in paths] for table, paths in tables.items()}
    # Polars reads its number of threads when it is imported.
    environment = {"POLARS_MAX_THREADS": str(threads)}
    return EngineProcess(PEERS[name].engine, {"tables": files, "threads": threads}, environment)
