"""DuckDB's tpcds extension: found in its wheel, never downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from tpcds.errors import TpcdsError

if TYPE_CHECKING:
    import duckdb

__all__ = ["extension_file", "load_extension"]


def extension_file() -> Path:
    """File of the extension that matches the installed DuckDB.

    Raises
    ------
    TpcdsError
        If DuckDB or the extension's wheel is missing, or if the two are of different versions.
    """
    import duckdb

    spec = importlib.util.find_spec("duckdb_extension_tpcds")
    if spec is None or spec.origin is None:
        raise TpcdsError(
            "DuckDB's tpcds extension is not installed; try: pip install 'scad[tpcds]'"
        )
    folder = Path(spec.origin).parent / "extensions"
    wanted = f"v{duckdb.__version__}"
    found = next((folder / wanted).glob("tpcds.duckdb_extension"), None)
    if found is None:
        versions = ", ".join(sorted(p.name for p in folder.glob("v*"))) or "none"
        raise TpcdsError(
            f"DuckDB is {wanted} but the installed tpcds extension is for {versions}; the two must "
            "match exactly; try: pip install 'scad[tpcds]'"
        )
    return found


def load_extension(connection: duckdb.DuckDBPyConnection) -> None:
    """Load the extension into a connection, without touching the network."""
    connection.load_extension(str(extension_file()))
